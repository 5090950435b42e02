"""The client for asyncio."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

from ..schemas.errors import GatewayUnreachable
from .batches import Batches
from .exchange import DEFAULT_URL, PATIENCE_S, TIMEOUT_S, Exchange
from .failures import unreachable
from .flow import Answer, Call, Do, Effect, Emit, Flow, Items, Open, Pause, Read, Send, emitted
from .jobs import Jobs
from .links import options, request_of

T = TypeVar("T")


class AsyncClient(Jobs, Batches):
    """As `Client`, for one event loop: each method is a coroutine, each iteration an asynchronous one.

    `async with AsyncClient() as client: …` closes its connections; `await client.aclose()` does so, too. Leave an
    iteration early inside `contextlib.aclosing`, so that its connection is closed then and not later.
    """

    def __init__(
        self,
        base_url: str = DEFAULT_URL,
        *,
        api_key: str | None = None,
        timeout_s: float = TIMEOUT_S,
        patience_s: float = PATIENCE_S,
        http: httpx.AsyncClient | None = None,
    ) -> None:
        """As for `Client`; `http` is an httpx.AsyncClient."""
        super().__init__(base_url, api_key, timeout_s, patience_s)
        self._own = http is None
        self._http = httpx.AsyncClient(**options(self)) if http is None else http

    async def aclose(self) -> None:
        """Close the connections."""
        if self._own:
            await self._http.aclose()

    async def __aenter__(self) -> Self:
        """Return itself."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the connections."""
        await self.aclose()

    async def run(self, flow: Flow[T], /) -> T:
        """Return a flow's result."""
        async with contextlib.aclosing(self.iterate(emitted(flow))) as results:
            return await anext(results)

    async def iterate(self, items: Items[T], /) -> AsyncGenerator[T, None]:
        """Yield what a flow hands out."""
        link = _Link(self._http, self)
        value: Any = None
        failure: GatewayUnreachable | None = None
        try:
            while True:
                try:
                    effect = items.send(value) if failure is None else items.throw(failure)
                except StopIteration:
                    return
                value, failure = None, None
                if isinstance(effect, Emit):
                    yield effect.item
                    continue
                try:
                    value = await link.perform(effect)
                except GatewayUnreachable as exc:
                    failure = exc
        finally:
            items.close()
            await link.close()


class _Link:
    """Performs the wishes of one flow."""

    def __init__(self, http: httpx.AsyncClient, exchange: Exchange) -> None:
        self._http = http
        self._exchange = exchange
        self._stream: httpx.Response | None = None
        self._pieces: AsyncIterator[bytes] | None = None

    async def perform(self, effect: Effect) -> Any:
        """Return what the flow is sent. Raises GatewayUnreachable."""
        try:
            match effect:
                case Pause(seconds):
                    return await asyncio.sleep(seconds)
                case Do(work):
                    return await asyncio.to_thread(work)
                case Read():
                    return b"" if self._pieces is None else await anext(self._pieces, b"")
                case Send(call):
                    return await self._answer(call, stream=False)
                case Open(call):
                    return await self._answer(call, stream=True)
        except (httpx.TransportError, httpx.DecodingError) as exc:
            raise unreachable(exc, self._exchange.base_url) from exc

    async def _answer(self, call: Call, *, stream: bool) -> Answer:
        if stream:
            await self.close()
        with request_of(self._http, self._exchange, call) as request:
            response = await self._http.send(request, stream=stream, follow_redirects=False)
        if not stream:
            return Answer(response.status_code, response.headers, response.content)
        self._stream = response
        if response.is_success:
            self._pieces = response.aiter_bytes()
            return Answer(response.status_code, response.headers, b"")
        content = await response.aread()
        return Answer(response.status_code, response.headers, content)

    async def close(self) -> None:
        """Close the stream."""
        if self._stream is not None:
            await self._stream.aclose()
            self._stream, self._pieces = None, None
