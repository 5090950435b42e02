"""The sweeper's rounds: whatever becomes of one job, the others are moved on, rung for and answered in time."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest
from harness.logs import captured
from k2think.agents.pipeline import first_step
from k2think.schemas.errors import BrokerUnavailable
from k2think.schemas.jobs import JobStatus, SolveRequest, SolveResult
from k2think.schemas.messages import Envelope
from k2think.schemas.settings import Settings
from k2think.store.database import Database
from k2think.store.jobs import accept_job, job_result, unreplied
from k2think.store.migrate import upgrade
from k2think.store.tables import jobs, steps
from k2think.workers import sweeper as sweeper_module
from k2think.workers.coordinator import Coordinator
from k2think.workers.dispatcher import Dispatcher
from k2think.workers.sweeper import Sweeper
from sqlalchemy import update

if TYPE_CHECKING:
    from conftest import RedisServer
    from k2think.workers.replies import Replies

TIMEOUT_S = 30.0
OF_TOMORROW = '{"field": "of a newer version"}'


class Bell:
    """A dispatcher that only notes what is rung for."""

    def __init__(self) -> None:
        self.rung: list[str] = []

    def publish(self, messages: list[Envelope]) -> None:
        self.rung += [message.job_id for message in messages]

    def notify_cancel(self, job_id: str, steps: list[str] | None) -> None: ...

    def notify_job(self, job_id: str, *, ended: bool = False) -> None: ...


class Callers:
    """A result backend that takes no answer for those who are `deaf`."""

    def __init__(self) -> None:
        self.deaf: set[str] = set()
        self.tried: list[str] = []
        self.free = threading.Event()
        self.free.set()

    def store(self, task_id: str, result: SolveResult) -> None:
        self.tried.append(task_id)
        self.free.wait(TIMEOUT_S)
        if task_id in self.deaf:
            raise BrokerUnavailable("it does not answer")


class Sweep:
    """A sweeper whose rounds are told, and the jobs that it sees."""

    def __init__(self, database: Database, redis_url: str) -> None:
        self.database = database
        self.bell = Bell()
        self.callers = Callers()
        self.coordinator = Coordinator(database, cast("Dispatcher", self.bell), cast("Replies", self.callers))
        settings = Settings.model_validate({"broker_url": redis_url})
        self.sweeper = Sweeper(settings, self.coordinator)

    def accept(self, **options: Any) -> str:
        """Accept a job."""
        request = SolveRequest(problem="What is 1 + 1?", policy=options.pop("policy", {}))
        now = self.database.now()
        accepted = self.database.run_sync(
            lambda conn: accept_job(
                conn, request=request, first=first_step(request), tenant="default", now=now, **options
            )
        )
        return accepted.job_id

    def write(self, table: Any, job_id: str, **values: object) -> None:
        """Change a job's row, or that of its steps."""
        key = jobs.c.id if table is jobs else steps.c.job_id
        self.database.run_sync(lambda conn: conn.execute(update(table).where(key == job_id).values(**values)))

    def status(self, job_id: str) -> JobStatus:
        return self.database.read_sync(lambda conn: job_result(conn, job_id))[0]

    async def owe(self, *job_ids: str) -> None:
        """End jobs, and let their answers not have arrived."""
        for job_id in job_ids:
            await self.coordinator.cancel(job_id)
        async with asyncio.timeout(TIMEOUT_S):
            while self.database.read_sync(lambda conn: unreplied(conn, 1)):
                await asyncio.sleep(0.01)
        self.callers.tried.clear()
        for job_id in job_ids:
            self.write(jobs, job_id, replied_at=None)

    async def rounds(self, until: Callable[[], bool]) -> None:
        """Make rounds until it is true; none of them takes long."""
        async with asyncio.timeout(TIMEOUT_S):
            while not until():
                await self.sweeper.round()
                await asyncio.sleep(0.01)


