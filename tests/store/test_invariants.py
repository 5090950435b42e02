"""Whatever is done in whatever order, these hold: one end, one result, one running attempt, fences that only grow."""

from __future__ import annotations

from typing import Any

from harness.leases import reclaim_over
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from k2think.schemas.completion import TokenUsage
from k2think.schemas.jobs import JobError, JobStatus
from k2think.schemas.messages import Envelope, GenerateCandidate
from k2think.schemas.outcomes import Candidate, StepFailure, StepStatus
from k2think.schemas.progress import Decision, Ending, NewStep
from k2think.schemas.trace import AttemptOutcome, CallTrace, EventKind, JobTrace
from k2think.store.jobs import job_trace, request_cancel
from k2think.store.steps import PUBLISH_GRACE_S, Claim, drop_step, heartbeat
from k2think.store.sweep import due_steps, mark_published, ready_counts

WORKERS = ("a", "b")
ATTEMPTS_MAX = 2
CANDIDATES = 2
CALL = CallTrace(backend="main", usage=TokenUsage(prompt=1, completion=1))
FAILURE = StepFailure(code="backend_stalled", message="stalled")
ERROR = JobError(code="cancelled", message="by request")

ACTIONS = (
    "deliver",
    "finish",
    "fail",
    "retry",
    "release",
    "drop",
    "pause",
    "sweep",
    "beat",
    "create",
    "cancel_step",
    "cancel_job",
)
actions = st.lists(st.tuples(st.sampled_from(ACTIONS), st.integers(0, 7)), min_size=5, max_size=30)


class World:
    """One job, its messages in flight (kept after delivery, so that they come again) and the claims that workers hold."""

    def __init__(self, story: Any) -> None:
        self.story = story
        self.mailbox: list[Envelope] = [story.accept(reply_to="task")]
        self.job_id = self.mailbox[0].job_id
        self.claims: list[Claim] = []
        self.results: list[Any] = []
        self.accepted_results = 0

    def act(self, action: str, n: int) -> None:
        story, run = self.story, self.story.database.run_sync
        claim = self.claims[n % len(self.claims)] if self.claims else None
        story.now += 0.25
        match action:
            case "deliver":
                held = story.claim(self.mailbox[n % len(self.mailbox)], worker=WORKERS[n % 2])
                self.claims += [held] if held else []
            case "finish" if claim:
                result = Candidate(index=n, content="c", answer="a")
                self.accepted_results += story.finish(claim, result, CALL)
            case "fail" | "retry" if claim:
                retry_at = story.now if action == "retry" else None
                story.fail(claim, FAILURE, retry_at=retry_at, call=CALL)
            case "release" | "drop" if claim:
                outcome: Any = AttemptOutcome.released if action == "release" else AttemptOutcome.cancelled
                message = run(lambda conn: drop_step(conn, claim, outcome=outcome, call=CALL, now=story.now))
                self.mailbox += [message] if message else []
            case "pause":
                story.now += 16
            case "sweep":
                run(self._sweep)
            case "beat":
                run(lambda conn: heartbeat(conn, worker=WORKERS[n % 2], now=story.now, lease_s=15.0))
            case "create":
                body = GenerateCandidate(messages=self.mailbox[0].body.messages, candidate=n % CANDIDATES)
                self._applied(Decision(create=(NewStep(f"generate-{n % CANDIDATES}", body),)))
            case "cancel_step":
                self._applied(Decision(cancel=(f"generate-{n % CANDIDATES}",)))
            case "cancel_job" if n < 2:
                self._ended(run(lambda conn: request_cancel(conn, self.job_id, now=story.now, error=ERROR)))
            case _:
                pass

    def end(self, n: int) -> None:
        self._applied(Decision(ending=Ending(status=JobStatus.succeeded if n % 2 else JobStatus.failed)))

    def trace(self) -> JobTrace:
        return self.story.database.read_sync(lambda conn: job_trace(conn, self.job_id))

    def _sweep(self, conn: Any) -> None:
        now = self.story.now
        reclaim_over(conn, now=now, attempts_max=ATTEMPTS_MAX)
        due = [
            step.message
            for step in due_steps(conn, now=now, short=ready_counts(conn))
            if step.job_id == self.job_id and step.message is not None
        ]
        keys = [(message.job_id, message.step) for message in due]
        mark_published(conn, keys, now=now, due_at=now + PUBLISH_GRACE_S)
        self.mailbox += due

    def _applied(self, decision: Decision) -> None:
        applied = self.story.decide(self.job_id, decision)
        self.mailbox += applied.messages
        self._ended(applied)

    def _ended(self, applied: Any) -> None:
        if applied is not None and applied.result is not None:
            self.results.append(applied.result)


def check(before: JobTrace, after: JobTrace) -> None:
    if before.status.final:
        assert (after.status, after.result, after.finished_at) == (before.status, before.result, before.finished_at)
        assert [step.name for step in after.steps] == [step.name for step in before.steps]
    assert (after.result is not None) == after.status.final
    assert after.events[: len(before.events)] == before.events
    assert sum(event.kind is EventKind.finished for event in after.events) == int(after.status.final)
    earlier = {step.name: step for step in before.steps}
    for step in after.steps:
        running = [attempt.attempt for attempt in step.attempts if attempt.outcome is AttemptOutcome.running]
        newest = len(step.attempts)
        assert [attempt.attempt for attempt in step.attempts] == list(range(1, newest + 1))
        assert running == ([newest] if step.status is StepStatus.running else [])
        assert (step.result is not None) == (step.status is StepStatus.done)
        assert (step.failure is not None) == (step.status is StepStatus.failed)
        assert sum(attempt.outcome is AttemptOutcome.done for attempt in step.attempts) == int(
            step.status is StepStatus.done
        )
        assert not (after.status.final and not step.status.final)
        if step.name in earlier and earlier[step.name].status.final:
            assert (step.status, step.result) == (earlier[step.name].status, earlier[step.name].result)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(before_end=actions, ending=st.integers(0, 3), after_end=actions)
def test_invariants(
    story: Any, before_end: list[tuple[str, int]], ending: int, after_end: list[tuple[str, int]]
) -> None:
    world = World(story)
    seen = world.trace()
    for action, n in [*before_end, ("end", ending), *after_end]:
        if action == "end":
            world.end(n)
        else:
            world.act(action, n)
        now = world.trace()
        check(seen, now)
        seen = now

    assert len(world.results) == 1
    assert seen.result == world.results[0]
    assert sum(step.status is StepStatus.done for step in seen.steps) == world.accepted_results
    assert all(attempt.outcome is not AttemptOutcome.running for step in seen.steps for attempt in step.attempts)
