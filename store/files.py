"""Files: their rows. The content lies in the files folder under the id; every look-up is one tenant's.

A row is written after its content is in place, and taken away before the content is: a row always has its content.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

from sqlalchemy import Connection, Row, delete, exists, select, text

from ..schemas.batches import FilePurpose
from ..schemas.errors import IdempotencyConflict, InvalidRequest, LimitReached, NotFound
from ..schemas.ids import uuid7
from .door_tables import OPEN_BATCH_SQL, batches, files, tenants
from .rows import insert_or_ignore, storable
from .tenants import stored_bytes

__all__ = [
    "FileRow",
    "NewFile",
    "add_file",
    "delete_file",
    "drop_expired_files",
    "get_file",
    "key_is_known",
    "known_files",
    "list_files",
    "new_file_id",
    "no_room",
    "room_for_files",
    "write_file_row",
]

FULL_RETRY_S = 3_600.0
"""What a caller without room is told to wait: only deleting or expiry makes room."""
IDS_PER_QUERY = 500
_ID = re.compile(r"file-[0-9a-f]{32}")
_ADD = insert_or_ignore(files, "tenant", "idempotency_key")
_IN_USE = exists().where(batches.c.input_file_id == files.c.id, text(OPEN_BATCH_SQL))


@dataclass(frozen=True, slots=True)
class FileRow:
    """A file."""

    id: str
    """file- and a UUIDv7 without dashes: sorts by time."""
    tenant: str
    """Owner."""
    filename: str
    """As uploaded, for display only."""
    purpose: FilePurpose
    """What it is for."""
    bytes: int
    """Size."""
    sha256: str
    """Of the content, hex."""
    created_at: float
    """Unix time in seconds."""
    expires_at: float | None
    """When it is deleted; None = never."""


@dataclass(frozen=True, slots=True)
class NewFile:
    """A file whose content is in place under its id."""

    id: str
    tenant: str
    filename: str
    purpose: FilePurpose
    bytes: int
    sha256: str
    idempotency_key: str | None = None
    """The caller's; None = every upload is new."""
    expires_after_s: int | None = None
    """Seconds that it lives; None = for ever."""


def new_file_id(*, now: float | None = None) -> str:
    """Return an id that nobody used before; None = by the system clock."""
    return f"file-{uuid7(now_s=now).replace('-', '')}"


def room_for_files(conn: Connection, tenant: str, *, lock: bool = False) -> int | None:
    """Return the bytes that the tenant may still store; None = no limit. With `lock`, nobody else stores meanwhile."""
    query = select(tenants.c.stored_bytes).where(tenants.c.tenant == tenant)
    limit = conn.execute(query.with_for_update() if lock else query).scalar_one_or_none()
    return None if limit is None else max(0, limit - stored_bytes(conn, tenant))


def no_room(room: int) -> LimitReached:
    """Return the error of a tenant that may not store so much."""
    return LimitReached(
        f"the files of this tenant have used up their space ({room:,} bytes are left): delete files that are not needed, "
        "let uploads expire by expires_after, or have the limit raised by `k2think tenants`",
        retry_after_s=FULL_RETRY_S,
    )


def key_is_known(conn: Connection, tenant: str, idempotency_key: str) -> bool:
    """Whether the key stands for a file of the tenant already."""
    same = (files.c.tenant == tenant) & (files.c.idempotency_key == storable(idempotency_key))
    return conn.execute(select(files.c.id).where(same)).first() is not None


def add_file(conn: Connection, file: NewFile, *, now: float) -> tuple[FileRow, bool]:
    """Write the row of an upload, or find the file that its idempotency key stands for; tell whether it is new.

    Raises IdempotencyConflict for a key that stands for other content, LimitReached when there is no room.
    """
    if file.idempotency_key is not None and (known := _by_key(conn, file)):
        return known, False
    room = room_for_files(conn, file.tenant, lock=True)
    if room is not None and file.bytes > room:
        raise no_room(room)
    if not write_file_row(conn, file, now=now):
        # Another transaction brought the same key a moment ago.
        known = _by_key(conn, file)
        if known is None:
            raise InvalidRequest("the idempotency key was just used and its file is gone: send the upload again")
        return known, False
    return get_file(conn, file.tenant, file.id), True


