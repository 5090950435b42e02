"""What the state machine decided, applied: new steps, cancelled steps, and the one result of the job."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, bindparam, select, text, update

from ..schemas.jobs import JobError, JobStatus, SolveResult
from ..schemas.messages import Envelope, queue_of
from ..schemas.progress import Decision, Ending, JobView, NewStep
from ..schemas.trace import AttemptOutcome, EventKind
from .attempts import give_up_attempt
from .events import record_event
from .results import build_result
from .rows import dump, insert_or_ignore, storable
from .steps import PUBLISH_GRACE_S
from .tables import UNFINISHED_SQL, jobs, steps

LIST_TEXT_CHARS = 200
"""Characters of problem and answer that lists show."""

_WAKE = update(jobs).where(jobs.c.id == bindparam("b_id"), text(UNFINISHED_SQL)).values(wake_at=bindparam("wake_at"))
_ADD_STEP = insert_or_ignore(steps, "job_id", "name")
_NO_STEP: dict[str, Any] = dict.fromkeys(steps.columns.keys()) | {"status": "ready", "attempts": 0, "released": 0}
_UNFINISHED_STEPS = (
    select(steps.c.name, steps.c.status, steps.c.attempts)
    .where(steps.c.job_id == bindparam("job_id"), text("status IN ('ready', 'running')"))
    .order_by(steps.c.seq)
)
_CANCEL_STEP = (
    update(steps)
    .where(steps.c.job_id == bindparam("b_job_id"), steps.c.name == bindparam("b_name"))
    .values(status="cancelled", lease_until=None, finished_at=bindparam("now"))
)
_END = (
    update(jobs)
    .where(jobs.c.id == bindparam("b_id"), text(UNFINISHED_SQL))
    .values(
        status=bindparam("status"),
        result=bindparam("result"),
        answer=bindparam("answer"),
        error_code=bindparam("error_code"),
        tokens=bindparam("tokens"),
        finished_at=bindparam("now"),
        wake_at=None,
    )
)


@dataclass(frozen=True, slots=True)
class Applied:
    """What came of a decision, to be acted on after the commit."""

    messages: tuple[Envelope, ...] = ()
    """To publish."""
    cancelled: tuple[tuple[str, int], ...] = ()
    """(step, attempt) of running steps that are no longer wanted: tell their workers."""
    result: SolveResult | None = None
    """The job's result, when this very decision ended it."""
    reply_to: str | None = None
    """Celery task that waits for the result; None = nobody does, or there is no result yet."""


def add_steps(conn: Connection, job: JobView, new: tuple[NewStep, ...], *, now: float) -> tuple[Envelope, ...]:
    """Create those of the steps that do not exist yet; return their first messages. The caller holds the job's lock."""
    fresh = [step for step in new if step.name not in job.steps]
    if not fresh:
        return ()
    request = job.request
    priority = int(request.policy.priority)
    rows: list[dict[str, Any]] = [
        _NO_STEP
        | {
            "job_id": job.job_id,
            "name": step.name,
            "seq": seq,
            "kind": step.body.kind,
            "queue": queue_of(step.body),
            "priority": priority,
            "due_at": now + PUBLISH_GRACE_S,
            "created_at": now,
            "ready_at": now,
            "published_at": now,
            "body": dump(step.body),
        }
        for seq, step in enumerate(fresh, start=len(job.steps))
    ]
    conn.execute(_ADD_STEP, rows)
    return tuple(
        Envelope(
            job_id=job.job_id,
            step=step.name,
            attempt=1,
            tenant=job.tenant,
            priority=request.policy.priority,
            traceparent=job.traceparent,
            body=step.body,
        )
        for step in fresh
    )


def apply_decision(conn: Connection, job: JobView, decision: Decision, *, now: float) -> Applied:
    """Create and cancel steps, and end the job if the decision says so; the result is written exactly once.

    The caller holds the job's lock since before `job` was read. An empty `Applied` means that the job had ended already.
    A decision with `undecided` pairs changes nothing.
    """
    if decision.undecided or job.status.final:
        return Applied()
    if decision.ending is not None:
        return _end(conn, job, decision.ending, now=now)
    wake_at = job.deadline_at if decision.wake_at is None else decision.wake_at
    if wake_at != job.wake_at:
        conn.execute(_WAKE, {"b_id": job.job_id, "wake_at": wake_at})
    cancelled = _cancel(conn, job.job_id, set(decision.cancel), now=now) if decision.cancel else ()
    return Applied(messages=add_steps(conn, job, decision.create, now=now), cancelled=cancelled)


def end_job(conn: Connection, job: JobView, status: JobStatus, error: JobError, *, now: float) -> Applied | None:
    """End the job without an answer (cancelled, expired …); None = it had ended already."""
    applied = apply_decision(conn, job, Decision(ending=Ending(status=status, error=error)), now=now)
    return applied if applied.result is not None else None


def _end(conn: Connection, job: JobView, ending: Ending, *, now: float) -> Applied:
    unfinished = any(not step.status.final for step in job.steps.values())
    cancelled = _cancel(conn, job.job_id, None, now=now) if unfinished else ()
    result = build_result(conn, job, ending, now=now)
    error_code = result.error.code if result.error else None
    ended = conn.execute(
        _END,
        {
            "b_id": job.job_id,
            "status": str(result.status),
            "result": dump(result),
            "answer": None if result.answer is None else storable(result.answer[:LIST_TEXT_CHARS]),
            "error_code": error_code,
            "tokens": result.usage.total.total,
            "now": now,
        },
    ).rowcount
    if not ended:
        return Applied()
    detail = {"status": str(result.status), "code": error_code}
    record_event(conn, job.job_id, EventKind.finished, now=now, detail=detail)
    return Applied(cancelled=cancelled, result=result, reply_to=job.reply_to)


def _cancel(conn: Connection, job_id: str, names: set[str] | None, *, now: float) -> tuple[tuple[str, int], ...]:
    """Cancel the named unfinished steps, None = all of them; return (name, attempt) of those that ran."""
    running: list[tuple[str, int]] = []
    for name, status, attempt in conn.execute(_UNFINISHED_STEPS, {"job_id": job_id}).all():
        if names is not None and name not in names:
            continue
        conn.execute(_CANCEL_STEP, {"b_job_id": job_id, "b_name": name, "now": now})
        if status == "running":
            give_up_attempt(conn, job_id, name, attempt, AttemptOutcome.cancelled, now=now)
            running.append((name, attempt))
        record_event(
            conn,
            job_id,
            EventKind.step_cancelled,
            now=now,
            step=name,
            detail={"attempt": attempt, "reason": "not wanted"},
        )
    return tuple(running)
