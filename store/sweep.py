"""What the sweeper asks for: lost leases, steps to publish again, jobs to look at, dead letters. Any number may run.

On PostgreSQL rows that another sweeper is working on are passed over; on SQLite transactions take turns anyway.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from pydantic import ValidationError
from sqlalchemy import Connection, bindparam, func, or_, select, text, update

from ..schemas.jobs import JobStatus
from ..schemas.messages import Envelope
from ..schemas.outcomes import StepFailure
from ..schemas.policy import Priority
from ..schemas.trace import AttemptOutcome, EventKind
from .attempts import give_up_attempt
from .events import record_event
from .jobs import attached_jobs
from .rows import dump, load_body, load_failure
from .steps import PUBLISH_GRACE_S, wake_job
from .tables import UNFINISHED_SQL, jobs, steps

__all__ = [
    "DeadLetter",
    "DueStep",
    "Lease",
    "Lost",
    "any_unrung",
    "attached_jobs",
    "dead_letters",
    "due_jobs",
    "due_steps",
    "forget_times",
    "mark_published",
    "ready_counts",
    "reclaim_lost",
    "running_leases",
]

DEAD_LETTER = "dead_letter"


class Lease(NamedTuple):
    """What a worker wrote with one claim or one heartbeat, to one or many steps."""

    worker: str
    until: float
    """When it runs out by the worker's clock. To others it only says, by another number, that the worker lives; 0 = its
    worker has given it up (`abandon_steps`)."""


@dataclass(frozen=True, slots=True)
class Lost:
    """An attempt whose lease ran out."""

    job_id: str
    step: str
    attempt: int
    dead: bool
    """Whether it was the last one allowed: the step has failed, and its job needs a decision."""


class DueStep(NamedTuple):
    """A ready step that is due."""

    job_id: str
    """The job."""
    step: str
    """Name of the step."""
    queue: str
    """Where its message goes."""
    message: Envelope | None
    """The message for its next attempt; None = what it asks for cannot be read here."""
    rung: bool
    """Whether a message for that attempt was sent before; False = its queue certainly holds none."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A step that was started too often without an end."""

    job_id: str
    step: str
    kind: str
    """Kind of the message body."""
    attempts: int
    """Times it was started."""
    at: float
    """Unix time in seconds."""
    failure: StepFailure
    """The reason."""
    job_status: JobStatus
    """What became of the job."""


_LOST = (
    select(steps.c.job_id, steps.c.name, steps.c.attempts, steps.c.released, steps.c.worker)
    .join_from(steps, jobs, jobs.c.id == steps.c.job_id)
    .where(
        text("steps.status = 'running'"),
        steps.c.lease_until == bindparam("until"),
        steps.c.worker == bindparam("worker"),
    )
    .limit(bindparam("limit"))
    .with_for_update(of=jobs, skip_locked=True)
)
_STILL_LOST = (
    steps.c.job_id == bindparam("b_job_id"),
    steps.c.name == bindparam("b_name"),
    steps.c.attempts == bindparam("b_attempts"),
    steps.c.status == "running",
    steps.c.lease_until == bindparam("b_until"),
)
_READY_AGAIN = (
    update(steps)
    .where(*_STILL_LOST)
    .values(status="ready", lease_until=None, due_at=bindparam("now"), ready_at=bindparam("now"))
)
_DEAD = (
    update(steps)
    .where(*_STILL_LOST)
    .values(
        status="failed",
        lease_until=None,
        finished_at=bindparam("now"),
        failure=bindparam("failure"),
        failure_code=DEAD_LETTER,
    )
)
_LEASES = select(steps.c.worker, steps.c.lease_until).where(text("status = 'running'")).distinct()
_RUNG = func.coalesce(steps.c.published_at >= steps.c.ready_at, False)
_DUE_STEPS = (
    select(
        steps.c.job_id,
        steps.c.name,
        steps.c.queue,
        steps.c.priority,
        steps.c.attempts,
        steps.c.body,
        _RUNG.label("rung"),
        jobs.c.tenant,
        jobs.c.traceparent,
    )
    .join_from(steps, jobs, jobs.c.id == steps.c.job_id)
    .where(
        text("steps.status = 'ready'"),
        steps.c.due_at <= bindparam("now"),
        text(f"jobs.{UNFINISHED_SQL}"),
        jobs.c.deadline_at > bindparam("now"),
        or_(_RUNG.is_(False), steps.c.queue.in_(bindparam("short", expanding=True))),
    )
    .order_by(_RUNG, steps.c.priority, steps.c.due_at)
    .limit(bindparam("limit"))
    .with_for_update(of=steps, skip_locked=True)
)
_UNRUNG = select(1).where(text("status = 'ready'"), steps.c.due_at <= bindparam("now"), _RUNG.is_(False))
_PUBLISHED = (
    update(steps)
    .where(steps.c.job_id == bindparam("b_job_id"), steps.c.name == bindparam("b_name"), steps.c.status == "ready")
    .values(published_at=bindparam("now"), due_at=bindparam("due_at"))
)
_READY = select(steps.c.queue, func.count()).where(text("status = 'ready'")).group_by(steps.c.queue)
_STEPS_DUE_SOON = (
    update(steps).where(text("status = 'ready'"), steps.c.due_at > bindparam("at")).values(due_at=bindparam("at"))
)
_RUNNING_JOBS_DUE = (
    update(jobs)
    .where(text(UNFINISHED_SQL), jobs.c.status == "running", jobs.c.wake_at > bindparam("now"))
    .values(wake_at=bindparam("now"))
)
_DUE_JOBS = (
    select(jobs.c.id)
    .where(
        text(UNFINISHED_SQL),
        jobs.c.wake_at <= bindparam("now"),
        jobs.c.id.not_in(bindparam("skip", expanding=True)),
    )
    .order_by(jobs.c.wake_at)
    .limit(bindparam("limit"))
)
_DEAD_LETTERS = (
    select(
        steps.c.job_id,
        steps.c.name,
        steps.c.kind,
        steps.c.attempts,
        steps.c.finished_at,
        steps.c.failure,
        jobs.c.status,
    )
    .join_from(steps, jobs, jobs.c.id == steps.c.job_id)
    .where(text("steps.failure_code = 'dead_letter'"))
    .order_by(steps.c.finished_at.desc())
    .limit(bindparam("limit"))
)


