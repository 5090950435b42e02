"""What the sweeper finds: lost leases, steps and jobs that are due, dead letters."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from harness.leases import reclaim_over
from k2think.schemas.jobs import JobStatus
from k2think.schemas.messages import GenerateCandidate
from k2think.schemas.outcomes import Screened, ScreenVerdict, StepFailure, StepStatus
from k2think.schemas.policy import Priority
from k2think.schemas.progress import Decision, Ending, NewStep
from k2think.schemas.trace import AttemptOutcome
from k2think.store.jobs import job_trace, load_job
from k2think.store.steps import PUBLISH_GRACE_S, drop_step, heartbeat
from k2think.store.sweep import (
    any_unrung,
    dead_letters,
    due_jobs,
    due_steps,
    forget_times,
    mark_published,
    ready_counts,
    reclaim_lost,
    running_leases,
)
from k2think.store.tables import steps as steps_table
from sqlalchemy import update

SAFE = Screened(verdict=ScreenVerdict.safe)


def reclaim(story: Any, attempts_max: int = 3) -> Any:
    return story.database.run_sync(lambda conn: reclaim_over(conn, now=story.now, attempts_max=attempts_max))


def publish_due(story: Any, limit: int = 500) -> list[Any]:
    """Take what is due and mark it, as the sweeper does, in one transaction."""

    def operation(conn: Any) -> list[Any]:
        due = due_steps(conn, now=story.now, short=ready_counts(conn), limit=limit)
        keys = [(step.job_id, step.step) for step in due]
        mark_published(conn, keys, now=story.now, due_at=story.now + PUBLISH_GRACE_S)
        return [(step.queue, step.message) for step in due]

    return story.database.run_sync(operation)


def due(story: Any) -> list[str]:
    return story.database.read_sync(lambda conn: due_jobs(conn, now=story.now))


def test_a_step_that_nobody_claims_is_published_again_and_again(story: Any) -> None:
    message = story.accept(policy={"priority": "batch"}, traceparent="00-a-b-01")
    assert publish_due(story) == []

    for _ in range(3):
        story.now += PUBLISH_GRACE_S
        ((queue, again),) = publish_due(story)
        assert queue == "safety"
        assert again.message_id != message.message_id
        assert again.model_copy(update={"message_id": message.message_id}) == message
        assert publish_due(story) == []


def test_claimed_finished_and_unwanted_steps_are_not_published(story: Any) -> None:
    claimed, ended = story.accept(), story.accept()
    expired = story.accept(policy={"deadline_s": 1})
    story.claimed(claimed)
    story.end(ended.job_id, Ending(status=JobStatus.cancelled))
    story.now += PUBLISH_GRACE_S

    assert publish_due(story) == []
    assert due(story) == [expired.job_id]


def test_the_urgent_is_published_first(story: Any) -> None:
    jobs = [story.accept(policy={"priority": priority}) for priority in ("batch", "interactive", "normal")]
    story.now += PUBLISH_GRACE_S

    taken = publish_due(story, limit=2)

    assert [message.priority for _, message in taken] == [Priority.interactive, Priority.normal]
    assert [message.job_id for _, message in publish_due(story)] == [jobs[0].job_id]


def test_a_retry_is_due_at_its_time_with_the_next_attempt(story: Any) -> None:
    claim = story.claimed(story.accept())
    failure = StepFailure(code="backend_overloaded", message="busy")
    story.fail(claim, failure, retry_at=story.now + 30)
    story.now += 29
    assert publish_due(story) == []
    story.now += 1

    ((_, message),) = publish_due(story)

    assert message.attempt == 2
    assert story.claim(message) is not None


def test_a_lost_step_is_ready_again_until_it_is_dead(story: Any) -> None:
    """Given an input that kills its worker, then it is started attempts_max times and not once more."""
    message = story.accept()
    for attempt in (1, 2):
        story.claimed(message, worker=f"victim-{attempt}")
        story.now += 14
        assert reclaim(story) == []
        story.now += 2
        (lost,) = reclaim(story)
        assert (lost.job_id, lost.step, lost.attempt, lost.dead) == (message.job_id, "screen_input", attempt, False)
        ((_, message),) = publish_due(story)
    story.claimed(message, worker="victim-3")
    story.now += 16

    (lost,) = reclaim(story)

    assert (lost.attempt, lost.dead) == (3, True)
    assert reclaim(story) == []
    assert publish_due(story) == []
    job = story.database.read_sync(lambda conn: load_job(conn, message.job_id))
    step = job.steps["screen_input"]
    assert (job.status, step.status, step.failure.code) == (JobStatus.running, StepStatus.failed, "dead_letter")
    assert due(story) == [message.job_id]
    trace = story.database.read_sync(lambda conn: job_trace(conn, message.job_id))
    assert [attempt.outcome for attempt in trace.steps[0].attempts] == [AttemptOutcome.lost] * 3
    assert "victim-1" in trace.steps[0].attempts[0].error.message
    (letter,) = story.database.read_sync(dead_letters)
    assert (letter.job_id, letter.step, letter.kind, letter.attempts, letter.at) == (
        message.job_id, "screen_input", "screen_input", 3, story.now,
    )  # fmt: skip
    assert "started 3 times" in letter.failure.message
    assert "victim-3" in letter.failure.message


def test_it_is_known_which_steps_nobody_has_rung_for(story: Any) -> None:
    """Given a queue whose length hides it, then a step taken back from a lost worker is still seen to have no message."""

    def unrung() -> bool:
        return bool(story.database.read_sync(lambda conn: any_unrung(conn, now=story.now)))

    def rung() -> dict[str, bool]:
        found = story.database.run_sync(lambda conn: due_steps(conn, now=story.now, short=["safety"]))
        return {step.job_id: step.rung for step in found}

    lost, waiting, handed_back = story.accept(), story.accept(), story.accept()
    claim = story.claimed(handed_back)
    story.database.run_sync(
        lambda conn: drop_step(conn, claim, outcome=AttemptOutcome.released, call=None, now=story.now)
    )
    assert rung() == {handed_back.job_id: True}, "its worker rings for it"
    story.claimed(lost, worker="victim")
    story.now += 16
    assert not unrung()
    reclaim(story)

    assert unrung()
    assert rung() == {lost.job_id: False, waiting.job_id: True, handed_back.job_id: True}
    publish_due(story)
    assert not unrung()
    story.now += PUBLISH_GRACE_S
    assert rung() == {lost.job_id: True, waiting.job_id: True, handed_back.job_id: True}


def test_whom_nobody_has_rung_for_comes_before_any_number_that_wait(story: Any) -> None:
    waiting = [story.accept().job_id for _ in range(3)]
    lost = story.accept(policy={"priority": "batch"})
    story.now += PUBLISH_GRACE_S
    story.claimed(lost, worker="victim")
    story.now += 16
    reclaim(story)

    def found(*short: str) -> list[str]:
        steps = story.database.run_sync(lambda conn: due_steps(conn, now=story.now, short=short, limit=2))
        return [step.job_id for step in steps]

    assert found() == [lost.job_id]
    assert found("planner") == [lost.job_id]
    rung_for, other = found("safety")
    assert rung_for == lost.job_id
    assert other in waiting


def test_a_step_that_cannot_be_read_hides_no_other(story: Any) -> None:
    broken, whole = story.accept(), story.accept()
    story.database.run_sync(
        lambda conn: conn.execute(
            update(steps_table).where(steps_table.c.job_id == broken.job_id).values(body='{"kind": "of_tomorrow"}')
        )
    )
    story.now += PUBLISH_GRACE_S

    due = story.database.run_sync(lambda conn: due_steps(conn, now=story.now, short=["safety"]))

    messages = {(step.job_id, step.step): step.message for step in due}
    assert messages.pop((broken.job_id, "screen_input")) is None
    assert [message.job_id for message in messages.values()] == [whole.job_id]


def test_a_lease_that_was_written_anew_is_not_taken_back(story: Any) -> None:
    """Given a sweeper that has seen a lease stand still, when a heartbeat comes before it acts, then nothing is lost."""
    message = story.accept()
    story.claimed(message, worker="slow")
    (seen,) = story.database.read_sync(running_leases)
    story.now += 16
    story.database.run_sync(lambda conn: heartbeat(conn, worker="slow", now=story.now, lease_s=15.0))

    assert story.database.run_sync(lambda conn: reclaim_lost(conn, seen, now=story.now, attempts_max=3)) == []

    (renewed,) = story.database.read_sync(running_leases)
    assert (renewed.worker, renewed.until) == ("slow", story.now + 15)
    (lost,) = story.database.run_sync(lambda conn: reclaim_lost(conn, renewed, now=story.now, attempts_max=3))
    assert lost.job_id == message.job_id
    assert story.database.read_sync(running_leases) == []


def test_one_lease_stands_for_all_that_a_heartbeat_extends(story: Any) -> None:
    for worker in ("a", "a", "a", "b"):
        story.claimed(story.accept(), worker=worker)
    for worker in ("a", "b"):
        story.database.run_sync(lambda conn, name=worker: heartbeat(conn, worker=name, now=story.now, lease_s=15.0))

    leases = story.database.read_sync(running_leases)

    assert sorted(lease.worker for lease in leases) == ["a", "b"]
    lost = story.database.run_sync(lambda conn: reclaim_lost(conn, min(leases), now=story.now, attempts_max=3, limit=2))
    assert len(lost) == 2
    assert sorted(lease.worker for lease in story.database.read_sync(running_leases)) == ["a", "b"], "the rest is left"


def test_after_the_clock_went_back_nothing_waits_for_the_old_time(story: Any) -> None:
    """Given times that were written before the clock was set back by an hour, then all is looked at soon."""
    rung, retried = story.accept(), story.accept()
    queued = story.accept(policy={"deadline_s": 100})
    claim = story.claimed(retried)
    failure = StepFailure(code="backend_overloaded", message="busy")
    story.fail(claim, failure, retry_at=story.now + 30)
    asked = story.accept()
    story.claimed(asked)
    story.decide(asked.job_id, Decision(wake_at=story.now + 50))
    story.now -= 3600
    assert due(story) == []

    story.database.run_sync(lambda conn: forget_times(conn, now=story.now))

    assert asked.job_id in due(story)
    assert queued.job_id not in due(story), "its deadline is what it was"
    story.now += PUBLISH_GRACE_S
    assert {message.job_id for _, message in publish_due(story)} == {rung.job_id, retried.job_id, queued.job_id}


def test_an_ordinary_failure_is_no_dead_letter(story: Any) -> None:
    claim = story.claimed(story.accept())
    failure = StepFailure(code="backend_unauthorized", message="no")

    story.fail(claim, failure)

    assert story.database.read_sync(dead_letters) == []


def test_eight_sweepers_reclaim_and_publish_each_step_once(story: Any) -> None:
    for _ in range(20):
        story.claimed(story.accept())
    story.now += 16

    with ThreadPoolExecutor(8) as pool:
        lost = [entry for found in pool.map(lambda _: reclaim(story), range(16)) for entry in found]
        published = [message for found in pool.map(lambda _: publish_due(story), range(16)) for _, message in found]

    assert len({entry.job_id for entry in lost}) == len(lost) == 20
    assert len({message.job_id for message in published}) == len(published) == 20
    assert {message.attempt for message in published} == {2}


def test_sweepers_heartbeats_and_results_race_without_harm(story: Any) -> None:
    """Whoever is first: every step is either done by its worker or taken from it, never both."""
    claims = [story.claimed(story.accept(), worker=f"w{n % 4}") for n in range(24)]
    story.now += 16

    def act(n: int) -> Any:
        if n % 3 == 0:
            return reclaim(story)
        if n % 3 == 1:
            story.database.run_sync(lambda conn: heartbeat(conn, worker=f"w{n % 4}", now=story.now, lease_s=15.0))
            return []
        claim = claims[n // 3]
        story.finish(claim, SAFE)
        return []

    with ThreadPoolExecutor(8) as pool:
        taken = {entry.job_id for found in pool.map(act, range(72)) for entry in found}

    for claim in claims:
        job = story.database.read_sync(lambda conn, job_id=claim.envelope.job_id: load_job(conn, job_id))
        status = job.steps["screen_input"].status
        assert status is (StepStatus.ready if job.job_id in taken else StepStatus.done)


def test_a_job_is_due_at_its_deadline_or_when_asked_for(story: Any) -> None:
    plain, asked = story.accept(policy={"deadline_s": 100}), story.accept(policy={"deadline_s": 100})
    story.decide(asked.job_id, Decision(wake_at=story.now + 50))

    story.now += 49
    assert due(story) == []
    story.now += 1
    assert due(story) == [asked.job_id]
    story.decide(asked.job_id, Decision())
    assert due(story) == []
    story.now += 50
    assert set(due(story)) == {plain.job_id, asked.job_id}
    assert story.database.read_sync(lambda conn: due_jobs(conn, now=story.now, limit=1, skip=[asked.job_id])) == [
        plain.job_id
    ]
    for job_id in (plain.job_id, asked.job_id):
        story.end(job_id, Ending(status=JobStatus.expired))
    assert due(story) == []


def test_waiting_steps_are_counted_by_queue(story: Any) -> None:
    messages = [story.accept() for _ in range(3)]
    story.claimed(messages[0])
    story.create(
        messages[0].job_id,
        NewStep("generate-0", GenerateCandidate(messages=messages[0].body.messages, candidate=0, backend="fast")),
    )

    assert story.database.read_sync(ready_counts) == {"safety": 2, "generator.fast": 1}
