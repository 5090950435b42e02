"""The coordinator: comparing answers takes no longer than it may."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest
from k2think.agents.pipeline import first_step
from k2think.schemas.jobs import JobStatus, SolveRequest
from k2think.schemas.messages import Envelope
from k2think.schemas.outcomes import Candidate, Screened, ScreenVerdict, StepResult
from k2think.schemas.policy import Plan, Policy, Selection
from k2think.store.database import Database
from k2think.store.jobs import accept_job, load_job
from k2think.store.migrate import upgrade
from k2think.store.steps import claim_step, finish_step
from k2think.workers import coordinator as coordinator_module
from k2think.workers.coordinator import Coordinator

if TYPE_CHECKING:
    from k2think.workers.dispatcher import Dispatcher

ANSWERS = (r"\int_0^1 \sin(x^2) dx", r"\int_0^1 \sin(x^3) dx", r"\int_0^1 \sin(x^4) dx")
SAFE = Screened(verdict=ScreenVerdict.safe)


class Mailbox:
    """A dispatcher that keeps what is published."""

    def __init__(self) -> None:
        self.messages: list[Envelope] = []

    def publish(self, messages: tuple[Envelope, ...]) -> None:
        self.messages += messages

    def notify_cancel(self, job_id: str, steps: list[str] | None) -> None: ...

    def notify_job(self, job_id: str, *, ended: bool = False) -> None: ...


async def test_pairs_that_are_not_decided_in_time_count_as_different(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, str]] = []

    async def slowly(first: str, second: str, **_: object) -> bool:
        asked.append((first, second))
        await asyncio.sleep(0.3)
        return True

    monkeypatch.setattr(coordinator_module, "equivalent", slowly)
    monkeypatch.setattr(coordinator_module, "COMPARE_S", 0.45)
    url = f"sqlite:///{tmp_path}/k2think.db"
    await asyncio.to_thread(upgrade, url)
    database, mailbox = Database(url), Mailbox()
    coordinator = Coordinator(database, cast("Dispatcher", mailbox))
    policy = Policy(n=3, plan=Plan.off, early_stop=False, selection=Selection.vote)
    request = SolveRequest(problem="What is it?", policy=policy)
    accepted = await database.run(
        lambda conn: accept_job(conn, request=request, first=first_step(request), tenant="default", now=database.now())
    )

    async def finish(message: Envelope, result: StepResult) -> None:
        claim = await database.run(lambda conn: claim_step(conn, message, worker="w", now=database.now(), lease_s=15))
        assert claim is not None
        assert await coordinator.advance(
            message.job_id, lambda conn: finish_step(conn, claim, result=result, call=None, now=database.now())
        )

    assert accepted.message is not None
    await finish(accepted.message, SAFE)
    for index, message in enumerate(mailbox.messages[:3]):
        await finish(message, Candidate(index=index, content=ANSWERS[index], answer=ANSWERS[index]))

    job = await database.read(lambda conn: load_job(conn, accepted.job_id))
    assert asked == [(ANSWERS[0], ANSWERS[1]), (ANSWERS[0], ANSWERS[2])]
    assert job.equivalences == {(0, 1): True, (0, 2): True, (1, 2): False}
    assert job.status is JobStatus.running
    assert [message.step for message in mailbox.messages[3:]] == ["screen_output"]
    await coordinator.settle()
    database.close()
