"""Batches as the process that works on them sees them: claimed under a lease, and written to under its fence.

Any number of processes may look for open batches. A claim counts the batch's fence up; whoever writes proves with the
number that it still holds the newest claim, so a process that was paused past its lease changes nothing when it wakes.
What is written for the lines of a batch is in `batch_lines`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, bindparam, delete, func, or_, select, text, update

from ..schemas.batches import BatchProblem, BatchStatus, BatchUsage, FilePurpose
from .door_tables import OPEN_BATCH_SQL, batch_requests, batches
from .files import NewFile, write_file_row
from .rows import dump, dump_value

__all__ = [
    "Batch",
    "BatchClaim",
    "ClaimLost",
    "any_free",
    "begin",
    "claim_batches",
    "clear_lines",
    "count_lines",
    "end_batch",
    "fail_batch",
    "hold",
    "look",
    "output_file",
    "release",
    "renew",
    "start_expiry",
    "start_finalizing",
]

LEASES_AHEAD_MAX = 10
"""A lease that ends later than so many leases from now is none: gateways may have different settings, but not by so much."""
_ENDS_AT = {
    BatchStatus.completed: batches.c.completed_at,
    BatchStatus.expired: batches.c.expired_at,
    BatchStatus.cancelled: batches.c.cancelled_at,
}
_FREE = (
    select(batches.c.id, batches.c.fence)
    .where(
        text(OPEN_BATCH_SQL),
        or_(
            batches.c.lease_until.is_(None),
            batches.c.lease_until < bindparam("now"),
            batches.c.lease_until > bindparam("later"),
        ),
    )
    .order_by(batches.c.id)
    .limit(bindparam("limit"))
)
_FREE_LOCKED = _FREE.with_for_update(skip_locked=True)


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
    validated: bool
    """Whether its input was read to the end and is good."""
    expired: bool
    """Whether the window was found to be over."""
    cancelling: bool
    """Whether its owner asked for its end."""


# ---- Claims


def any_free(conn: Connection, *, now: float, lease_s: float) -> bool:
    """Whether `claim_batches` would find something; reads only."""
    return conn.execute(_FREE, _free(now, lease_s) | {"limit": 1}).first() is not None


def claim_batches(conn: Connection, *, owner: str, now: float, lease_s: float, limit: int) -> list[BatchClaim]:
    """Claim up to `limit` open batches that nobody works on, oldest first.

    A lease that ends later than any can (LEASES_AHEAD_MAX) was written before the clock was set back, and holds no longer:
    should its gateway live, the fence keeps the two apart.
    """
    free = conn.execute(_FREE_LOCKED, _free(now, lease_s) | {"limit": limit})
    claims = [BatchClaim(row.id, row.fence + 1) for row in free]
    for claim in claims:
        values = {"lease_owner": owner, "lease_until": now + lease_s, "fence": claim.fence}
        conn.execute(update(batches).where(batches.c.id == claim.batch_id).values(**values))
    return claims


def _free(now: float, lease_s: float) -> dict[str, Any]:
    return {"now": now, "later": now + LEASES_AHEAD_MAX * lease_s}


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


# ---- Progress


def clear_lines(conn: Connection, claim: BatchClaim) -> Batch:
    """Forget what an unfinished validation has found; return the batch. Raises ClaimLost.

    A batch that has been validated keeps its lines.
    """
    batch = hold(conn, claim)
    if not batch.validated:
        conn.execute(delete(batch_requests).where(batch_requests.c.batch_id == claim.batch_id))
    return batch


def begin(conn: Connection, claim: BatchClaim, *, total: int, model: str | None, now: float) -> None:
    """End the validation of a good input; nothing when the batch is no longer being validated. Raises ClaimLost."""
    if hold(conn, claim).status is BatchStatus.validating:
        _write(conn, claim, status=str(BatchStatus.in_progress), in_progress_at=now, total=total, model=model)


def fail_batch(conn: Connection, claim: BatchClaim, problems: Sequence[BatchProblem], *, now: float) -> bool:
    """End the batch because of its input; False when it is no longer being validated. Raises ClaimLost."""
    if clear_lines(conn, claim).status is not BatchStatus.validating:
        return False
    errors = dump_value([problem.model_dump() for problem in problems])
    _end(conn, claim, BatchStatus.failed, failed_at=now, errors=errors)
    return True


def count_lines(conn: Connection, claim: BatchClaim, *, completed: int = 0, failed: int = 0) -> None:
    """Add to the numbers of lines that have ended; to be called with what ends them, under `hold`."""
    if completed or failed:
        _write(conn, claim, completed=batches.c.completed + completed, failed=batches.c.failed + failed)


def start_expiry(conn: Connection, claim: BatchClaim, *, now: float) -> None:
    """Note that the completion window is over. Raises ClaimLost."""
    hold(conn, claim)
    _write(conn, claim, expired_at=func.coalesce(batches.c.expired_at, now))


def start_finalizing(conn: Connection, claim: BatchClaim, *, now: float) -> Batch:
    """Note that all lines have ended; return the batch. One being cancelled stays so. Raises ClaimLost."""
    if hold(conn, claim).status is BatchStatus.in_progress:
        _write(conn, claim, status=str(BatchStatus.finalizing), finalizing_at=now)
    return look(conn, claim)


def end_batch(
    conn: Connection,
    claim: BatchClaim,
    status: BatchStatus,
    *,
    now: float,
    output: NewFile | None = None,
    errors: NewFile | None = None,
    usage: BatchUsage | None = None,
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
        usage=dump(usage) if usage else None,
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
        validated=row.in_progress_at is not None,
        expired=row.expired_at is not None,
        cancelling=row.cancelling_at is not None,
    )
