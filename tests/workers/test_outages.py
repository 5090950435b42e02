"""Workers that lose Redis, the database, the right time, or their own process: they wait, resume, hand back, say so once."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis
from harness.stack import all_succeeded, clean_environment, results_of, submit_all
from k2think.agents.backends.simulator import (
    ChatRequest,
    Fault,
    FaultKind,
    Reply,
    SimulatedEngine,
    SimulatedServer,
    SolvingResponder,
)
from k2think.schemas.settings import Settings
from k2think.schemas.trace import AttemptOutcome
from k2think.store.jobs import job_trace
from k2think.store.migrate import upgrade
from k2think.workers.session import Session, open_session
from pydantic import SecretStr

START_TIMEOUT_S = 60.0
JOBS = 15
LEASE_S = 5
FAKETIME = next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))), None)


class Worker:
    """`k2think worker all` as a child process, logging JSON lines to a file."""

    def __init__(self, log: Path, environment: dict[str, str]) -> None:
        self.log = log
        with log.open("ab") as stream:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "k2think.cli", "worker", "all"],
                env={**clean_environment(), "K2THINK_LOG_FORMAT": "json", **environment},
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
            )

    def lines(self, event: str) -> list[dict[str, Any]]:
        """Log lines of an event."""
        texts = self.log.read_text(errors="replace").splitlines()
        return [line for line in (json.loads(text) for text in texts if text.startswith("{")) if line["event"] == event]

    async def wait_for(self, event: str, count: int = 1) -> None:
        """Wait until the event was logged this often."""
        async with asyncio.timeout(START_TIMEOUT_S):
            while len(self.lines(event)) < count:
                assert self.process.poll() is None, self.log.read_text()[-2000:]
                await asyncio.sleep(0.05)

    def stop(self) -> int:
        """SIGTERM and wait."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)


@pytest.fixture
def start_worker(tmp_path: Path) -> Iterator[Callable[..., Worker]]:
    """A function that starts a worker with these variables."""
    workers: list[Worker] = []

    def start(**environment: str) -> Worker:
        worker = Worker(tmp_path / f"worker-{len(workers)}.log", {"K2THINK_DATA_DIR": str(tmp_path), **environment})
        workers.append(worker)
        return worker

    yield start
    for worker in workers:
        try:
            worker.stop()
        except subprocess.TimeoutExpired:
            worker.process.kill()
            worker.process.wait()


@asynccontextmanager
async def client(database_url: str, broker_url: str) -> AsyncIterator[Session]:
    settings = Settings(
        _env_file=None,  # pyright: ignore[reportCallIssue]
        database_url=SecretStr(database_url),
        broker_url=SecretStr(broker_url),
    )
    async with open_session(settings) as session:
        yield session


def variables(database_url: str, broker_url: str, server: SimulatedServer) -> dict[str, str]:
    return {
        "K2THINK_DATABASE_URL": database_url,
        "K2THINK_BROKER_URL": broker_url,
        "K2THINK_GENERATOR__BACKEND": "openai",
        "K2THINK_GENERATOR__BASE_URL": server.url,
        "K2THINK_GENERATOR__MODEL": "simulated",
        "K2THINK_LEASE_S": str(LEASE_S),
        "K2THINK_HEARTBEAT_S": "1",
        "K2THINK_SHUTDOWN_S": "0.5",
    }


@pytest.mark.timeout(240)
async def test_redis_and_postgresql_come_and_go(
    postgres_server: Any, redis_server: Any, start_worker: Callable[..., Worker]
) -> None:
    database_url = postgres_server.new_database()
    await asyncio.to_thread(upgrade, database_url.replace("postgresql://", "postgresql+psycopg://"))
    engine = SimulatedEngine(slots=64, token_s=0.002)
    async with SimulatedServer(SolvingResponder(reasoning_tokens=20), engine=engine) as server:
        worker = start_worker(**variables(database_url, redis_server.url, server))
        await worker.wait_for("worker_started")
        async with client(database_url, redis_server.url) as session:
            assert all_succeeded(await results_of(session, await submit_all(session, JOBS)))

            ids = await submit_all(session, JOBS)
            redis_server.kill()
            await asyncio.sleep(3)
            await asyncio.to_thread(redis_server.start)
            assert all_succeeded(await results_of(session, ids))

            ids = await submit_all(session, JOBS)
            await asyncio.to_thread(postgres_server.stop)
            await asyncio.sleep(LEASE_S + 2)
            await asyncio.to_thread(postgres_server.start)
            assert all_succeeded(await results_of(session, ids))
    assert worker.process.poll() is None, "it survived both"
    lost = [line["service"] for line in worker.lines("service_unavailable")]
    for service in ("redis", "database"):
        assert lost.count(service) == 1, f"said once, not a thousand times: {lost}"
    assert not worker.lines("lease_ran_out"), "nobody is dead because the database was"
    assert worker.stop() == 0


