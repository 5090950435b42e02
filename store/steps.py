"""One step: claimed under a lease, finished, failed or dropped by the attempt that holds the newest fence.

    ready ──claim──> running ──finish──> done
      ^                 │ ├────fail────> failed        (or ready again, when there is a time to retry)
      └─release, lost───┘ └────cancel──> cancelled

The fence is the number of claims so far. A worker whose lease ran out and whose step was claimed again holds an older
number: nothing that it reports changes the step, only the row of its own attempt.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection, bindparam, func, select, text, update

from ..schemas.ids import uuid7
from ..schemas.messages import Envelope
from ..schemas.outcomes import Compared, Preference, StepFailure, StepResult
from ..schemas.trace import AttemptOutcome, CallTrace, EventKind
from .attempts import close_attempt, close_late, open_attempt
from .events import record_event
from .rows import dump, insert_or_ignore, storable
from .tables import UNFINISHED_SQL, comparisons, jobs, steps

PUBLISH_GRACE_S = 5.0
"""How long a published step may wait for a claim before the sweeper publishes it again."""


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to run one attempt at a step. Times are Unix times in seconds."""

    envelope: Envelope
    """The message; its `attempt` is the fence."""
    worker: str
    """Who holds it."""
    queued_at: float
    """When the step was ready."""
    claimed_at: float
    """When it was claimed."""
    lease_until: float
    """When it runs out without a heartbeat."""
    starts: int = 1
    """Attempts that count toward the dead letters, this one included: handed back ones do not."""


_LOCK_JOB = select(jobs.c.id).where(jobs.c.id == bindparam("job_id")).with_for_update()
_START_JOB = (
    update(jobs)
    .where(jobs.c.id == bindparam("b_id"), jobs.c.status == "queued")
    .values(status="running", started_at=func.coalesce(jobs.c.started_at, bindparam("now")))
)
_WAKE_JOB = (
    update(jobs)
    .where(jobs.c.id == bindparam("b_id"), text(UNFINISHED_SQL), jobs.c.wake_at > bindparam("wake_at"))
    .values(wake_at=bindparam("wake_at"))
)
_wanted = (
    select(jobs.c.id)
    .where(jobs.c.id == bindparam("b_job_id"), text(UNFINISHED_SQL), jobs.c.deadline_at > bindparam("now"))
    .with_for_update()
    .subquery("wanted")
)
_CLAIM = (
    update(steps)
    .where(
        steps.c.job_id == _wanted.c.id,
        steps.c.name == bindparam("b_name"),
        steps.c.status == "ready",
        steps.c.attempts == bindparam("b_attempts"),
    )
    .values(
        status="running",
        attempts=steps.c.attempts + 1,
        lease_until=bindparam("lease_until"),
        worker=bindparam("worker"),
        claimed_at=bindparam("now"),
    )
    .returning(steps.c.seq, steps.c.ready_at, steps.c.attempts, steps.c.released)
)
_FENCED = (
    steps.c.job_id == bindparam("b_job_id"),
    steps.c.name == bindparam("b_name"),
    steps.c.status == "running",
    steps.c.attempts == bindparam("b_attempts"),
)
_FINISH = (
    update(steps)
    .where(*_FENCED)
    .values(status="done", result=bindparam("result"), lease_until=None, finished_at=bindparam("now"))
)
_FAIL = (
    update(steps)
    .where(*_FENCED)
    .values(
        status="failed",
        failure=bindparam("failure"),
        failure_code=bindparam("failure_code"),
        lease_until=None,
        finished_at=bindparam("now"),
    )
)
_RETRY = (
    update(steps)
    .where(*_FENCED)
    .values(
        status="ready",
        due_at=bindparam("due_at"),
        ready_at=bindparam("due_at"),
        lease_until=None,
        released=steps.c.released + bindparam("uncounted"),
    )
)
_CANCEL = update(steps).where(*_FENCED).values(status="cancelled", lease_until=None, finished_at=bindparam("now"))
_RELEASE = (
    update(steps)
    .where(*_FENCED)
    .values(
        status="ready",
        due_at=bindparam("due_at"),
        ready_at=bindparam("now"),
        published_at=bindparam("now"),  # whoever hands it back rings for it
        lease_until=None,
        released=steps.c.released + 1,
    )
)
_ABANDON = update(steps).where(*_FENCED, steps.c.worker == bindparam("b_worker")).values(lease_until=0.0)
_ADD_COMPARISON = insert_or_ignore(comparisons, "job_id", "first", "second")

