"""Batches as their owner sees them: created, looked at, listed, cancelled. Every look-up is one tenant's.

What works on them is in `batch_runs` and `batch_lines`.
"""

import hashlib
import re
from typing import Any, Literal, cast

from pydantic import TypeAdapter
from sqlalchemy import Connection, Row, select, update

from ..schemas.batches import (
    BatchBody,
    BatchObject,
    BatchProblem,
    BatchProblems,
    BatchStatus,
    BatchUsage,
    FilePurpose,
    RequestCounts,
    window_s,
)
from ..schemas.errors import IdempotencyConflict, InvalidRequest, NotFound
from ..schemas.ids import uuid7
from ..schemas.settings import Settings
from .deliveries import notify_when_done
from .door_tables import batches
from .files import get_file
from .rows import dump, dump_value, insert_or_ignore, storable

__all__ = ["batch_object", "cancel_batch", "create_batch", "get_batch", "list_batches"]

_ID = re.compile(r"batch_[0-9a-f]{32}")
_ADD = insert_or_ignore(batches, "tenant", "idempotency_key")
_problems: TypeAdapter[list[BatchProblem]] = TypeAdapter(list[BatchProblem])
_metadata: TypeAdapter[dict[str, str] | None] = TypeAdapter(dict[str, str] | None)


def create_batch(
    conn: Connection,
    body: BatchBody,
    settings: Settings,
    *,
    tenant: str,
    now: float,
    idempotency_key: str | None = None,
) -> tuple[BatchObject, bool]:
    """Create the batch with its notice, or find the one that the key stands for; tell whether it is new.

    Raises NotFound for an unknown input file, InvalidRequest for one of another purpose, IdempotencyConflict.
    """
    key = None if idempotency_key is None else storable(idempotency_key)
    digest = hashlib.sha256(dump(body).encode()).hexdigest()
    if key is not None and (known := _by_key(conn, tenant, key, digest)):
        return known, False
    file = get_file(conn, tenant, body.input_file_id, lock=True)
    if file.purpose is not FilePurpose.batch:
        raise InvalidRequest(
            f"{file.id} has the purpose {file.purpose}: upload the input with purpose=batch", param="input_file_id"
        )
    batch_id = f"batch_{uuid7(now_s=now).replace('-', '')}"
    row: dict[str, Any] = dict.fromkeys(batches.columns.keys())
    row |= {
        "id": batch_id,
        "tenant": tenant,
        "idempotency_key": key,
        "request_digest": digest,
        "endpoint": body.endpoint,
        "input_file_id": file.id,
        "completion_window": body.completion_window,
        "metadata": dump_value(body.metadata),
        "output_expires_after_s": body.output_expires_after.seconds if body.output_expires_after else None,
        "status": str(BatchStatus.validating),
        "total": 0,
        "completed": 0,
        "failed": 0,
        "fence": 0,
        "created_at": now,
        "expires_at": now + window_s(body.completion_window),
    }
    if not conn.execute(_ADD, row).rowcount:
        # Another transaction brought the same key a moment ago.
        known = _by_key(conn, tenant, key or "", digest)
        if known is None:
            raise InvalidRequest("the idempotency key was just used and its batch is gone: send the request again")
        return known, False
    notify_when_done(conn, settings, tenant=tenant, subject="batch", subject_id=batch_id, now=now)
    return get_batch(conn, tenant, batch_id), True


def get_batch(conn: Connection, tenant: str, batch_id: str) -> BatchObject:
    """Return the tenant's batch; raise NotFound."""
    return batch_object(_row(conn, tenant, batch_id))


def list_batches(
    conn: Connection, tenant: str, *, limit: int, order: Literal["asc", "desc"] = "desc", after: str | None = None
) -> list[BatchObject]:
    """Return the tenant's batches by time of creation, those after the id `after` (None = from the beginning)."""
    query = select(batches).where(batches.c.tenant == tenant).limit(limit)
    query = query.order_by(batches.c.id.asc() if order == "asc" else batches.c.id.desc())
    if after is not None:
        if not _ID.fullmatch(after):
            raise InvalidRequest(f"after: {after[:64]!r} is not the id of a batch", param="after")
        query = query.where(batches.c.id > after if order == "asc" else batches.c.id < after)
    return [batch_object(row) for row in conn.execute(query)]


def cancel_batch(conn: Connection, tenant: str, batch_id: str, *, now: float) -> BatchObject:
    """Ask for the batch's end; a second time changes nothing. Raises NotFound, InvalidRequest when it is too late."""
    row = _row(conn, tenant, batch_id, lock=True)
    status = BatchStatus(row.status)
    if status in (BatchStatus.cancelling, BatchStatus.cancelled):
        return batch_object(row)
    if status not in (BatchStatus.validating, BatchStatus.in_progress):
        raise InvalidRequest(f"the batch cannot be cancelled, it is {status}: all its lines have ended")
    changes = {"status": str(BatchStatus.cancelling), "cancelling_at": now}
    conn.execute(update(batches).where(batches.c.id == batch_id).values(**changes))
    return get_batch(conn, tenant, batch_id)


def batch_object(row: Row[Any]) -> BatchObject:
    """Return the batch as it goes over the wire."""
    return BatchObject(
        id=row.id,
        endpoint=row.endpoint,
        model=row.model,
        errors=BatchProblems(data=_problems.validate_json(row.errors)) if row.errors else None,
        input_file_id=row.input_file_id,
        completion_window=row.completion_window,
        status=BatchStatus(row.status),
        output_file_id=row.output_file_id,
        error_file_id=row.error_file_id,
        created_at=int(row.created_at),
        in_progress_at=_whole(row.in_progress_at),
        expires_at=int(row.expires_at),
        finalizing_at=_whole(row.finalizing_at),
        completed_at=_whole(row.completed_at),
        failed_at=_whole(row.failed_at),
        expired_at=_whole(row.expired_at),
        cancelling_at=_whole(row.cancelling_at),
        cancelled_at=_whole(row.cancelled_at),
        request_counts=RequestCounts(total=row.total, completed=row.completed, failed=row.failed),
        usage=BatchUsage.model_validate_json(row.usage) if row.usage else None,
        metadata=_metadata.validate_json(row.metadata),
    )


def _row(conn: Connection, tenant: str, batch_id: str, *, lock: bool = False) -> Row[Any]:
    found = None
    if _ID.fullmatch(batch_id):
        query = select(batches).where(batches.c.id == batch_id, batches.c.tenant == tenant)
        found = conn.execute(query.with_for_update() if lock else query).first()
    if found is None:
        raise NotFound(f"no batch {batch_id[:64]!r}: GET /v1/batches lists those that exist")
    return found


def _by_key(conn: Connection, tenant: str, key: str, digest: str) -> BatchObject | None:
    query = select(batches).where(batches.c.tenant == tenant, batches.c.idempotency_key == key)
    found = conn.execute(query).first()
    if found is None:
        return None
    if found.request_digest != digest:
        raise IdempotencyConflict(
            f"the idempotency key was used for another batch ({cast(str, found.id)}): use a new key for a new batch",
            param="Idempotency-Key",
        )
    return batch_object(found)


def _whole(at: float | None) -> int | None:
    return None if at is None else int(at)