@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    ("begin", "end"),
    [
        pytest.param("REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE", id="read_only"),
        pytest.param("CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0", id="full"),
    ],
)
async def test_a_redis_that_refuses_to_write_is_waited_for(
    begin: str, end: str, tmp_path: Path, redis_server: Any, start_worker: Callable[..., Worker]
) -> None:
    """Given a failover that makes a replica of our Redis, then workers live, keep quiet, and lose nothing."""
    database_url = f"sqlite:///{tmp_path}/k2think.db"
    await asyncio.to_thread(upgrade, database_url)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    engine = SimulatedEngine(slots=64, token_s=0.01)
    with redis.Redis(unix_socket_path=str(redis_server.socket)) as admin:
        admin.execute_command("CONFIG SET maxmemory-policy noeviction")
        async with SimulatedServer(SolvingResponder(reasoning_tokens=20), engine=engine) as server:
            worker = start_worker(TMPDIR=str(temporary), **variables(database_url, redis_server.url, server))
            await worker.wait_for("worker_started")
            async with client(database_url, redis_server.url) as session:
                ids = await submit_all(session, JOBS)
                await worker.wait_for("step_finished")  # it has steps under way, and so messages to send
                admin.execute_command(begin)
                ids += await submit_all(session, JOBS)
                late = start_worker(**variables(database_url, redis_server.url, server))
                await late.wait_for("worker_started")
                await asyncio.sleep(4)
                assert late.stop() == 0, "it waits, and stops when told"
                assert worker.process.poll() is None, worker.log.read_text()[-2000:]
                admin.execute_command(end)
                assert all_succeeded(await results_of(session, ids))
    assert worker.stop() == 0
    log = worker.log.read_text()
    assert [line["service"] for line in worker.lines("service_unavailable")] == ["redis"], log[-3000:]
    assert "Traceback" not in log
    assert "Frequent restarts" not in log
    assert not list(temporary.rglob("*")), "nothing that was fetched is written to a file"


@pytest.mark.timeout(180)
async def test_what_is_no_message_is_refused_without_being_repeated(
    tmp_path: Path, redis_server: Any, start_worker: Callable[..., Worker]
) -> None:
    """Given things in the queues that nobody of ours has sent, then each costs one line, and jobs go on."""
    database_url = f"sqlite:///{tmp_path}/k2think.db"
    await asyncio.to_thread(upgrade, database_url)
    secret = "what nobody may read"
    properties = {"delivery_tag": "1", "delivery_info": {"exchange": "", "routing_key": "planner"}}
    message = {"body": secret, "content-type": "application/json", "content-encoding": "utf-8"}
    things: list[bytes] = [
        b"\xff\xfe" + secret.encode(),
        secret.encode(),
        b"[" * 100_000,
        *(
            json.dumps(thing).encode()
            for thing in (
                [secret],
                5,
                {"text": secret},
                {**message, "properties": {}},
                {**message, "properties": properties},
                {**message, "properties": properties, "headers": secret},
                {**message, "properties": properties, "headers": {"task": "k2think.plan"}},
                {**message, "properties": properties, "headers": {"task": [secret], "id": "x"}},
                {**message, "properties": properties, "headers": {"task": f"k2think.{secret}", "id": "x"}},
                {**message, "properties": properties, "headers": {"task": "k2think.plan", "id": "x"}},
            )
        ),
    ]
    async with SimulatedServer(SolvingResponder(reasoning_tokens=5), engine=SimulatedEngine(slots=64)) as server:
        worker = start_worker(**variables(database_url, redis_server.url, server))
        await worker.wait_for("worker_started")
        with redis.Redis(unix_socket_path=str(redis_server.socket)) as admin:
            for queue in ("planner", "intake"):
                admin.lpush(queue, *things, *things, *things, *things, *things, *things)
        async with client(database_url, redis_server.url) as session:
            assert all_succeeded(await results_of(session, await submit_all(session, JOBS)))
        async with asyncio.timeout(START_TIMEOUT_S):
            while len(worker.lines("message_refused")) + len(worker.lines("message_failed")) < 12 * len(things):
                await asyncio.sleep(0.05)
    assert worker.stop() == 0
    log = worker.log.read_text()
    assert secret not in log
    assert not worker.lines("service_unavailable")


