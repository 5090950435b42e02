"""What is read of a request's body: at most so many bytes, within a time, and JSON that nothing behind it chokes on.

An uploaded file is not read here: it goes to the disk piece by piece, with a limit of its own.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from typing import Any, cast

from pydantic_core import from_json
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..schemas.errors import InvalidRequest, K2ThinkError
from .errors import answer_of, error_object

JSON_VALUES_MAX = 100_000
"""Objects, lists, and what is in them. (Deeper than 200 inside each other they are refused by the parser.)"""
READ_TIMEOUT_S = 60.0
"""Seconds from the headers to the end of the body."""
IDLE_TIMEOUT_S = 30.0
"""Seconds between two pieces of an uploaded file."""
UPLOADS = frozenset({("POST", "/v1/files")})
"""Requests whose body is streamed to the disk."""
_BODILESS = frozenset({"GET", "HEAD", "OPTIONS"})
_FORMS = ("multipart/form-data", "application/x-www-form-urlencoded")
_MORE = (b"[", b"{", b",")
"""Each of these stands before one more value, where it does not stand in a text."""
_TEXT_OR_MORE = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[\[{,]', re.DOTALL)


class BodyLimits:
    """Middleware that reads the body and hands it on whole, or answers at once."""

    def __init__(self, app: ASGIApp, *, bytes_max: int) -> None:
        """`bytes_max`: of a body that is not an uploaded file."""
        self._app = app
        self._bytes_max = bytes_max

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with its body, or answer with what is wrong."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if (scope["method"], scope["path"]) in UPLOADS:
            await self._app(scope, _Punctual(receive), send)
            return
        headers = Headers(scope=scope)
        try:
            async with asyncio.timeout(READ_TIMEOUT_S):
                body = await self._read(headers, receive)
            kind = headers.get("content-type", "").partition(";")[0].strip().lower()
            if body and scope["method"] not in _BODILESS and kind not in _FORMS:
                check_json(body)
        except TimeoutError:
            await _refuse(scope, receive, send, 408, "the body did not come in time", "request_timeout")
        except _TooLong:
            text = f"the body has more than {self._bytes_max:,} bytes (K2THINK_GATEWAY__BODY_BYTES_MAX sets the limit)"
            await _refuse(scope, receive, send, 413, text, "body_too_large")
        except ClientDisconnect:
            return
        except K2ThinkError as exc:
            status, content, more = answer_of(exc)
            await JSONResponse(content, status, more)(scope, receive, send)
        else:
            await self._app(scope, _Replay(body, receive), send)

    async def _read(self, headers: Mapping[str, str], receive: Receive) -> bytes:
        told = headers.get("content-length", "")
        if told.isdecimal() and int(told[:20]) > self._bytes_max:
            raise _TooLong
        pieces: list[bytes] = []
        size = 0
        async for piece in _pieces(receive):
            size += len(piece)
            if size > self._bytes_max:
                raise _TooLong
            pieces.append(piece)
        return b"".join(pieces)


def check_json(body: bytes) -> None:
    """Raise InvalidRequest for what is not JSON, is nested too deeply, holds too much, or text that cannot be kept.

    Objects that name a field twice are left alone (the last one counts), as everywhere.
    """
    _check_size(body)
    try:
        value = from_json(body, allow_inf_nan=False)
    except ValueError as exc:
        # Its words name a place and never the content.
        raise InvalidRequest(f"the body is not valid JSON: {str(exc)[:200]}") from exc
    if b"\\u0000" in body and _holds_nul(value):
        raise InvalidRequest("the body holds the character U+0000, which no text of this service can have")


class _TooLong(Exception):
    pass


class _Replay:
    """Gives the application the body in one piece, then what comes after it: the client's leaving."""

    def __init__(self, body: bytes, receive: Receive) -> None:
        self._body: bytes | None = body
        self._receive = receive

    async def __call__(self) -> Message:
        if self._body is None:
            return await self._receive()
        body, self._body = self._body, None
        return {"type": "http.request", "body": body, "more_body": False}


class _Punctual:
    """Hands on the pieces of a body, each of which must come in time."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._more = True

    async def __call__(self) -> Message:
        if not self._more:
            return await self._receive()
        try:
            async with asyncio.timeout(IDLE_TIMEOUT_S):
                message = await self._receive()
        except TimeoutError:
            raise HTTPException(408, "the rest of the body did not come in time", {"Connection": "close"}) from None
        self._more = bool(message.get("more_body", False))
        return message


async def _pieces(receive: Receive) -> AsyncIterator[bytes]:
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        yield message.get("body", b"")
        if not message.get("more_body", False):
            return


async def _refuse(scope: Scope, receive: Receive, send: Send, status: int, text: str, code: str) -> None:
    """Answer before the body was read to its end: the connection is of no further use."""
    content = error_object(text, "invalid_request_error", code=code)
    await JSONResponse(content, status, {"Connection": "close"})(scope, receive, send)


def _check_size(body: bytes) -> None:
    if sum(body.count(mark) for mark in _MORE) <= JSON_VALUES_MAX:
        return
    count = 0
    for seen, found in enumerate(_TEXT_OR_MORE.finditer(body)):
        count += found[0] in _MORE
        # A value has at most two texts, itself and its name: what holds more of them is no JSON.
        if count > JSON_VALUES_MAX or seen > 3 * JSON_VALUES_MAX:
            raise InvalidRequest(f"the body holds more than {JSON_VALUES_MAX:,} values")


def _holds_nul(value: Any) -> bool:
    if isinstance(value, str):
        return "\0" in value
    if isinstance(value, dict):
        items = cast(dict[str, Any], value).items()
        return any("\0" in name or _holds_nul(item) for name, item in items)
    return isinstance(value, list) and any(_holds_nul(item) for item in cast(list[Any], value))
