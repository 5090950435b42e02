"""The JSON payloads of one aiohttp response, streamed or plain, under its timeouts and size limits."""

import asyncio
import json
from collections import deque
from collections.abc import Iterator
from typing import Any, cast

import aiohttp

from ...schemas.backend_settings import BackendSettings
from ...schemas.errors import MalformedResponse, Stalled, StreamBroken
from .errors import Origin
from .sse import SseDecoder, SseEvent

ERROR_BYTES_MAX = 65_536
REPLY_BYTES_MAX = 67_108_864
DRAIN_S = 0.2
"""Seconds that the end of a response may take before its connection is given up instead of reused."""

LUMP_S = 1.0
LUMP_BYTES = 262_144
"""Longest time for which, and most bytes that, a stream is kept unread while nobody watches it."""

PAUSE_SHARE = 0.02
PAUSE_MAX_S = 0.05
"""How long an unwatched stream is left alone after each piece: this share of the time that it has taken so far, but no
longer. Receiving a token by itself costs a hundred times its parsing; but the end of a stream is noticed later by half a
pause, and that is throughput lost."""

_DONE = "[DONE]"
_DONE_BYTES = _DONE.encode()


class Payloads:
    """The JSON payloads of one response, under its timeouts."""

    def __init__(
        self,
        response: aiohttp.ClientResponse,
        *,
        settings: BackendSettings,
        due: float,
        origin: Origin,
        watched: bool = True,
    ) -> None:
        """`watched`: off = after the first token, bytes are kept and read many pieces at a time."""
        self.done = False
        """Whether the server said that the completion is complete."""
        self._response = response
        self._settings = settings
        self._origin = origin
        self._due = due
        self._idle_s: float | None = None
        self._decoder = SseDecoder()
        self._events: deque[SseEvent] = deque()
        self._ended = False
        self._watched = watched
        self._pieces: list[bytes] = []
        """What came and is not decoded yet."""
        self._failure: StreamBroken | Stalled | None = None
        """How the stream ended after what is at hand; None = not yet."""
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()

    @property
    def at_hand(self) -> bool:
        """Whether the next payload is there without waiting."""
        return bool(self._events)

    def token_came(self) -> None:
        """Start the timers that run between tokens."""
        self._idle_s = self._settings.idle_timeout_s
        self._due = self._loop.time() + max(self._settings.first_token_timeout_s, self._idle_s)

    def give(self, raw: bytes) -> None:
        """Treat a plain reply as the only payload."""
        self._events.append(SseEvent("", raw.decode("utf-8", errors="replace")))
        self._ended = True

    async def next(self) -> Any:
        """Return the next payload, None at the end. Raises StreamBroken, Stalled, MalformedResponse."""
        plain = self._ended
        while not self._events and not self._ended:
            piece = await (self._read() if self._watched or self._idle_s is None else self._gather())
            self._events.extend(self._decoder.feed(piece) if piece else self._decoder.flush())
            self._ended = not piece
        if not self._events:
            return None
        return self._payload(self._events.popleft(), plain=plain)

    def left(self) -> Iterator[Any]:
        """Yield the payloads of what has come, without waiting for more. Raises MalformedResponse."""
        self._events.extend(self._decoder.feed(b"".join(self._pieces)))
        self._pieces.clear()
        while self._events and not self.done:
            payload = self._payload(self._events.popleft(), plain=False)
            if payload is not None:
                yield payload

    def _payload(self, event: SseEvent, *, plain: bool) -> Any:
        if event.data.strip() == _DONE:
            self.done = True
            self._events.clear()
            return None
        try:
            payload = json.loads(event.data)
        except (ValueError, RecursionError) as exc:
            raise MalformedResponse(self._origin.say(f"sent something that is no JSON: {event.data[:80]!r}")) from exc
        self.done = self.done or plain
        if event.event == "error" and isinstance(payload, dict) and "error" not in payload:
            return {"error": cast(object, payload)}
        return payload

    async def drained(self) -> bool:
        """Read the few bytes that end the response, so that its connection can serve the next call; tell whether it can."""
        try:
            async with asyncio.timeout(DRAIN_S):
                while await self._response.content.readany():
                    pass
        except (aiohttp.ClientError, OSError, RuntimeError):
            return False
        return True

    async def whole(self, limit_bytes: int, *, cut: bool = False) -> bytes:
        """Return the whole body; a longer one is cut or refused."""
        async with self._deadline():
            return await read_limited(self._response, limit_bytes, origin=self._origin, cut=cut)

    async def _read(self) -> bytes:
        async with self._deadline():
            return await self._response.content.readany()

    async def _gather(self) -> bytes:
        """Return what comes until the end of the stream, but not more than a lump. A failure is told after what came."""
        if self._failure is not None:
            raise self._failure
        # Whether tokens come is known when the lump is read: so it is read well before their time-out.
        until = self._loop.time() + min(LUMP_S, (self._due - self._loop.time()) / 2)
        size = 0
        try:
            async with self._deadline() as deadline:
                while piece := await self._response.content.readany():
                    self._pieces.append(piece)
                    size += len(piece)
                    if _DONE_BYTES in piece or size > LUMP_BYTES or self._loop.time() >= until:
                        break
                    await self._pause()
                    deadline.move(self._next_due())
        except (StreamBroken, Stalled) as exc:
            if not self._pieces:
                raise
            self._failure = exc
        lump = b"".join(self._pieces)
        self._pieces.clear()
        return lump

    async def _pause(self) -> None:
        """Let the next pieces gather in the kernel's buffer."""
        connection = self._response.connection
        transport = None if connection is None else connection.transport
        if transport is None or not transport.is_reading():
            return
        transport.pause_reading()
        try:
            await asyncio.sleep(min(PAUSE_MAX_S, PAUSE_SHARE * (self._loop.time() - self._began)))
        finally:
            transport.resume_reading()

    def _next_due(self) -> float:
        return self._due if self._idle_s is None else min(self._due, self._loop.time() + self._idle_s)

    def _deadline(self) -> "_Deadline":
        waited = "without a first token" if self._idle_s is None else "between two pieces of the stream"
        return _Deadline(self._next_due(), waited=waited, origin=self._origin)


