"""The lines of batches: noted while the input is read, given their jobs, ended, and read for the output.

    pending ──note_submitted──> submitted ──end_lines──> completed | failed
       └──────────────── drop_pending ───────────────────────────────┘

All that changes lines is written under the batch's claim (see `batch_runs`): with `hold` in the same transaction.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, bindparam, func, select, text, update

from ..schemas.batches import BatchStatus, LineStatus
from ..schemas.jobs import JobStatus
from .batch_runs import BatchClaim, count_lines, hold
from .door_tables import batch_requests, tenants
from .rows import dump_value, insert_or_ignore
from .tables import UNFINISHED_SQL, jobs
from .tenants import jobs_in_flight

__all__ = [
    "Ended",
    "Line",
    "LineJob",
    "NewLine",
    "Outcome",
    "add_lines",
    "drop_pending",
    "end_lines",
    "note_submitted",
    "outcomes",
    "pending_lines",
    "room_for_jobs",
    "submitted_jobs",
]

OTHERS_SHARE = 5
"""One part in so many of a limit on jobs is left by batches to everything else."""
_ADD = insert_or_ignore(batch_requests, "batch_id", "line")
_OF_BATCH = batch_requests.c.batch_id == bindparam("b_batch")
_LINE = _OF_BATCH & (batch_requests.c.line == bindparam("b_line"))
_PENDING = (
    select(batch_requests.c.line, batch_requests.c.offset, batch_requests.c.length)
    .where(_OF_BATCH, batch_requests.c.status == str(LineStatus.pending))
    .order_by(batch_requests.c.line)
    .limit(bindparam("limit"))
)
_SUBMIT = (
    update(batch_requests)
    .where(_LINE, batch_requests.c.status == str(LineStatus.pending))
    .values(status=str(LineStatus.submitted), job_id=bindparam("job"))
)
_SUBMITTED = (
    select(batch_requests.c.line, batch_requests.c.job_id, jobs.c.status, jobs.c.error_code)
    .join_from(batch_requests, jobs, jobs.c.id == batch_requests.c.job_id, isouter=True)
    .where(_OF_BATCH, batch_requests.c.status == str(LineStatus.submitted))
    .order_by(batch_requests.c.line)
)
_END = (
    update(batch_requests)
    .where(_LINE, batch_requests.c.status.in_([str(LineStatus.pending), str(LineStatus.submitted)]))
    .values(status=bindparam("b_status"), error=bindparam("b_error"))
)
_DROP = (
    update(batch_requests)
    .where(_OF_BATCH, batch_requests.c.status == str(LineStatus.pending))
    .values(status=str(LineStatus.failed), error=bindparam("b_error"))
)
_OUTCOMES = (
    select(
        batch_requests.c.line,
        batch_requests.c.custom_id,
        batch_requests.c.status,
        batch_requests.c.error,
        batch_requests.c.job_id,
        jobs.c.result,
        jobs.c.door,
    )
    .join_from(batch_requests, jobs, jobs.c.id == batch_requests.c.job_id, isouter=True)
    .where(_OF_BATCH, batch_requests.c.line > bindparam("b_after"))
    .order_by(batch_requests.c.line)
    .limit(bindparam("limit"))
)
_UNFINISHED = select(func.count()).select_from(jobs).where(text(UNFINISHED_SQL))
_JOBS_LIMIT = select(tenants.c.jobs_in_flight).where(tenants.c.tenant == bindparam("tenant")).with_for_update()


class NewLine(NamedTuple):
    """A line of the input that is well-formed."""

    line: int
    """From 1."""
    custom_id: str
    offset: int
    """Where it begins, in bytes."""
    length: int
    """Bytes, without the line's end."""


class Line(NamedTuple):
    """A line that has no job yet."""

    line: int
    offset: int
    length: int


class LineJob(NamedTuple):
    """A line whose end has not been noted, with its job."""

    line: int
    job_id: str
    status: JobStatus | None
    """State of the job; None = it is gone."""
    error_code: str | None
    """Why the job has no answer; None = it has, or has not ended."""