@pytest.fixture
async def sweep(tmp_path: Path, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Sweep]:
    """A sweeper on SQLite and an empty Redis."""
    url = f"sqlite:///{tmp_path}/k2think.db"
    await asyncio.to_thread(upgrade, url)
    database = Database(url)
    made = Sweep(database, redis_server.url)
    yield made
    running = asyncio.create_task(made.sweeper.run())
    await asyncio.sleep(0)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await made.coordinator.settle()
    database.close()


async def test_jobs_that_cannot_be_read_hold_up_nothing(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given an overdue job, an answer and a message of a newer version, then each is told once and the rest goes on."""
    past = sweep.database.now() - 60
    overdue, unanswerable, unsendable = sweep.accept(), sweep.accept(reply_to="odd"), sweep.accept()
    expired, answered, lost = sweep.accept(policy={"deadline_s": 0.01}), sweep.accept(reply_to="ok"), sweep.accept()
    await sweep.owe(unanswerable, answered)
    sweep.write(jobs, overdue, request=OF_TOMORROW, wake_at=past)
    sweep.write(jobs, unanswerable, result=OF_TOMORROW)
    sweep.write(steps, unsendable, body=OF_TOMORROW)
    for job_id in (unsendable, lost):
        sweep.write(steps, job_id, due_at=past, published_at=None)

    lines = captured(monkeypatch, sweeper_module)
    await sweep.rounds(
        lambda: (
            sweep.status(expired) is JobStatus.expired
            and lost in sweep.bell.rung
            and "ok" in sweep.callers.tried
            and {line["job"] for line in lines if "skipped" in line["event"]} == {overdue, unanswerable, unsendable}
        )
    )
    for _ in range(3):
        await sweep.sweeper.round()

    assert len([line for line in lines if "skipped" in line["event"]]) == 3
    assert unsendable not in sweep.bell.rung
    assert "odd" not in sweep.callers.tried


async def test_a_round_does_not_wait_for_a_job_whose_answers_are_compared(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, other = sweep.accept(), sweep.accept(policy={"deadline_s": 0.01})
    sweep.write(jobs, slow, wake_at=sweep.database.now() - 60)
    advance, asked = sweep.coordinator.advance, list[str]()

    async def compare_for_ever(job_id: str) -> bool:
        asked.append(job_id)
        if job_id == slow:
            await asyncio.Event().wait()
        return await advance(job_id)

    monkeypatch.setattr(sweep.coordinator, "advance", compare_for_ever)
    await sweep.rounds(lambda: sweep.status(other) is JobStatus.expired)
    await sweep.sweeper.round()

    assert asked.count(slow) == 1


async def test_a_round_does_not_wait_for_a_result_backend(sweep: Sweep) -> None:
    """Given answers that are owed, then they are tried one by one, and after one that fails the others come first."""
    owed = [sweep.accept(reply_to=f"task-{number}") for number in range(3)]
    await sweep.owe(*owed)
    sweep.callers.deaf = {"task-0"}
    sweep.callers.free.clear()
    for _ in range(3):
        await sweep.sweeper.round()
    await asyncio.sleep(0.1)
    assert sweep.callers.tried == ["task-0"]

    sweep.callers.free.set()
    await sweep.rounds(lambda: len(sweep.callers.tried) == 3)
    assert sweep.callers.tried == ["task-0", "task-1", "task-2"]


async def test_a_lost_step_is_rung_for_however_many_wait(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = [sweep.accept() for _ in range(510)]
    lost = sweep.accept(policy={"priority": "batch"})
    now = sweep.database.now()
    sweep.database.run_sync(
        lambda conn: conn.execute(update(steps).values(due_at=now - 60, published_at=now - 60, ready_at=now - 60))
    )
    sweep.write(steps, lost, due_at=now, ready_at=now)

    async def full(_queue: str) -> int:
        return len(waiting)

    monkeypatch.setattr(sweep.sweeper, "_waiting", full)
    await sweep.rounds(lambda: bool(sweep.bell.rung))
    assert lost in sweep.bell.rung