def running_leases(conn: Connection) -> list[Lease]:
    """Return all leases that there are."""
    return [Lease(*row) for row in conn.execute(_LEASES)]


def reclaim_lost(conn: Connection, lease: Lease, *, now: float, attempts_max: int, limit: int = 200) -> list[Lost]:
    """Take back the steps whose lease ran out: ready again, or failed after `attempts_max` starts that count.

    At most `limit` of them. Attempts that a stopping worker handed back do not count. A job with a dead step is to be
    looked at now (`due_jobs`).
    """
    lost: list[Lost] = []
    rows = conn.execute(_LOST, {"worker": lease.worker, "until": lease.until, "limit": limit}).all()
    for job_id, name, attempt, released, worker in rows:
        starts = attempt - released
        reason = StepFailure(
            code="lease_lost",
            message=f"worker {worker} stopped reporting: it died, was killed, or stood still past its lease",
        )
        dead = starts >= attempts_max
        values = {"b_job_id": job_id, "b_name": name, "b_attempts": attempt, "b_until": lease.until, "now": now}
        if dead:
            failure = StepFailure(
                code=DEAD_LETTER,
                message=f"started {starts} times without an end, the last time on worker {worker}, which stopped reporting: "
                "the input may kill its worker; see the workers' logs before trying it again",
            )
            changed = conn.execute(_DEAD, values | {"failure": dump(failure)}).rowcount
        else:
            changed = conn.execute(_READY_AGAIN, values).rowcount
        if not changed:
            continue  # its heartbeat came after all
        give_up_attempt(conn, job_id, name, attempt, AttemptOutcome.lost, now=now, error=reason)
        kind = EventKind.step_failed if dead else EventKind.step_retried
        detail = {"attempt": attempt, "code": DEAD_LETTER if dead else reason.code}
        record_event(conn, job_id, kind, now=now, step=name, detail=detail)
        if dead:
            wake_job(conn, job_id, now)
        lost.append(Lost(job_id, name, attempt, dead))
    return lost


def due_steps(conn: Connection, *, now: float, short: Collection[str], limit: int = 500) -> list[DueStep]:
    """Return the ready steps that are due: those never rung for first, then those of the queues in `short`; of both the
    most urgent first.

    Call `mark_published` in the same transaction and publish after its commit: should the publishing fail, they are due
    again later.
    """
    rows = conn.execute(_DUE_STEPS, {"now": now, "short": [*short], "limit": limit})
    return [DueStep(row.job_id, row.name, row.queue, _message(row), bool(row.rung)) for row in rows]


def _message(row: Any) -> Envelope | None:
    try:
        return Envelope(
            job_id=row.job_id,
            step=row.name,
            attempt=row.attempts + 1,
            tenant=row.tenant,
            priority=Priority(row.priority),
            traceparent=row.traceparent,
            body=load_body(row.body),
        )
    except ValidationError:
        return None


def mark_published(conn: Connection, keys: Iterable[tuple[str, str]], *, now: float, due_at: float) -> None:
    """Note that the (job_id, step) were published; those that nobody claims are due again at `due_at`."""
    rows = [{"b_job_id": job_id, "b_name": name, "now": now, "due_at": due_at} for job_id, name in keys]
    if rows:
        conn.execute(_PUBLISHED, rows)


def any_unrung(conn: Connection, *, now: float) -> bool:
    """Whether a step is due whose message was never sent: taken back from a lost worker, or to be tried again."""
    return conn.execute(_UNRUNG.limit(1), {"now": now}).first() is not None


def ready_counts(conn: Connection) -> dict[str, int]:
    """Return how many steps wait, by queue; queues without any are absent."""
    return {row[0]: row[1] for row in conn.execute(_READY)}


def forget_times(conn: Connection, *, now: float) -> None:
    """The clock was set back: what was to be looked at at a time that is now far ahead is looked at soon.

    Ready steps, rung for or to be tried again, and running jobs. Deadlines stay what they are.
    """
    conn.execute(_RUNNING_JOBS_DUE, {"now": now})
    conn.execute(_STEPS_DUE_SOON, {"at": now + PUBLISH_GRACE_S})


def due_jobs(conn: Connection, *, now: float, limit: int = 200, skip: Collection[str] = ()) -> list[str]:
    """Return the unfinished jobs that the state machine must be asked about: soft timeout, deadline, dead letter.

    None of those in `skip`.
    """
    return [row.id for row in conn.execute(_DUE_JOBS, {"now": now, "limit": limit, "skip": [*skip]})]


def dead_letters(conn: Connection, limit: int = 100) -> list[DeadLetter]:
    """Return the steps that were started too often without an end, the newest first."""
    return [
        DeadLetter(row.job_id, row.name, row.kind, row.attempts, row.finished_at, failure, JobStatus(row.status))
        for row in conn.execute(_DEAD_LETTERS, {"limit": limit})
        if (failure := load_failure(row.failure)) is not None
    ]
