"""What durability rests on is asked when a process starts: the real command line on real servers with wrong settings."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import redis
from harness.cli import Cli
from harness.stack import clean_environment, free_port
from k2think.store.migrate import upgrade

if TYPE_CHECKING:
    from conftest import RedisServer

pytestmark = pytest.mark.timeout(180)
TIMEOUT_S = 60.0
EVICTING = ("--maxmemory-policy", "allkeys-lru")
PORT_MAX = 50_000
"""Redis in cluster mode listens on a second port, 10,000 above the first."""


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    """The command line on a data folder with a database."""
    (tmp_path / "data").mkdir()
    upgrade(f"sqlite:///{tmp_path / 'data' / 'k2think.db'}")
    environment = {**clean_environment(), "K2THINK_DATA_DIR": str(tmp_path / "data"), "K2THINK_LOG_FORMAT": "json"}
    return Cli(tmp_path, {**environment, "K2THINK_GATEWAY__PORT": str(free_port())})


class Running:
    """A command that runs, and its log so far."""

    def __init__(self, cli: Cli, *words: str, **variables: str) -> None:
        self._log = cli.folder / "running.log"
        with self._log.open("wb") as stream:
            self.process = subprocess.Popen(
                cli.command(*words),
                env={**cli.environment, **variables},
                cwd=cli.folder,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
            )

    def lines(self, event: str) -> list[dict[str, Any]]:
        """Log lines of an event."""
        texts = [text for text in self._log.read_text(errors="replace").splitlines() if text.startswith("{")]
        return [line for line in map(json.loads, texts) if line["event"] == event]

    def wait_for(self, event: str, count: int = 1) -> None:
        """Wait until the event was logged this often."""
        deadline = time.monotonic() + TIMEOUT_S
        while len(self.lines(event)) < count:
            assert self.process.poll() is None, self._log.read_text()[-2000:]
            assert time.monotonic() < deadline, self._log.read_text()[-2000:]
            time.sleep(0.05)

    def ended(self) -> tuple[int, str]:
        """Wait for its end; return exit code and all that it wrote."""
        return self.process.wait(TIMEOUT_S), self._log.read_text()

    def stop(self) -> int:
        """SIGTERM and wait."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(TIMEOUT_S)


@pytest.fixture
def run(cli: Cli) -> Iterator[Callable[..., Running]]:
    """A function that starts a command, which ends with the test."""
    running: list[Running] = []

    def start(*words: str, **variables: str) -> Running:
        running.append(Running(cli, *words, **variables))
        return running[-1]

    yield start
    for one in running:
        if one.process.poll() is None:
            one.process.kill()
            one.process.wait()


COMMANDS = (("worker", "planner"), ("sweeper",), ("gateway",), ("up",), ("solve", "What is 1 + 1?"))


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: words[0])
def test_nothing_starts_on_a_redis_that_evicts(
    cli: Cli, new_redis_server: Callable[..., RedisServer], words: tuple[str, ...]
) -> None:
    server = new_redis_server(*EVICTING)

    done = cli.run(*words, K2THINK_BROKER_URL=server.url)

    assert done.returncode == 2, done.stderr
    [line] = [text for text in done.stderr.splitlines() if text.startswith("Error: ")]
    assert "allkeys-lru" in line
    assert "set it to noeviction" in line
    assert "Traceback" not in done.stderr


def test_nothing_starts_on_a_redis_cluster(cli: Cli, new_redis_server: Callable[..., RedisServer]) -> None:
    port = free_port()
    while port > PORT_MAX:
        port = free_port()
    server = new_redis_server("--cluster-enabled", "yes", "--bind", "127.0.0.1", "--port", str(port))

    done = cli.run("worker", "planner", K2THINK_BROKER_URL=server.url)

    assert done.returncode == 2
    assert "Error: Celery cannot use a Redis Cluster: set K2THINK_BROKER_URL" in done.stderr
    report = cli.json("doctor", K2THINK_BROKER_URL=server.url)
    [check] = [check for check in report["checks"] if check["name"] == "redis"]
    assert check["state"] == "bad"
    assert "Cluster" in check["detail"]


