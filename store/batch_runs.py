"""Batches as the process that works on them sees them: claimed under a lease, and written to under its fence.

Any number of processes may look for open batches. A claim counts the batch's fence up; whoever writes proves with the
number that it still holds the newest claim, so a process that was paused past its lease changes nothing when it wakes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, bindparam, delete, func, insert, or_, select, text, update

from ..schemas.batches import BatchProblem, BatchStatus, BatchUsage, FilePurpose, LineStatus
from ..schemas.jobs import JobStatus
from .door_tables import OPEN_BATCH_SQL, batch_requests, batches
from .files import NewFile, write_file_row
from .rows import dump, dump_value
from .tables import jobs

__all__ = [
    "Batch",
    "BatchClaim",
    "ClaimLost",
    "Ended",
    "Line",
    "NewLine",
    "Outcome",
    "add_lines",
    "begin",
    "claim_batches",
    "clear_lines",
    "drop_pending",
    "end_batch",
    "end_lines",
    "fail_batch",
    "hold",
    "look",
    "note_submitted",
    "outcomes",
    "pending_lines",
    "release",
    "renew",
    "start_expiry",
    "start_finalizing",
    "submitted_jobs",
]

_LINE = (batch_requests.c.batch_id == bindparam("b_batch")) & (batch_requests.c.line == bindparam("b_line"))
_ENDS_AT = {
    BatchStatus.completed: batches.c.completed_at,
    BatchStatus.expired: batches.c.expired_at,
    BatchStatus.cancelled: batches.c.cancelled_at,
}


class ClaimLost(Exception):
    """Another process has claimed the batch since, or it has ended: nothing may be written for it any more."""


@dataclass(frozen=True, slots=True)
class BatchClaim:
    """The right to work on a batch."""

    batch_id: str
    """The batch."""
    fence: int
    """Number of the claim; a newer one makes this one void."""


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch that is worked on."""

    id: str
    tenant: str
    endpoint: str
    """URL of every line."""
    input_file_id: str
    output_expires_after_s: int | None
    """Seconds that its output lives; None = for ever."""
    status: BatchStatus
    expires_at: float
    """End of the completion window, Unix time in seconds."""
    expired_at: float | None
    """When the window was found to be over; None = it is not."""
    cancelling: bool
    """Whether its owner asked for its end."""
    total: int
    completed: int
    failed: int


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


class Ended(NamedTuple):
    """How a line ended."""

    line: int
    status: LineStatus
    """completed or failed."""
    error: dict[str, Any] | None = None
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


# ---- Claims


def claim_batches(conn: Connection, *, owner: str, now: float, lease_s: float, limit: int) -> list[BatchClaim]:
    """Claim up to `limit` open batches that nobody works on, oldest first."""
    free = (
        select(batches.c.id, batches.c.fence)
        .where(text(OPEN_BATCH_SQL), or_(batches.c.lease_until.is_(None), batches.c.lease_until < now))
        .order_by(batches.c.id)
        .limit(limit)
    )
    claims = [BatchClaim(row.id, row.fence + 1) for row in conn.execute(free.with_for_update(skip_locked=True))]
    for claim in claims:
        values = {"lease_owner": owner, "lease_until": now + lease_s, "fence": claim.fence}
        conn.execute(update(batches).where(batches.c.id == claim.batch_id).values(**values))
    return claims


def renew(conn: Connection, claims: Sequence[BatchClaim], *, now: float, lease_s: float) -> list[BatchClaim]:
    """Extend the claims; return those that are void."""
    return [claim for claim in claims if not _write(conn, claim, lease_until=now + lease_s)]


def release(conn: Connection, claim: BatchClaim) -> None:
    """Give the batch back, so that another process may take it up at once; nothing when the claim is void."""
    _write(conn, claim, lease_until=None, lease_owner=None)


def hold(conn: Connection, claim: BatchClaim) -> Batch:
    """Return the batch as it is now, locked until the transaction ends. Raises ClaimLost."""
    return _batch(_held(conn, claim, lock=True))


def look(conn: Connection, claim: BatchClaim) -> Batch:
    """As `hold`, without the lock."""
    return _batch(_held(conn, claim, lock=False))


