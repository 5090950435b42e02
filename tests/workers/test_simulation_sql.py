"""The simulation's worlds on the real store: the same dropped messages, dead workers and stale results, real SQL."""

from collections.abc import Iterator

import pytest
from harness.leases import reclaim_over
from harness.simulation import ATTEMPTS_MAX, LEASE_S, World, check_invariants
from k2think.agents.pipeline import advance, first_step
from k2think.schemas.completion import TokenUsage
from k2think.schemas.jobs import JobError, SolveRequest
from k2think.schemas.messages import Envelope
from k2think.schemas.outcomes import StepFailure, StepResult
from k2think.schemas.progress import Ending, JobView
from k2think.schemas.trace import AttemptOutcome, CallTrace
from k2think.store.jobs import accept_job, apply_decision, job_result, job_trace, load_job, request_cancel
from k2think.store.steps import Claim, claim_step, fail_step, finish_step, heartbeat
from k2think.store.sweep import due_jobs, due_steps, mark_published, ready_counts
from k2think.store.tables import metadata
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.pool import StaticPool

SEEDS = 150


class SqlBooks:
    """The store's contract, kept by the store."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.job_id = ""
        self.claims: dict[tuple[str, int], Claim] = {}

    def accept(self, request: SolveRequest, now: float) -> list[Envelope]:
        accepted = accept_job(self.connection, request=request, first=first_step(request), tenant="default", now=now)
        self.job_id = accepted.job_id
        assert accepted.message is not None
        return [accepted.message]

    def claim(self, envelope: Envelope, now: float) -> bool:
        worker = f"{envelope.step}/{envelope.attempt}"
        claim = claim_step(self.connection, envelope, worker=worker, now=now, lease_s=LEASE_S)
        if claim is not None:
            self.claims[envelope.step, envelope.attempt] = claim
        return claim is not None

    def finish(self, envelope: Envelope, result: StepResult, now: float) -> list[Envelope] | None:
        claim = self.claims[envelope.step, envelope.attempt]
        call = CallTrace(backend="simulated", usage=TokenUsage(completion=10))
        kept = finish_step(self.connection, claim, result=result, call=call, now=now)
        return self._advance(now) if kept else None

    def fail(self, envelope: Envelope, *, retry_at: float | None, now: float) -> list[Envelope] | None:
        claim = self.claims[envelope.step, envelope.attempt]
        failure = StepFailure(code="backend_overloaded", message="simulated")
        kept = fail_step(self.connection, claim, failure=failure, call=None, retry_at=retry_at, now=now)
        return self._advance(now) if kept else None

    def beat(self, envelope: Envelope, now: float) -> bool:
        held = heartbeat(self.connection, worker=f"{envelope.step}/{envelope.attempt}", now=now, lease_s=LEASE_S)
        return (self.job_id, envelope.step, envelope.attempt) in held

    def sweep(self, now: float) -> list[Envelope]:
        messages: list[Envelope] = []
        reclaim_over(self.connection, now=now, attempts_max=ATTEMPTS_MAX)
        for _job_id in due_jobs(self.connection, now=now):
            messages += self._advance(now)
        due = [
            step.message
            for step in due_steps(self.connection, now=now, short=ready_counts(self.connection))
            if step.message is not None
        ]
        mark_published(self.connection, [(item.job_id, item.step) for item in due], now=now, due_at=now + 5)
        return messages + due

    def cancel(self, now: float) -> None:
        request_cancel(self.connection, self.job_id, now=now, error=JobError(code="cancelled", message="by the client"))

    def job(self) -> JobView:
        return load_job(self.connection, self.job_id)

    def endings(self) -> int:
        query = text("SELECT count(*) FROM events WHERE kind = 'finished'")
        return self.connection.execute(query).scalar_one()

    def ending(self) -> Ending | None:
        _status, result = job_result(self.connection, self.job_id)
        if result is None:
            return None
        winner = result.selection.winner if result.selection else None
        return Ending(result.status, winner=winner, selection=result.selection, error=result.error)

    def leases(self) -> int:
        return self.connection.execute(text("SELECT count(*) FROM steps WHERE status = 'running'")).scalar_one()

    def _advance(self, now: float) -> list[Envelope]:
        job = load_job(self.connection, self.job_id, lock=True)
        return list(apply_decision(self.connection, job, advance(job, now=now), now=now).messages)


@pytest.fixture
def connection() -> Iterator[Connection]:
    engine = create_engine("sqlite://", poolclass=StaticPool)
    with engine.connect() as connection:
        yield connection
    engine.dispose()


def test_every_promise_holds_on_the_real_store(connection: Connection) -> None:
    for seed in range(SEEDS):
        metadata.drop_all(connection)
        metadata.create_all(connection)
        world = World(seed, SqlBooks(connection))
        try:
            job = world.run()
            check_invariants(world, job)
            _check_trace(connection, job)
        except AssertionError as exc:
            raise AssertionError(f"seed {seed}: {exc}") from exc


def _check_trace(connection: Connection, job: JobView) -> None:
    """The trace agrees with the result: every attempt has an end, and the ledger counts every call that was paid for."""
    trace = job_trace(connection, job.job_id)
    assert trace.result is not None
    attempts = [attempt for step in trace.steps for attempt in step.attempts]
    assert all(attempt.outcome is not AttemptOutcome.running for attempt in attempts), "every attempt has an end"
    done = [attempt for attempt in attempts if attempt.outcome is AttemptOutcome.done]
    assert len({(item.step) for item in done}) == len(done), "no step is done twice"
    events = [event.seq for event in trace.events]
    assert events == sorted(set(events))
    assert trace.events[-1].kind == "finished" or trace.events[-1].at >= (trace.finished_at or 0)