class Ended(NamedTuple):
    """How a line ended."""

    line: int
    status: LineStatus
    """completed or failed."""
    error: Mapping[str, Any] | None = None
    """What its error line says; None = what the job came to."""


class Outcome(NamedTuple):
    """A line with what it came to, for the output."""

    line: int
    custom_id: str
    status: LineStatus
    error: str | None
    """JSON, as in `Ended`."""
    job_id: str | None
    result: str | None
    """SolveResult as JSON; None = it has no job, or that is gone."""
    door: str | None
    """The job's DoorNote as JSON."""


def add_lines(conn: Connection, claim: BatchClaim, lines: Sequence[NewLine]) -> bool:
    """Note lines of the input; False when the batch is no longer being validated. Raises ClaimLost."""
    if hold(conn, claim).status is not BatchStatus.validating:
        return False
    blank = {"batch_id": claim.batch_id, "status": str(LineStatus.pending), "job_id": None, "error": None}
    if lines:
        conn.execute(_ADD, [{**blank, **line._asdict()} for line in lines])
    return True


def pending_lines(conn: Connection, batch_id: str, *, limit: int) -> list[Line]:
    """Return lines that have no job yet, in order."""
    return [Line(*row) for row in conn.execute(_PENDING, {"b_batch": batch_id, "limit": limit})]


def room_for_jobs(conn: Connection, tenant: str, *, queue_max: int) -> int:
    """Return how many more jobs of batches the tenant may have in the queues now.

    A share of the queue, and of the tenant's own limit, stays free for what is not a batch. The tenant's row stays
    locked, so that two batches of one tenant do not both use the same room.
    """
    room = _batches_part(queue_max) - int(conn.execute(_UNFINISHED).scalar_one())
    limit = conn.execute(_JOBS_LIMIT, {"tenant": tenant}).scalar_one_or_none()
    if limit is not None:
        room = min(room, _batches_part(limit) - jobs_in_flight(conn, tenant))
    return max(0, room)


def note_submitted(conn: Connection, batch_id: str, line: int, job_id: str) -> bool:
    """Give a pending line its job; False = it is no longer pending. In the transaction that accepts the job."""
    return bool(conn.execute(_SUBMIT, {"b_batch": batch_id, "b_line": line, "job": job_id}).rowcount)


def submitted_jobs(conn: Connection, batch_id: str) -> list[LineJob]:
    """Return the lines whose end has not been noted, with their jobs."""
    return [
        LineJob(row[0], row[1], None if row[2] is None else JobStatus(row[2]), row[3])
        for row in conn.execute(_SUBMITTED, {"b_batch": batch_id})
    ]


def end_lines(conn: Connection, claim: BatchClaim, ended: Sequence[Ended]) -> None:
    """Note the ends of lines and count them, each once. Raises ClaimLost."""
    hold(conn, claim)
    changed = dict.fromkeys(LineStatus, 0)
    for line in ended:
        error = None if line.error is None else dump_value(dict(line.error))
        values = {"b_batch": claim.batch_id, "b_line": line.line, "b_status": str(line.status), "b_error": error}
        changed[line.status] += conn.execute(_END, values).rowcount
    count_lines(conn, claim, completed=changed[LineStatus.completed], failed=changed[LineStatus.failed])


def drop_pending(conn: Connection, claim: BatchClaim, error: Mapping[str, Any]) -> None:
    """End all lines that have no job yet with this error. Raises ClaimLost."""
    hold(conn, claim)
    dropped = conn.execute(_DROP, {"b_batch": claim.batch_id, "b_error": dump_value(dict(error))}).rowcount
    count_lines(conn, claim, failed=dropped)


def outcomes(conn: Connection, batch_id: str, *, after: int, limit: int) -> list[Outcome]:
    """Return lines with what they came to, in order, those after the line `after`."""
    rows = conn.execute(_OUTCOMES, {"b_batch": batch_id, "b_after": after, "limit": limit})
    return [Outcome(row[0], row[1], LineStatus(row[2]), *row[3:]) for row in rows]


def _batches_part(limit: int) -> int:
    return max(1, limit - limit // OTHERS_SHARE)