def write_file_row(conn: Connection, file: NewFile, *, now: float) -> bool:
    """Write the row whatever the tenant's limit is (results are never thrown away); False = the key exists."""
    row: dict[str, Any] = {
        "id": file.id,
        "tenant": file.tenant,
        "filename": storable(file.filename),
        "purpose": str(file.purpose),
        "bytes": file.bytes,
        "sha256": file.sha256,
        "idempotency_key": _key(file),
        "created_at": now,
        "expires_at": None if file.expires_after_s is None else now + file.expires_after_s,
    }
    return bool(conn.execute(_ADD, row).rowcount)


def get_file(conn: Connection, tenant: str, file_id: str, *, lock: bool = False) -> FileRow:
    """Return the tenant's file; raise NotFound. With `lock` nobody else deletes it or lets a batch read it meanwhile."""
    found = None
    if _ID.fullmatch(file_id):
        query = select(files).where(files.c.id == file_id, files.c.tenant == tenant)
        found = conn.execute(query.with_for_update() if lock else query).first()
    if found is None:
        raise _unknown(file_id)
    return _file(found)


def list_files(
    conn: Connection,
    tenant: str,
    *,
    limit: int,
    order: Literal["asc", "desc"] = "desc",
    after: str | None = None,
    purpose: str | None = None,
) -> list[FileRow]:
    """Return the tenant's files by time of creation, those after the id `after` (None = from the beginning)."""
    query = select(files).where(files.c.tenant == tenant).limit(limit)
    query = query.order_by(files.c.id.asc() if order == "asc" else files.c.id.desc())
    if after is not None:
        if not _ID.fullmatch(after):
            raise InvalidRequest(f"after: {after[:64]!r} is not the id of a file", param="after")
        query = query.where(files.c.id > after if order == "asc" else files.c.id < after)
    if purpose is not None:
        query = query.where(files.c.purpose == storable(purpose))
    return [_file(row) for row in conn.execute(query)]


def delete_file(conn: Connection, tenant: str, file_id: str) -> None:
    """Take the row away; the caller deletes the content. Raises NotFound, InvalidRequest while a batch reads it."""
    get_file(conn, tenant, file_id, lock=True)
    if not conn.execute(delete(files).where(files.c.id == file_id, files.c.tenant == tenant, ~_IN_USE)).rowcount:
        raise InvalidRequest(
            f"{file_id} is the input of a batch that has not ended: cancel the batch first, or wait for its end"
        )


def drop_expired_files(conn: Connection, *, now: float, limit: int = 100) -> list[str]:
    """Take away the rows of expired files that no open batch reads; return their ids, whose content is to be deleted."""
    due = select(files.c.id).where(files.c.expires_at <= now, ~_IN_USE).order_by(files.c.expires_at).limit(limit)
    ids = [cast(str, row.id) for row in conn.execute(due.with_for_update(skip_locked=True))]
    if ids:
        conn.execute(delete(files).where(files.c.id.in_(ids)))
    return ids


def known_files(conn: Connection, ids: Sequence[str]) -> set[str]:
    """Return those of the ids that have a row, of any tenant (to tell what is an orphan)."""
    known: set[str] = set()
    for start in range(0, len(ids), IDS_PER_QUERY):
        part = ids[start : start + IDS_PER_QUERY]
        known.update(row.id for row in conn.execute(select(files.c.id).where(files.c.id.in_(part))))
    return known


def _by_key(conn: Connection, file: NewFile) -> FileRow | None:
    query = select(files).where(files.c.tenant == file.tenant, files.c.idempotency_key == _key(file))
    found = conn.execute(query).first()
    if found is None:
        return None
    if found.sha256 != file.sha256 or found.purpose != str(file.purpose):
        raise IdempotencyConflict(
            f"the idempotency key was used for another upload ({found.id}): use a new key for a new file",
            param="Idempotency-Key",
        )
    return _file(found)


def _key(file: NewFile) -> str | None:
    return None if file.idempotency_key is None else storable(file.idempotency_key)


def _file(row: Row[Any]) -> FileRow:
    return FileRow(
        id=row.id,
        tenant=row.tenant,
        filename=row.filename,
        purpose=FilePurpose(row.purpose),
        bytes=row.bytes,
        sha256=row.sha256,
        created_at=row.created_at,
        expires_at=row.expires_at,
    )


def _unknown(file_id: str) -> NotFound:
    return NotFound(f"no file {file_id[:64]!r}: GET /v1/files lists those that exist")