_MINE = (steps.c.worker == bindparam("b_worker"), steps.c.status == "running")
_BEAT = (
    update(steps)
    .where(*_MINE)
    .values(lease_until=bindparam("lease_until"))
    .returning(steps.c.job_id, steps.c.name, steps.c.attempts)
)
_free = select(steps.c.job_id, steps.c.name).where(*_MINE).with_for_update(skip_locked=True).cte("free")
_BEAT_FREE = (
    update(steps)
    .where(steps.c.job_id == _free.c.job_id, steps.c.name == _free.c.name)
    .values(lease_until=bindparam("lease_until"))
)
_HELD = select(steps.c.job_id, steps.c.name, steps.c.attempts).where(*_MINE)


def hold_job(conn: Connection, job_id: str) -> None:
    """Lock the job's row until the transaction ends; on SQLite the transaction holds the whole database already."""
    if conn.dialect.name != "sqlite":
        conn.execute(_LOCK_JOB, {"job_id": job_id})


def wake_job(conn: Connection, job_id: str, at: float) -> None:
    """Have the sweeper ask the state machine about the job at this time, unless it does so sooner anyway."""
    conn.execute(_WAKE_JOB, {"b_id": job_id, "wake_at": at})


def claim_step(conn: Connection, envelope: Envelope, *, worker: str, now: float, lease_s: float) -> Claim | None:
    """Take the step that the message is about, if it still waits for exactly this attempt and its job is still wanted.

    None = a duplicate, a stale message, or work that is no longer wanted: drop it.
    """
    job_id, step = envelope.job_id, envelope.step
    row = conn.execute(
        _CLAIM,
        {
            "b_job_id": job_id,
            "b_name": step,
            "b_attempts": envelope.attempt - 1,
            "lease_until": now + lease_s,
            "worker": worker,
            "now": now,
        },
    ).first()
    if row is None:
        return None
    open_attempt(conn, job_id, step, envelope.attempt, worker=worker, queued_at=row.ready_at, now=now)
    if row.seq == 0:  # before its first step is done a job has no other
        conn.execute(_START_JOB, {"b_id": job_id, "now": now})
    record_event(
        conn, job_id, EventKind.step_started, now=now, step=step, detail={"attempt": envelope.attempt, "worker": worker}
    )
    return Claim(envelope, worker, row.ready_at, now, now + lease_s, row.attempts - row.released)


def finish_step(conn: Connection, claim: Claim, *, result: StepResult, call: CallTrace | None, now: float) -> bool:
    """Write the step's result if the claim still holds; False = the fence is lost and only the attempt's row changed.

    The caller holds the job's lock, and lets the decision that follows (`apply_decision`) be part of the same transaction.
    """
    job_id, step, attempt = _key(claim)
    if not conn.execute(_FINISH, _fenced(claim) | {"result": dump(result), "now": now}).rowcount:
        close_late(conn, job_id, step, attempt, now=now, call=call)
        return False
    close_attempt(conn, job_id, step, attempt, AttemptOutcome.done, now=now, call=call)
    if isinstance(result, Compared):
        conn.execute(_ADD_COMPARISON, _comparison(job_id, result, now))
    record_event(
        conn,
        job_id,
        EventKind.step_finished,
        now=now,
        step=step,
        detail={"attempt": attempt, "kind": claim.envelope.body.kind},
    )
    return True


