"""Uploads: multipart/form-data taken apart while it comes, the file's bytes straight to the disk.

Nothing is held in memory but the piece at hand, whatever the size of the file.
"""

import asyncio
import contextlib
import os
import re
import unicodedata
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fastapi import Request
from pydantic import ValidationError
from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from ...schemas.batches import ExpiresAfter, FilePurpose
from ...schemas.errors import InvalidRequest, LimitReached, StoreFull, explain
from ...store.files import no_room
from .storage import NewContent

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

WRITE_BYTES = 1 << 20
"""Bytes that are gathered before they go to the disk."""
FIELD_BYTES_MAX = 4_096
FORM_BYTES_MAX = 64 * 1024
"""Bytes of a body besides the file's own."""
DRAIN_BYTES_MAX = 64_000_000
"""Bytes of a refused upload that are still read, so that its sender gets to see the answer."""
FILENAME_CHARS_MAX = 255
_HEADERS_MAX = 8
_EXPIRY = re.compile(r"expires_after\[(\w{1,40})\]")
_NAMES = ("file", "purpose", "expires_after[anchor]", "expires_after[seconds]")


@dataclass(frozen=True, slots=True)
class Upload:
    """What came with the file."""

    filename: str
    """For display only."""
    expires_after_s: int | None
    """Seconds that the file lives; None = for ever."""


@dataclass(slots=True)
class _Part:
    headers: dict[bytes, bytes] = field(default_factory=dict[bytes, bytes])
    name: str = ""
    is_file: bool = False
    value: bytearray = field(default_factory=bytearray)


class _Form:
    """Follows the parser; gathers the file's bytes until they are taken, and the fields."""

    def __init__(self) -> None:
        self.fields: dict[str, str] = {}
        self.filename: str | None = None
        self.waiting = bytearray()
        self.ended = False
        self._part = _Part()
        self._header = bytearray(), bytearray()

    def on_part_begin(self) -> None:
        self._part = _Part()

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header[0].extend(data[start:end])

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header[1].extend(data[start:end])

    def on_header_end(self) -> None:
        self._part.headers[bytes(self._header[0]).lower()] = bytes(self._header[1])
        self._header = bytearray(), bytearray()

    def on_headers_finished(self) -> None:
        _kind, options = parse_options_header(self._part.headers.get(b"content-disposition", b""))
        self._part.name = options.get(b"name", b"").decode("utf-8", "replace")[:100]
        self._part.is_file = self._part.name == "file"
        if not self._part.is_file:
            if self._part.name not in _NAMES:
                raise InvalidRequest(
                    f"{self._part.name!r} is not a field of an upload: send {', '.join(_NAMES)}", param=self._part.name
                )
            return
        if self.filename is not None:
            raise InvalidRequest("the body holds more than one file: upload them one by one", param="file")
        self.filename = options.get(b"filename", b"").decode("utf-8", "replace")

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._part.is_file:
            self.waiting += data[start:end]
            return
        self._part.value += data[start:end]
        if len(self._part.value) > FIELD_BYTES_MAX:
            raise InvalidRequest(f"{self._part.name}: it is longer than {FIELD_BYTES_MAX} bytes", param=self._part.name)

    def on_part_end(self) -> None:
        if not self._part.is_file:
            self.fields[self._part.name] = bytes(self._part.value).decode("utf-8", "replace")

    def on_end(self) -> None:
        self.ended = True


async def receive(request: Request, content: NewContent, *, bytes_max: int, room: int | None) -> Upload:
    """Read the body, the file's bytes into `content`. Raises InvalidRequest, HTTPException 413, LimitReached, StoreFull.

    `bytes_max`: size of the file at most; `room`: bytes that its owner may still store, None = no limit.
    """
    pieces = request.stream()
    try:
        return await _receive(request, pieces, content, bytes_max=bytes_max, room=room)
    except (InvalidRequest, LimitReached, HTTPException) as exc:
        if getattr(exc, "status_code", None) != 408:  # its sender has stopped sending
            await _drain(pieces)
        raise
    except ClientDisconnect as exc:
        raise InvalidRequest("the upload was broken off") from exc


