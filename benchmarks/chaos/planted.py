"""Planted faults: `python planted.py NAME worker all` is `k2think worker all` with one promise broken.

Only the harness starts its children through this file, to see whether it notices; nothing in the package knows of it.
"""

import asyncio
import contextlib
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

from k2think.agents.pipeline import first_step
from k2think.cli.app import main
from k2think.gateway.batches import run as batch_run
from k2think.gateway.jobs import endpoints as job_endpoints
from k2think.schemas.errors import NotFound
from k2think.schemas.ids import uuid7
from k2think.schemas.job_objects import JobObject
from k2think.schemas.jobs import JobStatus
from k2think.schemas.trace import AttemptOutcome
from k2think.store import steps
from k2think.workers import coordinator, leases, runner, submit, sweeper
from sqlalchemy import bindparam, text, update

BEFORE_COMMIT_S = 1.0


def claim_without_a_lease() -> None:
    """Steps are claimed without a lease, so that nobody can see that they are lost."""
    without = text("UPDATE steps SET lease_until = NULL WHERE status = 'running' AND worker = :worker")

    def forgetful(act: Callable[..., Any]) -> Callable[..., Any]:
        def acted(conn: Any, *words: Any, **more: Any) -> Any:
            outcome = act(conn, *words, **more)
            conn.execute(without, {"worker": more["worker"]})
            return outcome

        return acted

    runner.claim_step, leases.heartbeat = forgetful(runner.claim_step), forgetful(leases.heartbeat)


def missing_fence() -> None:
    """A result is taken from whoever brings it, be it a worker that lost its lease because its heartbeats did not arrive."""
    table = steps.steps
    steps._FINISH = (
        update(table)
        .where(table.c.job_id == bindparam("b_job_id"), table.c.name == bindparam("b_name"))
        .where(table.c.attempts >= bindparam("b_attempts"))
        .values(status="done", result=bindparam("result"), lease_until=None, finished_at=bindparam("now"))
    )
    hear = leases.Leases._on_notice

    def hear_of_jobs(self: Any, data: bytes) -> None:
        if json.loads(data)["steps"] is None:
            hear(self, data)

    leases.heartbeat = lambda *words, **more: _Everything()
    leases.Leases._on_notice = hear_of_jobs


class _Everything(set[Any]):
    """Holds whatever it is asked for."""

    def __contains__(self, _: object) -> bool:
        return True


def publish_before_commit() -> None:
    """The first message and the answer "accepted" go out a second before the job is committed, by a gateway.

    Only the other way round within one living process it would break nothing: whom the message reaches too early is
    refused the step, and the sweeper rings again. It breaks the promise when the process dies in between.
    """
    look = job_endpoints.job_object
    told: dict[str, JobObject] = {}
    keys: dict[str, str] = {}
    under_way: set[asyncio.Task[Any]] = set()

    async def tell(services: Any, caller: Any, request: Any, note: Any, *, notify: bool = False) -> str:
        request = submit.resolve(request, services.settings)
        if request.idempotency_key in keys:
            return keys[request.idempotency_key]
        facts = {"request": request, "first": first_step(request), "tenant": caller.tenant, "job_id": uuid7()}
        facts |= {"now": time.time(), "door": note.model_dump_json()}
        foreseen: list[Any] = []

        def foresee(conn: Any) -> None:
            foreseen.append(submit.accept_job(conn, **facts))
            raise _Undone

        with contextlib.suppress(_Undone):
            await services.database.run(foresee)
        accepted = foreseen[-1]
        if not accepted.created:
            return accepted.job_id

        async def commit() -> None:
            await asyncio.sleep(BEFORE_COMMIT_S)
            await services.database.run(lambda conn: submit.accept_job(conn, **facts))

        told[accepted.job_id] = JobObject(
            id=accepted.job_id, status=JobStatus.queued, created_at=facts["now"], problem=""
        )
        if request.idempotency_key is not None:
            keys[request.idempotency_key] = accepted.job_id
        under_way.add(asyncio.create_task(commit()))
        services.submitter._coordinator.dispatcher.publish([accepted.message])
        return accepted.job_id

    def guess(conn: Any, job_id: str, **more: Any) -> JobObject:
        try:
            return look(conn, job_id, **more)
        except NotFound:
            if job_id not in told:
                raise
            return told[job_id]

    job_endpoints.submit_noted = tell
    job_endpoints.job_object = guess


class _Undone(Exception):
    """Takes a transaction back."""


def missing_unique_key() -> None:
    """Idempotency keys are forgotten."""
    accept = submit.accept_job

    def forgetful(conn: Any, *, request: Any, **more: Any) -> Any:
        return accept(conn, request=request.model_copy(update={"idempotency_key": None}), **more)

    submit.accept_job = forgetful


def sweeper_off() -> None:
    """No sweeper does anything."""

    async def rest(self: Any) -> None:
        await asyncio.sleep(0)

    sweeper.Sweeper.round = rest


def cancel_ignored() -> None:
    """Cancelling a job says yes and does nothing."""

    async def agree(self: Any, job_id: str, *, reason: str = "") -> bool:
        return True

    coordinator.Coordinator.cancel = agree


def streams_left_open() -> None:
    """Nobody tells running work that it is no longer wanted."""
    stop = leases.Work.stop
    leases.Work.stop = lambda self, outcome: stop(self, outcome) if outcome == AttemptOutcome.released else None


def tokens_forgotten() -> None:
    """What a stopped attempt has used is not written down."""
    drop = runner.drop_step
    runner.drop_step = lambda *words, **more: drop(*words, **{**more, "call": None})


def secret_logged() -> None:
    """A process says which password it uses."""
    print(f"connecting with {os.environ['CHAOS_SECRET']}", file=sys.stderr, flush=True)


def attempts_unbounded() -> None:
    """A step that kills its worker is started for ever."""
    reclaim = sweeper.reclaim_lost
    sweeper.reclaim_lost = lambda *words, **more: reclaim(*words, **{**more, "attempts_max": 1_000_000})
    # Or a stream that breaks for another reason ends the step before it has run too often.
    retry_at = runner.StepRunner._retry_at
    runner.StepRunner._retry_at = lambda self, _starts, exc: retry_at(self, 1, exc)


def batch_line_twice() -> None:
    """A batch forgets which of its lines have a job."""

    def forget(conn: Any, batch_id: str, line: int, job_id: str) -> bool:
        taken = text("UPDATE batch_requests SET job_id = :job WHERE batch_id = :batch AND line = :line")
        conn.execute(taken, {"job": job_id, "batch": batch_id, "line": line})
        return True

    batch_run.note_submitted = forget


PLANTS: dict[str, Callable[[], None]] = {
    plant.__name__: plant
    for plant in (
        claim_without_a_lease,
        missing_fence,
        publish_before_commit,
        missing_unique_key,
        sweeper_off,
        cancel_ignored,
        streams_left_open,
        tokens_forgotten,
        secret_logged,
        attempts_unbounded,
        batch_line_twice,
    )
}
"""By name."""


if __name__ == "__main__":
    PLANTS[sys.argv.pop(1)]()
    main()
