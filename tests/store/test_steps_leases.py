"""Leases and fences: heartbeats keep them, and whoever has lost one changes nothing."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from harness.leases import reclaim_over
from harness.steps import SAFE, call, drop, fail, finish, outcomes, step_status, trace
from k2think.schemas.jobs import JobStatus
from k2think.schemas.outcomes import Screened, ScreenVerdict, StepStatus
from k2think.schemas.progress import Ending
from k2think.schemas.trace import AttemptOutcome
from k2think.store.postgresql import THREADS
from k2think.store.steps import claim_step, finish_step, heartbeat
from sqlalchemy import text


def beat(story: Any, worker: str = "worker-1") -> set[tuple[str, str, int]]:
    return story.database.run_sync(lambda conn: heartbeat(conn, worker=worker, now=story.now, lease_s=15.0))


def reclaim(story: Any, attempts_max: int = 3) -> Any:
    return story.database.run_sync(lambda conn: reclaim_over(conn, now=story.now, attempts_max=attempts_max))


@pytest.mark.parametrize("action", ["finish", "fail", "retry", "release", "cancel"])
def test_a_worker_that_lost_its_lease_changes_nothing(story: Any, action: str) -> None:
    """Given a paused worker whose step another one took, when it wakes, then only its attempt's row tells of it."""
    message = story.accept()
    paused = story.claimed(message, worker="paused")
    story.now += 16
    (lost,) = reclaim(story)
    second = story.claimed(message.model_copy(update={"attempt": 2}), worker="second")

    assert (lost.attempt, lost.dead) == (1, False)
    assert beat(story, "paused") == set()
    if action == "finish":
        assert finish(story, paused, result=Screened(verdict=ScreenVerdict.unsafe), with_call=call()) is False
    elif action in ("fail", "retry"):
        assert fail(story, paused, retry_at=story.now if action == "retry" else None) is False
    else:
        outcome = AttemptOutcome.released if action == "release" else AttemptOutcome.cancelled
        assert drop(story, paused, outcome) is None

    step = trace(story, message.job_id).steps[0]
    assert step.status is StepStatus.running
    assert [attempt.outcome for attempt in step.attempts] == [AttemptOutcome.stale, AttemptOutcome.running]
    assert step.attempts[0].call is not None
    assert beat(story, "second") == {(message.job_id, "screen_input", 2)}
    assert finish(story, second)
    assert trace(story, message.job_id).steps[0].result["verdict"] == "safe"


def test_what_ends_after_a_cancel_is_cancelled_not_stale(story: Any) -> None:
    message = story.accept()
    claim = story.claimed(message)
    story.end(message.job_id, Ending(status=JobStatus.cancelled))
    assert outcomes(story, message.job_id) == [AttemptOutcome.cancelled]

    assert finish(story, claim, with_call=call()) is False

    (attempt,) = trace(story, message.job_id).steps[0].attempts
    assert attempt.outcome is AttemptOutcome.cancelled
    assert attempt.call.usage.completion == 20


def test_a_released_step_is_published_again_and_does_not_count(story: Any) -> None:
    """Given a worker that hands its step back five times, then the dead letters stay as far as before."""
    message = story.accept()
    for attempt in range(1, 6):
        claim = story.claimed(message)
        assert claim.starts == 1
        message = drop(story, claim, AttemptOutcome.released)
        assert message.attempt == attempt + 1

    story.claimed(message)
    story.now += 16
    (lost,) = reclaim(story, attempts_max=2)

    assert (lost.attempt, lost.dead) == (6, False)
    assert outcomes(story, message.job_id) == [AttemptOutcome.released] * 5 + [AttemptOutcome.lost]


def test_a_heartbeat_extends_every_lease_of_its_worker_only(story: Any) -> None:
    mine = [story.accept() for _ in range(3)]
    other = story.accept()
    for message in mine:
        story.claimed(message, worker="mine")
    story.claimed(other, worker="other")
    story.now += 14

    held = beat(story, "mine")
    story.now += 10
    lost = reclaim(story)

    assert held == {(message.job_id, "screen_input", 1) for message in mine}
    assert [entry.job_id for entry in lost] == [other.job_id]


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
def test_a_heartbeat_does_not_wait_for_a_step_that_is_being_changed(story: Any) -> None:
    message = story.accept()
    claim = story.claimed(message)
    holding, release = threading.Event(), threading.Event()

    def slow_finish(conn: Any) -> bool:
        done = finish_step(conn, claim, result=SAFE, call=None, now=story.now)
        holding.set()
        release.wait(30)
        return done

    with ThreadPoolExecutor(1) as pool:
        finishing = pool.submit(story.database.run_sync, slow_finish)
        holding.wait(30)
        meanwhile = beat(story)
        release.set()
        assert finishing.result(30) is True

    assert meanwhile == {(message.job_id, "screen_input", 1)}
    assert beat(story) == set()


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
def test_a_heartbeat_does_not_queue_behind_other_operations(story: Any) -> None:
    """Given all threads and connections of the store in use and more waiting, then a heartbeat still commits."""
    message = story.accept()
    story.claimed(message)
    in_use, release = threading.Barrier(THREADS + 1), threading.Event()

    def slow(conn: Any) -> None:
        conn.execute(text("SELECT 1 FROM jobs"))
        in_use.wait(30)
        release.wait(60)

    async def beat_meanwhile() -> Any:
        operation = story.database.run(
            lambda conn: heartbeat(conn, worker="worker-1", now=story.now + 10, lease_s=15.0), urgent=True
        )
        return await asyncio.wait_for(operation, 30)

    with ThreadPoolExecutor(THREADS + 1) as pool:
        busy = [pool.submit(story.database.run_sync, slow) for _ in range(THREADS)]
        in_use.wait(30)
        waiting = pool.submit(story.database.run_sync, lambda conn: None)
        try:
            held = asyncio.run(beat_meanwhile())
            assert not any(operation.done() for operation in (*busy, waiting))
        finally:
            release.set()

    assert held == {(message.job_id, "screen_input", 1)}


def test_a_claim_and_a_decision_at_once_never_leave_a_step_running_in_an_ended_job(story: Any) -> None:
    """Forty races between claims and the end of the job: whichever is first, nothing runs on afterwards."""
    messages = [story.accept() for _ in range(20)]

    def race(n: int) -> None:
        if n % 2:
            story.end(messages[n // 2].job_id, Ending(status=JobStatus.cancelled))
        else:
            story.database.run_sync(
                lambda conn: claim_step(conn, messages[n // 2], worker="w", now=story.now, lease_s=15.0)
            )

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(race, range(40)))

    assert beat(story, "w") == set()
    for message in messages:
        assert step_status(story, message.job_id) is StepStatus.cancelled
        assert AttemptOutcome.running not in outcomes(story, message.job_id)