class _Deadline:
    """A read that must be over by `due` (the loop's time in seconds), its failures mapped."""

    def __init__(self, due: float, *, waited: str, origin: Origin) -> None:
        self._timeout = asyncio.timeout_at(due)
        self._due = due
        self._waited = waited
        self._origin = origin

    async def __aenter__(self) -> "_Deadline":
        self._began = asyncio.get_running_loop().time()
        await self._timeout.__aenter__()
        return self

    def move(self, due: float) -> None:
        """Something came: the next piece must come by `due`."""
        self._began = asyncio.get_running_loop().time()
        self._timeout.reschedule(due)

    async def __aexit__(self, kind: type[BaseException] | None, exc: BaseException | None, trace: Any) -> None:
        try:
            await self._timeout.__aexit__(kind, exc, trace)
        except TimeoutError as expired:
            passed = asyncio.get_running_loop().time() - self._began
            raise Stalled(self._origin.say(f"silent for {passed:.1f} s {self._waited}")) from expired
        # aiohttp reports some closed connections as a bare RuntimeError.
        if isinstance(exc, aiohttp.ClientError | OSError | RuntimeError):
            raise StreamBroken(self._origin.say(f"the connection broke ({reason(exc)})")) from exc


async def read_limited(
    response: aiohttp.ClientResponse, limit_bytes: int, *, origin: Origin, cut: bool = False
) -> bytes:
    pieces: list[bytes] = []
    left = limit_bytes
    while left > 0 and (piece := await response.content.read(left)):
        pieces.append(piece)
        left -= len(piece)
    if left <= 0 and not cut and not response.content.at_eof():
        raise MalformedResponse(origin.say(f"sent more than {limit_bytes:,} bytes"))
    return b"".join(pieces)


def reason(exc: BaseException) -> str:
    """Return what an exception says, or its name when it says nothing."""
    return str(exc) or type(exc).__name__
