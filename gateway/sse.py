"""Server-sent events: https://html.spec.whatwg.org/multipage/server-sent-events.html"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator

from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from ..workers.ending import end_tasks

KEEPALIVE = b": keepalive\n\n"
_END = object()


def sse(data: str, *, event: str | None = None, id: int | str | None = None) -> bytes:
    """Return one event. `data` is JSON on one line."""
    head = "" if id is None else f"id: {id}\n"
    head += "" if event is None else f"event: {event}\n"
    return f"{head}data: {data}\n\n".encode()


class EventStream(StreamingResponse):
    """An answer of server-sent events, with comments where there is silence, so that nothing on the way closes it.

    However it ends (exhausted, the client left, the process stops), source and resources are closed before it is over.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        source: AsyncGenerator[bytes],
        *,
        keepalive_s: float,
        resources: contextlib.AsyncExitStack | None = None,
        status_code: int = 200,  # FastAPI reads the status for the OpenAPI document from here
    ) -> None:
        """`keepalive_s` is the silence after which a comment is sent, in seconds; `resources` are closed before the source."""
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        self._source = source
        self._keepalive_s = keepalive_s
        self._resources = resources
        self._upcoming: asyncio.Task[object] | None = None
        super().__init__(self._kept_alive(), status_code, headers=headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send everything, then close, also when sending was broken off."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            # Here, where nothing that is awaited is cancelled any more; a generator that never began has no `finally`.
            # The resources first: a job that nobody waits for is cancelled at once, however long its watchers take.
            if self._resources is not None:
                await self._resources.aclose()
            if self._upcoming is not None:
                await end_tasks(self._upcoming)
            await self._source.aclose()

    async def _kept_alive(self) -> AsyncGenerator[bytes]:
        while True:
            if self._upcoming is None:
                self._upcoming = asyncio.ensure_future(_next(self._source))
            done, _pending = await asyncio.wait((self._upcoming,), timeout=self._keepalive_s)
            if not done:
                yield KEEPALIVE
                continue
            piece, self._upcoming = self._upcoming.result(), None
            if piece is _END:
                return
            yield piece  # pyright: ignore[reportReturnType]


async def _next(source: AsyncIterator[bytes]) -> object:
    return await anext(source, _END)
