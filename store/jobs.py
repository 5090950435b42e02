"""Jobs: accepted once, looked at by the state machine, cancelled, listed, and their results handed out."""

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, cast

from pydantic import TypeAdapter
from pydantic_core import to_json
from sqlalchemy import Connection, Select, bindparam, func, select, text, update

from ..schemas.completion import TokenUsage
from ..schemas.errors import IdempotencyConflict, InvalidRequest, NotFound, QueueFull
from ..schemas.ids import uuid7
from ..schemas.jobs import JobError, JobStatus, SolveRequest, SolveResult
from ..schemas.messages import Envelope
from ..schemas.outcomes import StepStatus, StepView
from ..schemas.progress import JobView, NewStep
from ..schemas.trace import EventKind, JobSummary
from .decisions import LIST_TEXT_CHARS, Applied, add_steps, apply_decision, end_job
from .events import events_after, record_event
from .listed import LISTED_JOBS, PROBLEM_COLUMNS, shown_problem
from .rows import dump, insert_or_ignore, load_failure, load_result, storable
from .tables import UNFINISHED_SQL, attempts, jobs, steps
from .tenants import require_job_room
from .trace import job_trace

__all__ = [
    "Accepted",
    "Applied",
    "accept_job",
    "apply_decision",
    "attached_jobs",
    "events_after",
    "job_result",
    "job_trace",
    "list_jobs",
    "load_job",
    "load_steps",
    "lock_job",
    "mark_replied",
    "queue_depths",
    "request_cancel",
    "save_equivalences",
    "unreplied",
]

QUEUE_FULL_RETRY_S = 5.0
"""What a caller is told to wait when the queue is full."""

_Equivalences = TypeAdapter(list[tuple[int, int, bool]])

_ADD_JOB = insert_or_ignore(jobs, "tenant", "idempotency_key")
_BY_KEY = select(jobs.c.id, jobs.c.request_digest).where(
    jobs.c.tenant == bindparam("tenant"), jobs.c.idempotency_key == bindparam("idempotency_key")
)
_NTH_UNFINISHED = select(1).select_from(jobs).where(text(UNFINISHED_SQL)).limit(1).offset(bindparam("skip"))
_JOB = select(
    jobs.c.tenant,
    jobs.c.status,
    jobs.c.request,
    jobs.c.created_at,
    jobs.c.started_at,
    jobs.c.equivalences,
    jobs.c.wake_at,
    jobs.c.traceparent,
    jobs.c.reply_to,
).where(jobs.c.id == bindparam("job_id"))
_JOB_LOCKED = _JOB.with_for_update()
_STEPS = (
    select(
        steps.c.seq,
        steps.c.name,
        steps.c.status,
        steps.c.result,
        steps.c.failure,
        func.sum(attempts.c.prompt_tokens + attempts.c.wasted_prompt_tokens),
        func.sum(attempts.c.completion_tokens + attempts.c.wasted_completion_tokens),
        func.sum(attempts.c.reasoning_tokens),
    )
    .join_from(steps, attempts, (attempts.c.job_id == steps.c.job_id) & (attempts.c.step == steps.c.name), isouter=True)
    .where(steps.c.job_id == bindparam("job_id"))
    .group_by(steps.c.job_id, steps.c.name)
)
_EQUIVALENCES = select(jobs.c.equivalences).where(jobs.c.id == bindparam("job_id")).with_for_update()
_SAVE_EQUIVALENCES = update(jobs).where(jobs.c.id == bindparam("b_id")).values(equivalences=bindparam("equivalences"))
_RESULT = select(jobs.c.status, jobs.c.result).where(jobs.c.id == bindparam("job_id"))
_SUMMARIES = (
    select(
        jobs.c.id,
        jobs.c.tenant,
        jobs.c.status,
        jobs.c.created_at,
        jobs.c.finished_at,
        jobs.c.answer,
        jobs.c.error_code,
        *PROBLEM_COLUMNS,
    )
    .select_from(LISTED_JOBS)
    .order_by(jobs.c.id.desc())
)
_REPLIED = (
    update(jobs).where(jobs.c.id == bindparam("b_id"), jobs.c.replied_at.is_(None)).values(replied_at=bindparam("now"))
)
_UNREPLIED = (
    select(jobs.c.id, jobs.c.reply_to)
    .where(
        text("reply_to IS NOT NULL AND replied_at IS NULL"),
        jobs.c.finished_at.is_not(None),
        jobs.c.id.not_in(bindparam("skip", expanding=True)),
    )
    .order_by(jobs.c.finished_at)
    .limit(bindparam("limit"))
)
# Every unfinished job has a time to wake at: said so that SQLite takes that index. Not in order: it would read all jobs
# there are by their id rather than sort the few that are unfinished.
_ATTACHED = select(jobs.c.id).where(text(UNFINISHED_SQL), jobs.c.wake_at.is_not(None), jobs.c.attached)