# ---- Validation


def clear_lines(conn: Connection, claim: BatchClaim) -> Batch:
    """Forget what an earlier, unfinished validation has found; return the batch. Raises ClaimLost."""
    batch = hold(conn, claim)
    conn.execute(delete(batch_requests).where(batch_requests.c.batch_id == claim.batch_id))
    return batch


def add_lines(conn: Connection, claim: BatchClaim, lines: Sequence[NewLine]) -> bool:
    """Note lines of the input; False when the batch is no longer being validated. Raises ClaimLost."""
    if hold(conn, claim).status is not BatchStatus.validating:
        return False
    blank = {"batch_id": claim.batch_id, "status": str(LineStatus.pending), "job_id": None, "error": None}
    conn.execute(insert(batch_requests), [{**blank, **line._asdict()} for line in lines])
    return True


def begin(conn: Connection, claim: BatchClaim, *, total: int, model: str | None, now: float) -> None:
    """End the validation of a good input; nothing when the batch is no longer being validated. Raises ClaimLost."""
    if hold(conn, claim).status is BatchStatus.validating:
        _write(conn, claim, status=str(BatchStatus.in_progress), in_progress_at=now, total=total, model=model)


def fail_batch(conn: Connection, claim: BatchClaim, problems: Sequence[BatchProblem], *, now: float) -> None:
    """End the batch because of its input; nothing when it is no longer being validated. Raises ClaimLost."""
    if clear_lines(conn, claim).status is BatchStatus.validating:
        errors = dump_value([problem.model_dump() for problem in problems])
        _end(conn, claim, BatchStatus.failed, failed_at=now, errors=errors)


# ---- Progress


def pending_lines(conn: Connection, batch_id: str, *, limit: int) -> list[Line]:
    """Return lines that have no job yet, in order."""
    query = (
        select(batch_requests.c.line, batch_requests.c.offset, batch_requests.c.length)
        .where(batch_requests.c.batch_id == batch_id, batch_requests.c.status == str(LineStatus.pending))
        .order_by(batch_requests.c.line)
        .limit(limit)
    )
    return [Line(row.line, row.offset, row.length) for row in conn.execute(query)]


def note_submitted(conn: Connection, batch_id: str, line: int, job_id: str) -> None:
    """Note the job of a pending line; to be called in the transaction that accepts the job, under `hold`."""
    values = {"status": str(LineStatus.submitted), "job_id": job_id}
    conn.execute(update(batch_requests).where(_LINE).values(**values), {"b_batch": batch_id, "b_line": line})


def submitted_jobs(conn: Connection, batch_id: str) -> list[tuple[int, str, JobStatus | None]]:
    """Return (line, job id, status of the job) of the lines whose end has not been noted; None = the job is gone."""
    query = (
        select(batch_requests.c.line, batch_requests.c.job_id, jobs.c.status)
        .join_from(batch_requests, jobs, jobs.c.id == batch_requests.c.job_id, isouter=True)
        .where(batch_requests.c.batch_id == batch_id, batch_requests.c.status == str(LineStatus.submitted))
        .order_by(batch_requests.c.line)
    )
    rows = conn.execute(query)
    return [(row.line, row.job_id, None if row.status is None else JobStatus(row.status)) for row in rows]


def end_lines(conn: Connection, claim: BatchClaim, ended: Sequence[Ended]) -> None:
    """Note the ends of lines and count them, each once. Raises ClaimLost."""
    hold(conn, claim)
    changed = dict.fromkeys(LineStatus, 0)
    open_ = batch_requests.c.status.in_([str(LineStatus.pending), str(LineStatus.submitted)])
    statement = update(batch_requests).where(_LINE, open_)
    for line in ended:
        values = {"status": str(line.status), "error": None if line.error is None else dump_value(line.error)}
        done = conn.execute(statement.values(**values), {"b_batch": claim.batch_id, "b_line": line.line})
        changed[line.status] += done.rowcount
    _count(conn, claim, completed=changed[LineStatus.completed], failed=changed[LineStatus.failed])