def test_nothing_starts_on_an_sqlite_that_keeps_no_log(cli: Cli, redis_server: RedisServer) -> None:
    # As on a file system that cannot share memory between processes.
    (cli.folder / "sitecustomize.py").write_text(
        "import sqlite3.dbapi2\n"
        "connect = sqlite3.dbapi2.connect\n"
        "def locking_by_files(path, **more):\n"
        "    return connect(f'file:{path}?vfs=unix-dotfile', uri=True, **more)\n"
        "sqlite3.dbapi2.connect = locking_by_files\n"
    )
    more = {"K2THINK_BROKER_URL": redis_server.url, "PYTHONPATH": str(cli.folder)}

    done = cli.run("worker", "planner", **more)

    assert done.returncode == 2
    assert "Error: SQLite cannot keep a write-ahead log where its file is" in done.stderr
    [check] = [check for check in cli.json("doctor", **more)["checks"] if check["name"] == "database"]
    assert check["state"] == "bad"
    assert "local disk" in check["fix"]


def test_postgresql_at_risk_is_told_once(
    cli: Cli, run: Callable[..., Running], postgres_server: Any, redis_server: RedisServer
) -> None:
    url = postgres_server.new_database()
    upgrade(url)
    variables = {"K2THINK_DATABASE_URL": url, "K2THINK_BROKER_URL": redis_server.url}
    sweeper = run("sweeper", **variables)

    sweeper.wait_for("sweeper_started")

    # The tests' server runs without both.
    told = [line["reason"] for line in sweeper.lines("durability_at_risk")]
    assert [name for text in told for name in ("fsync", "full_page_writes") if name in text] == [
        "fsync",
        "full_page_writes",
    ]
    [check] = [check for check in cli.json("doctor", **variables)["checks"] if check["name"] == "database"]
    assert check["state"] == "warning"
    assert sweeper.stop() == 0


def test_a_redis_that_comes_back_evicting_ends_the_process(
    run: Callable[..., Running], new_redis_server: Callable[..., RedisServer]
) -> None:
    server = new_redis_server(*EVICTING)
    server.kill()
    gateway = run("gateway", K2THINK_BROKER_URL=server.url)
    gateway.wait_for("gateway_started")  # it serves without Redis

    server.start()

    code, written = gateway.ended()
    assert code == 2, written
    assert "Error: Redis evicts messages" in written
    assert "Traceback" not in written


def test_a_replica_is_told_and_waited_for(run: Callable[..., Running], redis_server: RedisServer) -> None:
    with redis.Redis(unix_socket_path=str(redis_server.socket)) as client:
        client.execute_command("REPLICAOF", "127.0.0.1", "1")
        sweeper = run("sweeper", K2THINK_BROKER_URL=redis_server.url)
        sweeper.wait_for("service_unavailable")
        assert "point K2THINK_BROKER_URL at the primary" in sweeper.lines("service_unavailable")[0]["reason"]
        sweeper.wait_for("sweeper_started")
    assert sweeper.stop() == 0


def test_a_redis_that_does_not_tell_is_a_risk(
    run: Callable[..., Running], new_redis_server: Callable[..., RedisServer]
) -> None:
    port = str(free_port())
    server = new_redis_server("--bind", "127.0.0.1", "--port", port)
    with redis.Redis(unix_socket_path=str(server.socket)) as client:
        client.execute_command("ACL", "SETUSER", "careful", "on", ">pw", "~*", "&*", "+@all", "-info")
    worker = run("worker", "planner", K2THINK_BROKER_URL=f"redis://careful:pw@127.0.0.1:{port}/0")
    worker.wait_for("durability_at_risk")
    assert "INFO" in worker.lines("durability_at_risk")[0]["reason"]