async def _receive(
    request: Request, pieces: AsyncIterator[bytes], content: NewContent, *, bytes_max: int, room: int | None
) -> Upload:
    form = _Form()
    parser = MultipartParser(_boundary(request), _callbacks(form), max_header_count=_HEADERS_MAX)
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and len(declared) < 20 and int(declared) > bytes_max + FORM_BYTES_MAX:
        raise too_large(bytes_max)
    total = 0
    try:
        async for piece in pieces:
            parser.write(piece)
            total += len(piece)
            size = content.size + len(form.waiting)
            if size > bytes_max or total - size > FORM_BYTES_MAX:
                raise too_large(bytes_max)
            if room is not None and size > room:
                raise no_room(room)
            if len(form.waiting) >= WRITE_BYTES:
                await _write(content, form)
        parser.finalize()
    except FormParserError as exc:
        raise InvalidRequest(f"the body is not well-formed multipart/form-data: {exc}") from exc
    if not form.ended:
        raise InvalidRequest("the body ends too early: it is not well-formed multipart/form-data")
    await _write(content, form)
    return _understand(form)


def too_large(bytes_max: int) -> HTTPException:
    """Return the error of a file above the limit."""
    return HTTPException(
        413,
        f"the file is larger than {bytes_max:,} bytes, which is the most that is taken: split it into several files "
        "(K2THINK_GATEWAY__FILE_BYTES_MAX sets the limit)",
    )


def clean_filename(name: str) -> str:
    """Return the last part of the name without what could mislead whoever sees it: control and format characters."""
    last = re.split(r"[/\\]", name)[-1]
    visible = "".join(char for char in last if unicodedata.category(char)[0] != "C")
    return visible.strip()[:FILENAME_CHARS_MAX] or "upload.jsonl"


def _understand(form: _Form) -> Upload:
    if form.filename is None:
        raise InvalidRequest("the body holds no file: send it as the field `file`", param="file")
    purpose = form.fields.get("purpose")
    if purpose is None:
        raise InvalidRequest("the field `purpose` is missing: send purpose=batch", param="purpose")
    if purpose != FilePurpose.batch:
        raise InvalidRequest(f"purpose: {purpose[:64]!r} is not supported: only batch is", param="purpose")
    return Upload(clean_filename(form.filename), _expiry(form.fields))


def _expiry(fields: Mapping[str, str]) -> int | None:
    given = {found[1]: value for name, value in fields.items() if (found := _EXPIRY.fullmatch(name))}
    if not given:
        return None
    try:
        return ExpiresAfter.model_validate(given).seconds
    except ValidationError as exc:
        raise InvalidRequest(f"expires_after: {explain(exc)}", param="expires_after") from exc


def _boundary(request: Request) -> bytes:
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    boundary = options.get(b"boundary", b"")
    if kind != b"multipart/form-data" or not 1 <= len(boundary) <= 70:
        raise InvalidRequest("the body must be multipart/form-data with a boundary, holding `file` and `purpose`")
    return boundary


def _callbacks(form: _Form) -> "MultipartCallbacks":
    return {
        "on_part_begin": form.on_part_begin,
        "on_header_field": form.on_header_field,
        "on_header_value": form.on_header_value,
        "on_header_end": form.on_header_end,
        "on_headers_finished": form.on_headers_finished,
        "on_part_data": form.on_part_data,
        "on_part_end": form.on_part_end,
        "on_end": form.on_end,
    }


async def _write(content: NewContent, form: _Form) -> None:
    data, form.waiting = bytes(form.waiting), bytearray()
    await write_content(content, data)


async def write_content(content: NewContent, data: bytes) -> None:
    """Append outside the event loop. Raises StoreFull."""
    try:
        await asyncio.to_thread(content.write, data)
    except OSError as exc:
        raise disk_error(exc) from exc


def disk_error(exc: OSError) -> StoreFull:
    """Return our error for one of the files folder, without its path."""
    return StoreFull(f"the file cannot be stored ({os.strerror(exc.errno or 5)}): see the space of the files folder")


async def _drain(pieces: AsyncIterator[bytes]) -> None:
    seen = 0
    with contextlib.suppress(ClientDisconnect):
        async for piece in pieces:
            seen += len(piece)
            if seen > DRAIN_BYTES_MAX:
                return


__all__ = ["Upload", "clean_filename", "disk_error", "receive", "too_large", "write_content"]
