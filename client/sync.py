"""The client that waits in the caller's thread."""

import contextlib
import time
from collections.abc import Generator, Iterator
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


class Client(Jobs, Batches):
    """A client of a k2think gateway. Threads may share one.

    `with Client() as client: …` closes its connections; `client.close()` does so, too.
    """

    def __init__(
        self,
        base_url: str = DEFAULT_URL,
        *,
        api_key: str | None = None,
        timeout_s: float = TIMEOUT_S,
        patience_s: float = PATIENCE_S,
        http: httpx.Client | None = None,
    ) -> None:
        """`base_url`: root of the gateway. `api_key`: one of `k2think keys create`; None = none is needed there.

        `timeout_s`: seconds of silence after which an answer is given up. `patience_s`: seconds that a call is tried
        again which can be repeated without harm, while the gateway is away or says "later" (429, 503); 0 = never.
        `http`: an httpx client of your own, for proxies, certificates or another transport; it stays yours to close.
        Raises ConfigurationError.
        """
        super().__init__(base_url, api_key, timeout_s, patience_s)
        self._own = http is None
        self._http = httpx.Client(**options(self)) if http is None else http

    def close(self) -> None:
        """Close the connections."""
        if self._own:
            self._http.close()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the connections."""
        self.close()

    def run(self, flow: Flow[T], /) -> T:
        """Return a flow's result."""
        with contextlib.closing(self.iterate(emitted(flow))) as results:
            return next(results)

    def iterate(self, items: Items[T], /) -> Generator[T, None, None]:
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
                    value = link.perform(effect)
                except GatewayUnreachable as exc:
                    failure = exc
        finally:
            items.close()
            link.close()


class _Link:
    """Performs the wishes of one flow."""

    def __init__(self, http: httpx.Client, exchange: Exchange) -> None:
        self._http = http
        self._exchange = exchange
        self._stream: httpx.Response | None = None
        self._pieces: Iterator[bytes] = iter(())

    def perform(self, effect: Effect) -> Any:
        """Return what the flow is sent. Raises GatewayUnreachable."""
        try:
            match effect:
                case Pause(seconds):
                    return time.sleep(seconds)
                case Do(work):
                    return work()
                case Read():
                    return next(self._pieces, b"")
                case Send(call):
                    return self._answer(call, stream=False)
                case Open(call):
                    return self._answer(call, stream=True)
        except (httpx.TransportError, httpx.DecodingError) as exc:
            raise unreachable(exc, self._exchange.base_url) from exc

    def _answer(self, call: Call, *, stream: bool) -> Answer:
        if stream:
            self.close()
        with request_of(self._http, self._exchange, call) as request:
            response = self._http.send(request, stream=stream, follow_redirects=False)
        if not stream:
            return Answer(response.status_code, response.headers, response.content)
        self._stream = response
        if response.is_success:
            self._pieces = response.iter_bytes()
            return Answer(response.status_code, response.headers, b"")
        content = response.read()
        return Answer(response.status_code, response.headers, content)

    def close(self) -> None:
        """Close the stream."""
        if self._stream is not None:
            self._stream.close()
            self._stream, self._pieces = None, iter(())