class Clock:
    """The machine's clock as libfaketime shows it to the workers; monotonic clocks stay true, as when a clock is set."""

    def __init__(self, folder: Path) -> None:
        site = folder / "site"
        site.mkdir(parents=True)
        # libfaketime takes the monotonic time until which `time.sleep` sleeps for a wrong argument.
        sleep = "import select\nimport time\ntime.sleep = lambda seconds: select.select((), (), (), seconds)\n"
        (site / "sitecustomize.py").write_text(sleep)
        self._file = folder / "ahead"
        self.set(0)
        self.variables = {
            "LD_PRELOAD": str(FAKETIME),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "PYTHONPATH": str(site),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_FORCE_MONOTONIC_FIX": "0",
            "FAKETIME_DISABLE_SHM": "1",
            "NO_FAKE_STAT": "1",
        }

    def set(self, ahead_s: int) -> None:
        """Put it ahead of the true time by so much."""
        written = self._file.with_suffix(".new")
        written.write_text(f"{ahead_s:+d}\n")
        written.replace(self._file)


@pytest.mark.skipif(FAKETIME is None, reason="libfaketime is not installed")
@pytest.mark.timeout(180)
async def test_a_clock_that_is_set_ends_no_lease_of_who_lives_and_keeps_none_of_who_is_dead(
    tmp_path: Path, redis_server: Any, start_worker: Callable[..., Worker]
) -> None:
    database_url = f"sqlite:///{tmp_path}/k2think.db"
    await asyncio.to_thread(upgrade, database_url)
    clock = Clock(tmp_path / "clock")
    engine = SimulatedEngine(slots=64, token_s=0.5)
    async with SimulatedServer(SolvingResponder(accuracy=1.0, reasoning_tokens=200), engine=engine) as server:
        environment = {**variables(database_url, redis_server.url, server), **clock.variables}
        environment |= {"K2THINK_LEASE_S": "2", "K2THINK_HEARTBEAT_S": "0.5"}
        first = start_worker(**environment)
        await first.wait_for("worker_started")
        async with client(database_url, redis_server.url) as session:
            job = {"plan": "off", "n": 3, "selection": "vote", "early_stop": False, "deadline_s": 86_400}
            [job_id] = await submit_all(session, 1, policy=job)
            async with asyncio.timeout(START_TIMEOUT_S):
                while server.open_streams < 3:
                    await asyncio.sleep(0.02)
            second = start_worker(**environment)
            await second.wait_for("worker_started")
            await asyncio.sleep(2)  # its sweeper has looked at the clock

            for jumps, ahead_s in enumerate((3600, -3600), 1):
                clock.set(ahead_s)
                for worker in (first, second):
                    await worker.wait_for("clock_jumped", jumps)
                await asyncio.sleep(5)
                for worker in (first, second):
                    assert not worker.lines("lease_ran_out")
                    assert len(worker.lines("clock_jumped")) == jumps
            assert (server.open_streams, len(server.calls)) == (3, 3)

            clock.set(-7200)
            first.process.kill()
            engine.token_s = 0.001
            assert all_succeeded(await results_of(session, [job_id], timeout_s=30))
    assert len(second.lines("lease_ran_out")) == 3
    assert len(server.calls) == 6
    assert second.stop() == 0