def _depth(status: str) -> "Select[str, int]":
    # The status as text, not as a parameter: only then may the partial index be used.
    return select(steps.c.queue, func.count()).where(text(f"status = '{status}'")).group_by(steps.c.queue)


_READY_DEPTH, _RUNNING_DEPTH = _depth("ready"), _depth("running")


@dataclass(frozen=True, slots=True)
class Accepted:
    """An accepted request."""

    job_id: str
    """UUIDv7 of the job."""
    created: bool
    """False when the idempotency key had brought the same request before."""
    message: Envelope | None
    """First message, to be published after the commit; None when the job existed already."""


def accept_job(
    conn: Connection,
    *,
    request: SolveRequest,
    first: NewStep,
    tenant: str,
    now: float,
    attached: bool = False,
    reply_to: str | None = None,
    traceparent: str | None = None,
    queue_max: int | None = None,
    tenant_limit: bool = False,
    job_id: str | None = None,
    door: str | None = None,
) -> Accepted:
    """Create the job and its first step, or find the job that the request's idempotency key stands for.

    `attached` jobs are cancelled when their client leaves; `reply_to` is the Celery task that waits for the result;
    `queue_max` is the number of unfinished jobs from which on none is accepted, None = no limit; with `tenant_limit` the
    tenant's own limit holds, too; `job_id` is the new job's id, a UUIDv7 that nobody used before, None = a fresh one;
    `door` is what the door wants to find again (JSON). Raises IdempotencyConflict when the key was used for another
    request, QueueFull when there are too many jobs, LimitReached when the tenant has too many.
    """
    key = None if request.idempotency_key is None else storable(request.idempotency_key)
    digest = _digest(request)
    if key is not None and (known := _find(conn, tenant, key, digest)):
        return known
    if queue_max is not None and conn.execute(_NTH_UNFINISHED, {"skip": queue_max - 1}).first() is not None:
        raise QueueFull(
            f"{queue_max} jobs are unfinished, which is the most that are accepted: try again in {QUEUE_FULL_RETRY_S:.0f} s "
            "(K2THINK_QUEUE_MAX sets the limit)",
            retry_after_s=QUEUE_FULL_RETRY_S,
        )
    if tenant_limit:
        require_job_room(conn, tenant)
    job_id = job_id or uuid7(now_s=now)
    deadline_at = now + request.policy.deadline_s
    row: dict[str, Any] = dict.fromkeys(jobs.columns.keys())
    row |= {
        "id": job_id,
        "tenant": tenant,
        "idempotency_key": key,
        "request_digest": digest,
        "status": "queued",
        "priority": int(request.policy.priority),
        "attached": attached,
        "created_at": now,
        "deadline_at": deadline_at,
        "wake_at": deadline_at,
        "reply_to": reply_to,
        "traceparent": traceparent,
        "door": door,
        "problem": _beginning(request),
        "equivalences": "[]",
        "request": dump(request),
    }
    if not conn.execute(_ADD_JOB, row).rowcount:
        # Another transaction brought the same key a moment ago.
        known = _find(conn, tenant, key or "", digest)
        if known is None:
            raise InvalidRequest(
                f"the idempotency key {key!r} was just used and its job is gone: send the request again"
            )
        return known
    record_event(conn, job_id, EventKind.accepted, now=now, detail={"priority": int(request.policy.priority)})
    job = JobView(job_id, tenant, JobStatus.queued, request, created_at=now, started_at=None, traceparent=traceparent)
    (message,) = add_steps(conn, job, (first,), now=now)
    return Accepted(job_id, True, message)


def load_job(conn: Connection, job_id: str, *, lock: bool = False) -> JobView:
    """Return the job as the state machine sees it; raise NotFound.

    With `lock` nobody else can change the job or its steps before the transaction ends: whoever decides must hold it.
    """
    job = lock_job(conn, job_id) if lock else _load(conn, _JOB, job_id)
    load_steps(conn, job)
    return job


def lock_job(conn: Connection, job_id: str) -> JobView:
    """Lock the job until the transaction ends and return it, without its steps; raise NotFound."""
    return _load(conn, _JOB_LOCKED, job_id)


def _load(conn: Connection, query: Select[*tuple[Any, ...]], job_id: str) -> JobView:
    row = conn.execute(query, {"job_id": job_id}).first()
    if row is None:
        raise _unknown(job_id)
    return JobView(
        job_id=job_id,
        tenant=row.tenant,
        status=JobStatus(row.status),
        request=SolveRequest.model_validate_json(row.request),
        created_at=row.created_at,
        started_at=row.started_at,
        equivalences={(i, j): same for i, j, same in _Equivalences.validate_json(row.equivalences)},
        wake_at=row.wake_at,
        traceparent=row.traceparent,
        reply_to=row.reply_to,
    )


