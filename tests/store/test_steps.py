"""Claims, leases and fences."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from harness.leases import reclaim_over
from k2think.schemas.completion import ChatMessage, TokenUsage
from k2think.schemas.jobs import JobStatus
from k2think.schemas.messages import ComparePair, GenerateCandidate
from k2think.schemas.outcomes import (
    Candidate,
    Compared,
    Preference,
    Screened,
    ScreenVerdict,
    StepFailure,
    StepStatus,
)
from k2think.schemas.progress import Decision, Ending, NewStep
from k2think.schemas.trace import AttemptOutcome, CallTrace, EventKind, LeftCall
from k2think.store.jobs import events_after, job_trace, load_job
from k2think.store.postgresql import THREADS
from k2think.store.results import load_comparisons
from k2think.store.steps import Claim, claim_step, drop_step, finish_step, heartbeat
from sqlalchemy import text

SAFE = Screened(verdict=ScreenVerdict.safe)
FAILURE = StepFailure(code="backend_overloaded", message="the server is busy")


LEFT = LeftCall(
    backend="late", model="m", reason="hedge_lost", usage=TokenUsage(prompt=10, completion=4), duration_s=0.2
)


def call(completion: int = 20) -> CallTrace:
    return CallTrace(
        backend="main",
        model="m",
        prompt=[ChatMessage(role="user", content="What is 1 + 1?")],
        parameters={"temperature": 1.0, "stop": ["</answer>"]},
        raw_text="two\x00 \ud83d\ude00 \ud800",
        reasoning="one and one",
        answer="2",
        usage=TokenUsage(prompt=10, completion=completion, reasoning=5),
        finish_reason="stop",
        time_to_first_token_s=0.1,
        duration_s=0.5,
        retries=1,
        engine_queue_s=0.01,
        engine_prompt_s=0.02,
        engine_completion_s=0.3,
        cached_prompt_tokens=4,
        draft_acceptance=0.5,
        accepted_length=1.5,
        limit_wait_s=0.25,
        rate_limits={"x-ratelimit-remaining-tokens": "7"},
        left_calls=[LEFT],
    )


def finish(story: Any, claim: Claim, *, result: Any = SAFE, with_call: CallTrace | None = None) -> bool:
    return story.finish(claim, result, with_call)


def fail(story: Any, claim: Claim, *, retry_at: float | None = None) -> bool:
    return story.fail(claim, FAILURE, retry_at=retry_at, call=call())


def drop(story: Any, claim: Claim, outcome: Any) -> Any:
    return story.database.run_sync(lambda conn: drop_step(conn, claim, outcome=outcome, call=call(), now=story.now))


def beat(story: Any, worker: str = "worker-1") -> set[tuple[str, str, int]]:
    return story.database.run_sync(lambda conn: heartbeat(conn, worker=worker, now=story.now, lease_s=15.0))


def reclaim(story: Any, attempts_max: int = 3) -> Any:
    return story.database.run_sync(lambda conn: reclaim_over(conn, now=story.now, attempts_max=attempts_max))


def trace(story: Any, job_id: str) -> Any:
    return story.database.read_sync(lambda conn: job_trace(conn, job_id))


def outcomes(story: Any, job_id: str) -> list[AttemptOutcome]:
    return [attempt.outcome for step in trace(story, job_id).steps for attempt in step.attempts]


def step_status(story: Any, job_id: str, name: str = "screen_input") -> StepStatus:
    return story.database.read_sync(lambda conn: load_job(conn, job_id)).steps[name].status


def test_a_step_is_claimed_once(story: Any) -> None:
    message = story.accept()
    story.now += 2

    claim = story.claim(message)

    assert claim is not None
    assert (claim.queued_at, claim.claimed_at, claim.lease_until, claim.starts) == (
        story.now - 2, story.now, story.now + 15, 1,
    )  # fmt: skip
    assert story.claim(message) is None
    job = story.database.read_sync(lambda conn: load_job(conn, message.job_id))
    assert (job.status, job.started_at) == (JobStatus.running, story.now)


def test_eight_threads_claim_a_step_once(story: Any) -> None:
    messages = [story.accept() for _ in range(5)]

    with ThreadPoolExecutor(8) as pool:
        claims = list(pool.map(lambda n: story.claim(messages[n % 5], worker=f"w{n}"), range(40)))

    assert sum(claim is not None for claim in claims) == 5
    assert {claim.envelope.job_id for claim in claims if claim} == {message.job_id for message in messages}


@pytest.mark.parametrize("attempt", [2, 3])
def test_a_message_for_another_attempt_claims_nothing(story: Any, attempt: int) -> None:
    message = story.accept()

    assert story.claim(message.model_copy(update={"attempt": attempt})) is None


def test_a_message_for_nothing_claims_nothing(story: Any) -> None:
    message = story.accept()

    assert story.claim(message.model_copy(update={"job_id": "unknown"})) is None
    assert story.claim(message.model_copy(update={"step": "unknown"})) is None


def test_an_attempt_that_was_told_to_wait_does_not_count_toward_the_dead_letters(story: Any) -> None:
    message = story.accept()
    slow_down = StepFailure(code="backend_rate_limited", message="slow down")
    for counts, starts in ((False, 1), (True, 1), (False, 2), (True, 2), (True, 3)):
        claim = story.claimed(message)
        assert claim.starts == starts
        assert story.fail(claim, slow_down, retry_at=story.now, counts=counts)
        message = message.model_copy(update={"attempt": message.attempt + 1})


def test_no_work_starts_past_the_deadline_or_after_the_end(story: Any) -> None:
    late, ended = story.accept(policy={"deadline_s": 10}), story.accept()
    story.end(ended.job_id, Ending(status=JobStatus.cancelled))
    story.now += 10

    assert story.claim(late) is None
    assert story.claim(ended) is None


def test_a_result_is_kept_with_its_call(story: Any) -> None:
    message = story.accept()
    claim = story.claimed(message)
    story.now += 3

    assert finish(story, claim, with_call=call()) is True

    job = story.database.read_sync(lambda conn: load_job(conn, message.job_id))
    step = job.steps["screen_input"]
    assert (step.status, step.result) == (StepStatus.done, SAFE)
    assert step.usage == call().usage + LEFT.usage
    (attempt,) = trace(story, message.job_id).steps[0].attempts
    assert (attempt.outcome, attempt.finished_at) == (AttemptOutcome.done, story.now)
    # What neither database can hold is replaced; a pair of surrogates becomes the character it stands for.
    expected = call().model_copy(
        update={"raw_text": "two\N{REPLACEMENT CHARACTER} \N{GRINNING FACE} \N{REPLACEMENT CHARACTER}"}
    )
    assert attempt.call == expected
    usage = story.end(message.job_id, Ending(status=JobStatus.refused)).result.usage
    assert (usage.safety, usage.calls, usage.wasted_tokens) == (step.usage, {"safety": 1}, LEFT.usage.completion)


def test_a_result_with_text_that_json_cannot_carry_is_kept(story: Any) -> None:
    message = story.accept()
    claim = story.claimed(message)
    candidate = Candidate(index=0, content="a\x00b \ud800", answer="\ud83d\ude00")

    assert finish(story, claim, result=candidate)

    kept = story.database.read_sync(lambda conn: load_job(conn, message.job_id)).steps["screen_input"].result
    assert kept == candidate.model_copy(
        update={"content": "a\x00b \N{REPLACEMENT CHARACTER}", "answer": "\N{GRINNING FACE}"}
    )


def test_finishing_twice_changes_nothing_the_second_time(story: Any) -> None:
    message = story.accept()
    claim = story.claimed(message)
    assert finish(story, claim, with_call=call(20))

    assert finish(story, claim, result=Screened(verdict=ScreenVerdict.unsafe), with_call=call(99)) is False
    assert fail(story, claim) is False
    assert drop(story, claim, AttemptOutcome.released) is None

    step = trace(story, message.job_id).steps[0]
    assert step.status is StepStatus.done
    assert step.result["verdict"] == "safe"
    assert step.attempts[0].outcome is AttemptOutcome.done
    assert step.attempts[0].call.usage.completion == 20


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


def test_a_failure_with_a_time_to_retry_makes_the_step_ready_then(story: Any) -> None:
    message = story.accept()
    claim = story.claimed(message)

    assert fail(story, claim, retry_at=story.now + 4)

    assert step_status(story, message.job_id) is StepStatus.ready
    story.now += 5
    again = story.claimed(message.model_copy(update={"attempt": 2}))
    assert (again.queued_at, again.starts) == (story.now - 1, 2)
    assert outcomes(story, message.job_id) == [AttemptOutcome.failed, AttemptOutcome.running]
    assert trace(story, message.job_id).steps[0].attempts[0].error == FAILURE


def test_a_failure_without_is_final(story: Any) -> None:
    message = story.accept()
    claim = story.claimed(message)

    assert fail(story, claim)

    step = story.database.read_sync(lambda conn: load_job(conn, message.job_id)).steps["screen_input"]
    assert (step.status, step.failure) == (StepStatus.failed, FAILURE)
    assert step.usage.completion == 24, "with those of the call that was left"
    assert story.claim(message.model_copy(update={"attempt": 2})) is None


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


def test_a_step_that_its_worker_stops_is_cancelled_with_what_it_used(story: Any) -> None:
    message = story.accept()
    claim = story.claimed(message)

    assert drop(story, claim, AttemptOutcome.cancelled) is None

    assert step_status(story, message.job_id) is StepStatus.cancelled
    (attempt,) = trace(story, message.job_id).steps[0].attempts
    assert (attempt.outcome, attempt.call.usage.completion) == (AttemptOutcome.cancelled, 20)


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


@pytest.mark.parametrize(
    ("preference", "winner"), [(Preference.first, 2), (Preference.second, 0), (Preference.tie, None)]
)
def test_a_verdict_becomes_a_comparison(story: Any, preference: Preference, winner: int | None) -> None:
    message = story.accept()
    pair = ComparePair(messages=message.body.messages, first=2, second=0, first_answer="a", second_answer="b")
    (judging,) = story.create(message.job_id, NewStep("compare-2-0", pair))

    finish(
        story, story.claimed(judging), result=Compared(first=2, second=0, preference=preference, reason="be\x00cause")
    )

    (comparison,) = story.database.read_sync(lambda conn: load_comparisons(conn, message.job_id))
    assert (comparison.first, comparison.second, comparison.winner, comparison.usable) == (2, 0, winner, True)
    assert comparison.reason == "be\N{REPLACEMENT CHARACTER}cause"


def test_events_tell_of_the_steps_without_model_text(story: Any) -> None:
    message = story.accept("a secret problem")
    claim = story.claimed(message)
    fail(story, claim, retry_at=story.now)
    claim = story.claimed(message.model_copy(update={"attempt": 2}))
    finish(story, claim, with_call=call())
    (generating,) = story.create(
        message.job_id, NewStep("generate-0", GenerateCandidate(messages=message.body.messages, candidate=0))
    )
    finish(story, story.claimed(generating), result=Candidate(index=0, content="the secret", answer="2"))
    story.decide(message.job_id, Decision(ending=Ending(status=JobStatus.succeeded, winner=0)))

    events = story.database.read_sync(lambda conn: events_after(conn, message.job_id, 0))

    assert [event.kind for event in events] == [
        EventKind.accepted, EventKind.step_started, EventKind.step_retried, EventKind.step_started,
        EventKind.step_finished, EventKind.step_started, EventKind.step_finished, EventKind.finished,
    ]  # fmt: skip
    assert [event.seq for event in events] == sorted({event.seq for event in events})
    assert not any("secret" in event.model_dump_json() or "one and one" in event.model_dump_json() for event in events)
    later = story.database.read_sync(lambda conn: events_after(conn, message.job_id, events[4].seq, limit=2))
    assert later == events[5:7]


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