@pytest.mark.skipif(FAKETIME is None, reason="libfaketime is not installed")
@pytest.mark.timeout(180)
@pytest.mark.parametrize("ahead_s", [pytest.param(3600, id="ahead"), pytest.param(-3600, id="behind")])
async def test_the_wrong_clock_of_one_machine_changes_nothing(
    ahead_s: int, tmp_path: Path, postgres_server: Any, redis_server: Any, start_worker: Callable[..., Worker]
) -> None:
    """Given a worker whose clock is off by an hour, then it works in the database's time, deadlines and retries too."""
    database_url = postgres_server.new_database()
    await asyncio.to_thread(upgrade, database_url.replace("postgresql://", "postgresql+psycopg://"))
    clock = Clock(tmp_path / "clock")
    clock.set(ahead_s)
    solve, broken = SolvingResponder(reasoning_tokens=5), iter(range(3))

    def break_the_first(request: ChatRequest) -> Reply:
        fault = None if next(broken, None) is None else Fault(FaultKind.truncated, after_tokens=2)
        return replace(solve(request), fault=fault)

    async with SimulatedServer(break_the_first, engine=SimulatedEngine(slots=64, token_s=0.001)) as server:
        worker = start_worker(**variables(database_url, redis_server.url, server), **clock.variables)
        await worker.wait_for("worker_started")
        async with client(database_url, redis_server.url) as session:
            began = time.time()
            ids = await submit_all(session, JOBS, policy={"deadline_s": 300})
            assert all_succeeded(await results_of(session, ids))
            trace = await session.database.read(lambda connection: job_trace(connection, ids[0]))
    assert worker.lines("step_failed"), "what is tried again waits by the same clock"
    assert not worker.lines("lease_ran_out")
    assert not worker.lines("clock_jumped")
    assert trace.finished_at is not None
    assert began - 5 < trace.created_at <= trace.finished_at < time.time() + 5
    assert all(event.at < time.time() + 5 for event in trace.events)
    assert worker.stop() == 0


@pytest.mark.timeout(180)
async def test_a_worker_told_to_stop_hands_its_steps_back(
    tmp_path: Path, redis_server: Any, start_worker: Callable[..., Worker]
) -> None:
    database_url = f"sqlite:///{tmp_path}/k2think.db"
    await asyncio.to_thread(upgrade, database_url)
    engine = SimulatedEngine(slots=64, token_s=0.1)
    async with SimulatedServer(SolvingResponder(accuracy=1.0, reasoning_tokens=40), engine=engine) as server:
        first = start_worker(**variables(database_url, redis_server.url, server))
        await first.wait_for("worker_started")
        async with client(database_url, redis_server.url) as session:
            [job_id] = await submit_all(session, 1, policy={"plan": "off", "n": 2})
            async with asyncio.timeout(START_TIMEOUT_S):
                while server.open_streams < 2:
                    await asyncio.sleep(0.02)

            assert await asyncio.to_thread(first.stop) == 0

            assert server.open_streams == 0, "its streams are closed"
            engine.token_s = 0.001
            second = start_worker(**variables(database_url, redis_server.url, server))
            await second.wait_for("worker_started")
            assert all_succeeded(await results_of(session, [job_id]))
            trace = await session.database.read(lambda connection: job_trace(connection, job_id))
    attempts = [attempt for step in trace.steps if step.kind == "generate_candidate" for attempt in step.attempts]
    released = [attempt for attempt in attempts if attempt.outcome is AttemptOutcome.released]
    assert len(released) == 2
    assert all(attempt.call is not None and attempt.call.usage.completion > 0 for attempt in released), "what it cost"


@pytest.mark.timeout(180)
async def test_a_step_that_kills_its_worker_goes_to_the_dead_letters(
    tmp_path: Path, redis_server: Any, start_worker: Callable[..., Worker]
) -> None:
    database_url = f"sqlite:///{tmp_path}/k2think.db"
    await asyncio.to_thread(upgrade, database_url)
    engine = SimulatedEngine(slots=64, token_s=0.2)
    async with SimulatedServer(SolvingResponder(accuracy=1.0, reasoning_tokens=200), engine=engine) as server:
        environment = {
            **variables(database_url, redis_server.url, server),
            "K2THINK_LEASE_S": "1",
            "K2THINK_HEARTBEAT_S": "0.4",
        }
        async with client(database_url, redis_server.url) as session:
            [job_id] = await submit_all(session, 1, policy={"plan": "off", "n": 1})
            for start in range(1, 4):
                worker = start_worker(**environment)
                async with asyncio.timeout(START_TIMEOUT_S):
                    while len(server.calls) < start:
                        await asyncio.sleep(0.02)
                os.kill(worker.process.pid, signal.SIGKILL)
                worker.process.wait()
            start_worker(**environment)
            [result] = await results_of(session, [job_id])
    assert len(server.calls) == 3, "it never started a fourth time"
    assert result.error is not None
    assert result.error.code == "dead_letter"
    assert "started 3 times" in result.error.message