def load_steps(conn: Connection, job: JobView) -> None:
    """Read the steps of a job that came without them."""
    rows = sorted(conn.execute(_STEPS, {"job_id": job.job_id}).all(), key=lambda row: (row.seq, row.name))
    for _, name, status, result, failure, *tokens in rows:
        job.steps[name] = StepView(
            name=name,
            status=StepStatus(status),
            result=load_result(result),
            failure=load_failure(failure),
            usage=_usage(*tokens),
        )


def save_equivalences(conn: Connection, job_id: str, values: dict[tuple[int, int], bool]) -> None:
    """Add to what is known about which candidates gave the same answer; raise NotFound."""
    known = conn.execute(_EQUIVALENCES, {"job_id": job_id}).scalar_one_or_none()
    if known is None:
        raise _unknown(job_id)
    merged = {(i, j): same for i, j, same in _Equivalences.validate_json(known)} | values
    entries = [(i, j, same) for (i, j), same in sorted(merged.items())]
    conn.execute(_SAVE_EQUIVALENCES, {"b_id": job_id, "equivalences": to_json(entries).decode()})


def request_cancel(
    conn: Connection, job_id: str, *, now: float, status: JobStatus = JobStatus.cancelled, error: JobError
) -> Applied | None:
    """End the job without an answer; None = it had ended already. Raises NotFound."""
    job = load_job(conn, job_id, lock=True)
    return None if job.status.final else end_job(conn, job, status, error, now=now)


def job_result(conn: Connection, job_id: str) -> tuple[JobStatus, SolveResult | None]:
    """Return the job's status and, once it is final, its result; raise NotFound."""
    row = conn.execute(_RESULT, {"job_id": job_id}).first()
    if row is None:
        raise _unknown(job_id)
    return JobStatus(row.status), None if row.result is None else SolveResult.model_validate_json(row.result)


def list_jobs(
    conn: Connection,
    *,
    tenant: str | None = None,
    status: JobStatus | None = None,
    limit: int = 50,
    before: str | None = None,
) -> list[JobSummary]:
    """Return jobs, newest first: of one tenant and status (None = any), older than the job `before` (for paging)."""
    query = _SUMMARIES.limit(limit)
    if tenant is not None:
        query = query.where(jobs.c.tenant == tenant)
    if status is not None:
        query = query.where(jobs.c.status == str(status))
    if before is not None:
        query = query.where(jobs.c.id < before)
    return [
        JobSummary(
            job_id=row.id,
            tenant=row.tenant,
            status=JobStatus(row.status),
            created_at=row.created_at,
            finished_at=row.finished_at,
            problem=shown_problem(row),
            answer=row.answer,
            error_code=row.error_code,
        )
        for row in conn.execute(query)
    ]


def queue_depths(conn: Connection) -> dict[str, dict[str, int]]:
    """Return by queue how many steps are ready (waiting, back-off included) and running."""
    depths: dict[str, dict[str, int]] = {}
    for status, query in (("ready", _READY_DEPTH), ("running", _RUNNING_DEPTH)):
        for queue, count in conn.execute(query).all():
            depths.setdefault(queue, {"ready": 0, "running": 0})[status] = count
    return depths


def mark_replied(conn: Connection, job_id: str, now: float) -> None:
    """Note that the waiting Celery task has its result."""
    conn.execute(_REPLIED, {"b_id": job_id, "now": now})


def unreplied(conn: Connection, limit: int, skip: Collection[str] = ()) -> list[tuple[str, str]]:
    """Return (job_id, reply_to) of finished jobs whose caller has not been answered, oldest first; none of those in `skip`."""
    rows = conn.execute(_UNREPLIED, {"limit": limit, "skip": [*skip]})
    return [(row.id, row.reply_to) for row in rows]


def attached_jobs(conn: Connection) -> list[str]:
    """Return the unfinished jobs whose client must stay connected, oldest first."""
    return sorted(row.id for row in conn.execute(_ATTACHED))


def _find(conn: Connection, tenant: str, key: str, digest: str) -> Accepted | None:
    row = conn.execute(_BY_KEY, {"tenant": tenant, "idempotency_key": key}).first()
    if row is None:
        return None
    if row.request_digest != digest:
        raise IdempotencyConflict(
            f"the idempotency key {key!r} was used for another request (job {row.id}): use a new key for a new request"
        )
    return Accepted(cast(str, row.id), False, None)


def _digest(request: SolveRequest) -> str:
    return hashlib.sha256(dump(request.model_copy(update={"idempotency_key": None})).encode()).hexdigest()


def _beginning(request: SolveRequest) -> str:
    words = request.conversation[-1].content.lstrip()[: 2 * LIST_TEXT_CHARS].split()
    return storable(" ".join(words)[:LIST_TEXT_CHARS])


def _usage(prompt: int | None, completion: int | None, reasoning: int | None) -> TokenUsage:
    return TokenUsage(prompt=int(prompt or 0), completion=int(completion or 0), reasoning=int(reasoning or 0))


def _unknown(job_id: str) -> NotFound:
    return NotFound(f"no job {job_id!r}: `k2think jobs list` shows those that exist")
