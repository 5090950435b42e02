"""Workers that lose the right time, while they run or from the start: leases, deadlines and retries stay what they were."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from harness.lone_worker import JOBS, START_TIMEOUT_S, Worker, client, variables
from harness.stack import all_succeeded, results_of, submit_all
from k2think.agents.backends.simulator import (
    ChatRequest,
    Fault,
    FaultKind,
    Reply,
    SimulatedEngine,
    SimulatedServer,
    SolvingResponder,
)
from k2think.store.jobs import job_trace
from k2think.store.migrate import upgrade

FAKETIME = next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))), None)


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
