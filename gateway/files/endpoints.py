"""The endpoints of /v1/files."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import Annotated, Any, BinaryIO, Literal
from urllib.parse import quote

from fastapi import APIRouter, Header, Path, Query, Request
from fastapi.responses import StreamingResponse
from sqlalchemy import Connection

from ...schemas.batches import EXPIRY_MAX_S, EXPIRY_MIN_S, FileDeleted, FileList, FileObject, FilePurpose
from ...schemas.errors import StoreUnavailable, UserError
from ...store.files import (
    FileRow,
    NewFile,
    add_file,
    delete_file,
    get_file,
    key_is_known,
    list_files,
    new_file_id,
    no_room,
    room_for_files,
)
from ..access import AnyCaller, Creator, TheServices
from ..error_answers import CREATING, LOOKING, error_answers
from .storage import NewContent, content_path, remove_content
from .upload import disk_error, receive

PAGE_MAX = 10_000
READ_BYTES = 256 * 1024

router = APIRouter(prefix="/v1/files", tags=["files"])

FileId = Annotated[str, Path(max_length=100, description="Id of the file.")]
_FORM: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file", "purpose"],
                    "additionalProperties": False,
                    "properties": {
                        "file": {"type": "string", "format": "binary", "description": "The content."},
                        "purpose": {"type": "string", "enum": ["batch"], "description": "What it is for."},
                        "expires_after[anchor]": {"type": "string", "enum": ["created_at"]},
                        "expires_after[seconds]": {
                            "type": "integer",
                            "minimum": EXPIRY_MIN_S,
                            "maximum": EXPIRY_MAX_S,
                            "description": "Seconds after which it is deleted. Left out = never.",
                        },
                    },
                }
            }
        },
    }
}
_CONTENT: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The bytes.",
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}


@router.post("", responses=error_answers(*CREATING), openapi_extra=_FORM)
async def create_file(
    request: Request,
    caller: Creator,
    services: TheServices,
    idempotency_key: Annotated[
        str | None, Header(min_length=1, max_length=255, description="The same key brings back the same file.")
    ] = None,
) -> FileObject:
    """Upload a file. It is written to the disk as it comes, and exists once it is whole."""
    folder = services.settings.files_dir

    def room_now(connection: Connection) -> int | None:
        # What comes again takes no room: it is read only to be compared.
        if idempotency_key is not None and key_is_known(connection, caller.tenant, idempotency_key):
            return None
        return room_for_files(connection, caller.tenant)

    room = await services.database.read(room_now)
    if room == 0:
        raise no_room(room)
    try:
        content = await asyncio.to_thread(NewContent, folder)
    except OSError as exc:
        raise disk_error(exc) from exc
    with content:
        upload = await receive(request, content, bytes_max=services.settings.gateway.file_bytes_max, room=room)
        file = NewFile(
            id=new_file_id(),
            tenant=caller.tenant,
            filename=upload.filename,
            purpose=FilePurpose.batch,
            bytes=content.size,
            sha256=content.sha256,
            idempotency_key=idempotency_key,
            expires_after_s=upload.expires_after_s,
        )
        try:
            await asyncio.to_thread(content.put, file.id)
        except OSError as exc:
            raise disk_error(exc) from exc
    try:
        stored, new = await services.database.run(
            lambda connection: add_file(connection, file, now=services.database.now())
        )
    except UserError:
        # After any other failure the row may exist all the same; if it does not, the content is an orphan.
        await asyncio.to_thread(remove_content, folder, [file.id])
        raise
    if not new:
        await asyncio.to_thread(remove_content, folder, [file.id])
    return _object(stored)


@router.get("", name="list_files", responses=error_answers(400, 401, 403, 503))
async def get_files(
    caller: AnyCaller,
    services: TheServices,
    purpose: Annotated[FilePurpose | None, Query(description="Only files for this.")] = None,
    after: Annotated[
        str | None, Query(max_length=100, description="Last file of the page before: what follows it is listed.")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=PAGE_MAX, description="Files at most.")] = 100,
    order: Annotated[Literal["asc", "desc"], Query(description="By time of creation.")] = "desc",
) -> FileList:
    """List files, newest first unless asked otherwise."""
    found = await services.database.read(
        lambda connection: list_files(
            connection, caller.tenant, limit=limit + 1, order=order, after=after, purpose=purpose
        )
    )
    page = [_object(row) for row in found[:limit]]
    first, last = (page[0].id, page[-1].id) if page else (None, None)
    return FileList(data=page, first_id=first, last_id=last, has_more=len(found) > limit)


@router.get("/{file_id}", name="get_file", responses=error_answers(*LOOKING))
async def get_one(file_id: FileId, caller: AnyCaller, services: TheServices) -> FileObject:
    """Look at a file."""
    return _object(await services.database.read(lambda connection: get_file(connection, caller.tenant, file_id)))


@router.get("/{file_id}/content", response_class=StreamingResponse, responses={**_CONTENT, **error_answers(*LOOKING)})
async def get_content(file_id: FileId, caller: AnyCaller, services: TheServices) -> StreamingResponse:
    """Download a file."""
    row = await services.database.read(lambda connection: get_file(connection, caller.tenant, file_id))
    try:
        file = await asyncio.to_thread(content_path(services.settings.files_dir, row.id).open, "rb")
    except OSError as exc:
        # Deleted in this very moment, it is simply not there any more.
        await services.database.read(lambda connection: get_file(connection, caller.tenant, file_id))
        raise StoreUnavailable(
            f"the content of {row.id} cannot be read here ({exc.strerror}): "
            "all gateways must share K2THINK_GATEWAY__FILES_DIR"
        ) from exc
    headers = {
        "Content-Length": str(row.bytes),
        "Content-Disposition": content_disposition(row.filename),
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": "private, no-store",
    }
    return StreamingResponse(_pieces(file), headers=headers, media_type="application/octet-stream")


@router.delete("/{file_id}", name="delete_file", responses=error_answers(*LOOKING))
async def remove_file(file_id: FileId, caller: AnyCaller, services: TheServices) -> FileDeleted:
    """Delete a file. What a batch still reads is kept, and 400 says so."""
    await services.database.run(lambda connection: delete_file(connection, caller.tenant, file_id))
    await asyncio.to_thread(remove_content, services.settings.files_dir, [file_id])
    return FileDeleted(id=file_id)


def content_disposition(filename: str) -> str:
    """Return the header for a download under that name (RFC 6266), whatever is in it."""
    plain = "".join(char if char.isascii() and char.isprintable() and char not in '"\\%' else "_" for char in filename)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(filename, safe='')}"


async def _pieces(file: BinaryIO) -> AsyncGenerator[bytes]:
    with contextlib.closing(file):
        while piece := await asyncio.to_thread(file.read, READ_BYTES):
            yield piece


def _object(row: FileRow) -> FileObject:
    return FileObject(
        id=row.id,
        bytes=row.bytes,
        created_at=int(row.created_at),
        expires_at=None if row.expires_at is None else int(row.expires_at),
        filename=row.filename,
        purpose=row.purpose,
    )
