"""Steps: claimed once, and what becomes of a result, a failure, a claim that is given up."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from harness.steps import FAILURE, LEFT, SAFE, call, drop, fail, finish, outcomes, step_status, trace
from k2think.schemas.jobs import JobStatus
from k2think.schemas.messages import ComparePair, GenerateCandidate
from k2think.schemas.outcomes import Candidate, Compared, Preference, Screened, ScreenVerdict, StepFailure, StepStatus
from k2think.schemas.progress import Decision, Ending, NewStep
from k2think.schemas.trace import AttemptOutcome, EventKind
from k2think.store.jobs import events_after, load_job
from k2think.store.results import load_comparisons


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


def test_a_step_that_its_worker_stops_is_cancelled_with_what_it_used(story: Any) -> None:
    message = story.accept()
    claim = story.claimed(message)

    assert drop(story, claim, AttemptOutcome.cancelled) is None

    assert step_status(story, message.job_id) is StepStatus.cancelled
    (attempt,) = trace(story, message.job_id).steps[0].attempts
    assert (attempt.outcome, attempt.call.usage.completion) == (AttemptOutcome.cancelled, 20)


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