def drop_pending(conn: Connection, claim: BatchClaim, error: Mapping[str, Any]) -> None:
    """End all lines that have no job yet with this error. Raises ClaimLost."""
    hold(conn, claim)
    pending = (batch_requests.c.batch_id == claim.batch_id) & (batch_requests.c.status == str(LineStatus.pending))
    values = {"status": str(LineStatus.failed), "error": dump_value(dict(error))}
    _count(conn, claim, failed=conn.execute(update(batch_requests).where(pending).values(**values)).rowcount)


def start_expiry(conn: Connection, claim: BatchClaim, *, now: float) -> None:
    """Note that the completion window is over. Raises ClaimLost."""
    hold(conn, claim)
    _write(conn, claim, expired_at=func.coalesce(batches.c.expired_at, now))


# ---- The end


def start_finalizing(conn: Connection, claim: BatchClaim, *, now: float) -> Batch:
    """Note that all lines have ended; return the batch. One being cancelled stays so. Raises ClaimLost."""
    finalizing = str(BatchStatus.finalizing)
    if hold(conn, claim).status is BatchStatus.in_progress:
        _write(conn, claim, status=finalizing, finalizing_at=now)
    return look(conn, claim)


def outcomes(conn: Connection, batch_id: str, *, after: int, limit: int) -> list[Outcome]:
    """Return lines with what they came to, in order, those after the line `after`."""
    query = (
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
        .where(batch_requests.c.batch_id == batch_id, batch_requests.c.line > after)
        .order_by(batch_requests.c.line)
        .limit(limit)
    )
    return [Outcome(row[0], row[1], LineStatus(row[2]), *row[3:]) for row in conn.execute(query)]


def end_batch(
    conn: Connection,
    claim: BatchClaim,
    status: BatchStatus,
    *,
    output: NewFile | None,
    errors: NewFile | None,
    usage: BatchUsage,
    now: float,
) -> None:
    """End the batch with its files, whose content is in place; None = no such line. Raises ClaimLost."""
    hold(conn, claim)
    for file in (output, errors):
        if file is not None:
            write_file_row(conn, file, now=now)
    _end(
        conn,
        claim,
        status,
        **{_ENDS_AT[status].name: now},
        usage=dump(usage),
        output_file_id=output.id if output else None,
        error_file_id=errors.id if errors else None,
    )


def output_file(batch: Batch, file_id: str, name: str, *, size: int, sha256: str) -> NewFile:
    """Return a file of the batch's owner that lives as long as was asked for."""
    return NewFile(
        id=file_id,
        tenant=batch.tenant,
        filename=name,
        purpose=FilePurpose.batch_output,
        bytes=size,
        sha256=sha256,
        expires_after_s=batch.output_expires_after_s,
    )


def _end(conn: Connection, claim: BatchClaim, status: BatchStatus, **values: Any) -> None:
    _write(conn, claim, status=str(status), lease_owner=None, lease_until=None, **values)


def _write(conn: Connection, claim: BatchClaim, **values: Any) -> int:
    mine = (batches.c.id == claim.batch_id) & (batches.c.fence == claim.fence)
    return conn.execute(update(batches).where(mine, text(OPEN_BATCH_SQL)).values(**values)).rowcount


def _count(conn: Connection, claim: BatchClaim, *, completed: int = 0, failed: int = 0) -> None:
    if completed or failed:
        _write(conn, claim, completed=batches.c.completed + completed, failed=batches.c.failed + failed)


def _held(conn: Connection, claim: BatchClaim, *, lock: bool) -> Row[Any]:
    query = select(batches).where(batches.c.id == claim.batch_id, batches.c.fence == claim.fence, text(OPEN_BATCH_SQL))
    found = conn.execute(query.with_for_update() if lock else query).first()
    if found is None:
        raise ClaimLost(claim.batch_id)
    return found


def _batch(row: Row[Any]) -> Batch:
    return Batch(
        id=row.id,
        tenant=row.tenant,
        endpoint=row.endpoint,
        input_file_id=row.input_file_id,
        output_expires_after_s=row.output_expires_after_s,
        status=BatchStatus(row.status),
        expires_at=row.expires_at,
        expired_at=row.expired_at,
        cancelling=row.cancelling_at is not None,
        total=row.total,
        completed=row.completed,
        failed=row.failed,
    )
