"""The embedded stack: all that a laptop needs, started by `solve` and `batch` for themselves, or by `up` for everyone.

An `up` holds the lock of the data folder and serves all clients of that folder. Without one, a client starts a stack
of its own (a Redis in a temporary folder, one worker process with all agents) on the same database; several may run
side by side, since every step is claimed in SQL.
"""

import contextlib
import fcntl
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import IO

import redis
from pydantic import SecretStr

from ..schemas.errors import ConfigurationError, StoreFull
from ..schemas.settings import Settings
from ..store.migrate import upgrade
from .children import Child
from .durability import require_durable_broker, require_durable_database
from .logs import quiet_logs
from .private_folder import private_folder, remove_leftovers
from .redis_server import answers, broker_url_of, redis_child, socket_path, wait_until_up
from .supervisor import BackgroundSupervisor

LOCK_FILE = "stack.lock"
PRIVATE_SHUTDOWN_S = 0.5
SPACE_MIN_BYTES = 20_000_000
STOP_TIMEOUT_S = 8.0


def prepare_data_dir(settings: Settings) -> Path:
    """Create the data folder and check that it can be written. Raises ConfigurationError, StoreFull."""
    folder = settings.data_dir
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"0" * 4096)
            probe.flush()
            os.fsync(probe.fileno())
    except OSError as exc:
        if exc.errno in (28, 122):
            raise StoreFull(
                f"no space is left in {folder}: free some, or set K2THINK_DATA_DIR to another folder"
            ) from exc
        raise ConfigurationError(
            f"the data folder {folder} cannot be used ({exc.strerror}): set K2THINK_DATA_DIR to a folder that you can write"
        ) from exc
    if shutil.disk_usage(folder).free < SPACE_MIN_BYTES:
        needed = SPACE_MIN_BYTES // 1_000_000
        raise StoreFull(
            f"less than {needed} MB are left in {folder}: free some, or set K2THINK_DATA_DIR to another folder"
        )
    return folder


def k2think_command(*arguments: str) -> list[str]:
    """The command line of our own CLI in this very interpreter."""
    return [sys.executable, "-m", "k2think.cli", *arguments]


class StackLock:
    """The right to run `up` on a data folder; held as long as the object is open."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / LOCK_FILE
        self._file: IO[str] | None = None

    def acquire(self) -> None:
        """Take the lock. Raises ConfigurationError when another `up` holds it."""
        file = self._path.open("a+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            file.seek(0)
            owner = file.read().strip() or "unknown"
            file.close()
            raise ConfigurationError(
                f"a stack runs already on {self._path.parent} (process {owner}): use it, stop it, "
                "or set K2THINK_DATA_DIR to another folder"
            ) from exc
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        self._file = file

    def release(self) -> None:
        """Give the lock back."""
        if self._file is not None:
            self._file.close()
            self._file = None


@contextlib.contextmanager
def running_stack(
    settings: Settings, *, backend: str | None = None, variables: Mapping[str, str] | None = None
) -> Generator[Settings]:
    """Yield settings with a broker that is served: the configured one, that of a running `up`, or a stack of our own.

    `variables`: of the environment of a stack of our own, for settings that did not come from ours.
    Raises ConfigurationError, BrokerUnavailable, StoreFull, SchemaMismatch.
    """
    quiet_logs()
    if settings.broker_url is not None:
        require_durable_database(settings)
        with contextlib.suppress(redis.RedisError, OSError):  # it is waited for
            require_durable_broker(settings)
        yield settings
        return
    folder = prepare_data_dir(settings)
    upgrade(settings.sqlalchemy_url)
    require_durable_database(settings)
    shared = socket_path(folder)
    if answers(shared):
        yield with_broker(settings, broker_url_of(shared))
        return
    remove_leftovers()
    bound = settings.serving(backend)[0] if backend else None
    with _private_stack(folder, backend=bound, variables=variables or {}) as url:
        yield with_broker(settings, url)


@contextlib.contextmanager
def _private_stack(folder: Path, *, backend: str | None, variables: Mapping[str, str]) -> Generator[str]:
    """Run a Redis in a temporary folder and one worker process with all agents; yield the broker's URL."""
    with private_folder() as private:
        redis_server = redis_child(private)
        keepers = [BackgroundSupervisor(redis_server, stop_timeout_s=STOP_TIMEOUT_S)]
        try:
            keepers[0].start()
            wait_until_up(redis_server, private)
            url = broker_url_of(socket_path(private))
            environment = {
                **variables,
                "K2THINK_BROKER_URL": url,
                "K2THINK_SHUTDOWN_S": str(PRIVATE_SHUTDOWN_S),
            }
            command = k2think_command("worker", "all", *(["--backend", backend] if backend else []))
            log_file = folder / "worker.log"
            worker = Child("worker", command, environment, output=log_file)
            keepers.append(
                BackgroundSupervisor(
                    worker, stop_timeout_s=STOP_TIMEOUT_S, on_cannot_run=lambda: _interrupt_with_last_line(log_file)
                )
            )
            keepers[1].start()
            yield url
        finally:
            for keeper in reversed(keepers):
                keeper.stop()


def _interrupt_with_last_line(log_file: Path) -> None:
    """The worker says that it cannot run: say so, and end the command as Ctrl-C would."""
    lines = log_file.read_text(errors="replace").strip().splitlines()
    print(f"The worker cannot run: {lines[-1] if lines else 'see ' + str(log_file)}", file=sys.stderr)
    os.kill(os.getpid(), signal.SIGINT)


def with_broker(settings: Settings, url: str) -> Settings:
    """Return the settings with this broker."""
    return settings.model_copy(update={"broker_url": SecretStr(url)})
