"""Server-sent events: https://html.spec.whatwg.org/multipage/server-sent-events.html"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator

from fastapi.responses import StreamingResponse

KEEPALIVE = b": keepalive\n\n"
_END = object()


def sse(data: str, *, event: str | None = None, id: int | str | None = None) -> bytes:
    """Return one event. `data` is JSON on one line."""
    head = "" if id is None else f"id: {id}\n"
    head += "" if event is None else f"event: {event}\n"
    return f"{head}data: {data}\n\n".encode()


class EventStream(StreamingResponse):
    """An answer of server-sent events, with comments where there is silence, so that nothing on the way closes it.

    However it ends (exhausted, the client left, the process stops), the source is closed before the response is over.
    """

    media_type = "text/event-stream"

    def __init__(self, source: AsyncGenerator[bytes], *, keepalive_s: float) -> None:
        """`keepalive_s` is the silence after which a comment is sent, in seconds."""
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(_kept_alive(source, keepalive_s), headers=headers)

    async def stream_response(self, send) -> None:  # pyright: ignore[reportMissingParameterType, reportUnknownParameterType]
        """Send everything, then close the source, also when sending was broken off."""
        source = self.body_iterator
        async with contextlib.aclosing(source):  # pyright: ignore[reportArgumentType]
            await super().stream_response(send)


async def _kept_alive(source: AsyncGenerator[bytes], keepalive_s: float) -> AsyncGenerator[bytes]:
    upcoming: asyncio.Task[object] | None = None
    try:
        while True:
            if upcoming is None:
                upcoming = asyncio.ensure_future(_next(source))
            done, _pending = await asyncio.wait((upcoming,), timeout=keepalive_s)
            if not done:
                yield KEEPALIVE
                continue
            piece, upcoming = upcoming.result(), None
            if piece is _END:
                return
            yield piece  # pyright: ignore[reportReturnType]
    finally:
        if upcoming is not None:
            upcoming.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await upcoming
        await source.aclose()


async def _next(source: AsyncIterator[bytes]) -> object:
    return await anext(source, _END)