def fail_step(
    conn: Connection,
    claim: Claim,
    *,
    failure: StepFailure,
    call: CallTrace | None,
    retry_at: float | None,
    now: float,
    counts: bool = True,
) -> bool:
    """Write that the attempt failed: the step is ready again at `retry_at`, or failed for good when that is None.

    `counts`: whether the attempt counts toward the dead letters. False = the fence is lost and only the attempt's row changed. As for `finish_step`, the caller holds the job's lock and
    lets the decision that follows be part of the same transaction.
    """
    job_id, step, attempt = _key(claim)
    if retry_at is None:
        values = {"failure": dump(failure), "failure_code": failure.code, "now": now}
        held = conn.execute(_FAIL, _fenced(claim) | values).rowcount
    else:
        held = conn.execute(_RETRY, _fenced(claim) | {"due_at": retry_at, "uncounted": 0 if counts else 1}).rowcount
    if not held:
        close_late(conn, job_id, step, attempt, now=now, call=call)
        return False
    close_attempt(conn, job_id, step, attempt, AttemptOutcome.failed, now=now, call=call, error=failure)
    detail: dict[str, Any] = {"attempt": attempt, "code": failure.code}
    if retry_at is None:
        record_event(conn, job_id, EventKind.step_failed, now=now, step=step, detail=detail)
    else:
        detail["retry_at"] = retry_at
        record_event(conn, job_id, EventKind.step_retried, now=now, step=step, detail=detail)
    return True


def drop_step(
    conn: Connection,
    claim: Claim,
    *,
    outcome: Literal[AttemptOutcome.cancelled, AttemptOutcome.released],
    call: CallTrace | None,
    now: float,
) -> Envelope | None:
    """Write that the attempt was stopped, with what it had used: cancelled (not wanted) or released (worker stops).

    A released step is ready again at once; its next message is returned, to be published after the commit. It keeps its
    fence but does not count toward the dead letters (column `released`). None = nothing is to be published.
    """
    job_id, step, attempt = _key(claim)
    hold_job(conn, job_id)
    if outcome == AttemptOutcome.released:
        held = conn.execute(_RELEASE, _fenced(claim) | {"due_at": now, "now": now}).rowcount
    else:
        held = conn.execute(_CANCEL, _fenced(claim) | {"now": now}).rowcount
    if not held:
        close_late(conn, job_id, step, attempt, now=now, call=call)
        return None
    close_attempt(conn, job_id, step, attempt, outcome, now=now, call=call)
    detail = {"attempt": attempt, "reason": str(outcome)}
    if outcome == AttemptOutcome.cancelled:
        record_event(conn, job_id, EventKind.step_cancelled, now=now, step=step, detail=detail)
        wake_job(conn, job_id, now)
        return None
    record_event(conn, job_id, EventKind.step_retried, now=now, step=step, detail=detail)
    return next_message(claim.envelope)


def heartbeat(conn: Connection, *, worker: str, now: float, lease_s: float) -> set[tuple[str, str, int]]:
    """Extend all leases of the worker; return the (job_id, step, attempt) that it still holds.

    What it runs and does not find in the answer has been taken from it or is no longer wanted: stop that.
    """
    values = {"b_worker": worker, "lease_until": now + lease_s}
    if conn.dialect.name == "sqlite":
        return {(row[0], row[1], row[2]) for row in conn.execute(_BEAT, values)}
    # Rows that another transaction is changing are passed over, so a heartbeat never waits and is never in a deadlock.
    conn.execute(_BEAT_FREE, values)
    return {(row[0], row[1], row[2]) for row in conn.execute(_HELD, {"b_worker": worker})}


def abandon_steps(conn: Connection, keys: Iterable[tuple[str, str, int]], *, worker: str) -> None:
    """End the leases of (job_id, step, attempt) that the worker holds but does not run: the sweeper takes them up."""
    rows = [
        {"b_job_id": job_id, "b_name": name, "b_attempts": attempt, "b_worker": worker}
        for job_id, name, attempt in keys
    ]
    if rows:
        conn.execute(_ABANDON, rows)


def next_message(envelope: Envelope) -> Envelope:
    """Return the message for the attempt after this one."""
    return envelope.model_copy(update={"message_id": uuid7(), "attempt": envelope.attempt + 1})


def _key(claim: Claim) -> tuple[str, str, int]:
    return claim.envelope.job_id, claim.envelope.step, claim.envelope.attempt


def _fenced(claim: Claim) -> dict[str, Any]:
    return {"b_job_id": claim.envelope.job_id, "b_name": claim.envelope.step, "b_attempts": claim.envelope.attempt}


def _comparison(job_id: str, result: Compared, now: float) -> dict[str, Any]:
    winners = {Preference.first: result.first, Preference.second: result.second, Preference.tie: None}
    return {
        "job_id": job_id,
        "first": result.first,
        "second": result.second,
        "winner": winners[result.preference],
        "usable": result.usable,
        "reason": storable(result.reason),
        "at": now,
    }
