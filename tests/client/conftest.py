"""Both clients in one form, so that every test is run with each."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from typing import Any, TypeVar

import httpx
import pytest
from harness.live import LiveGateway, live_gateway
from k2think import AsyncClient, Client

__all__ = ["live_gateway"]

T = TypeVar("T")


class Waited:
    """An AsyncClient whose methods are waited for in an event loop of its own, so that a test may call them as Client's."""

    def __init__(self, make: Callable[[], AsyncClient]) -> None:
        self._runner = asyncio.Runner()
        try:
            self._client = self._runner.run(_called(make))
        except BaseException:
            self._runner.close()
            raise

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)

        def waited(*args: Any, **options: Any) -> Any:
            found = method(*args, **options)
            return self._iterated(found) if inspect.isasyncgen(found) else self._runner.run(found)

        return waited

    def _iterated(self, items: AsyncIterator[T]) -> Iterator[T]:
        async def following() -> tuple[T] | None:
            try:
                return (await anext(items),)
            except StopAsyncIteration:
                return None

        try:
            while (found := self._runner.run(following())) is not None:
                yield found[0]
        finally:
            self._runner.run(items.aclose())  # type: ignore[attr-defined]

    def close(self, http: httpx.AsyncClient | None) -> None:
        """Close the client, what it was given, and its loop."""
        try:
            self._runner.run(self._client.aclose())
            if http is not None:
                self._runner.run(http.aclose())
        finally:
            self._runner.close()


async def _called(make: Callable[[], T]) -> T:
    return make()


Clients = Callable[..., Any]
"""Makes a client: (url, transport=…, **options)."""


@pytest.fixture(params=["sync", "async"])
def clients(request: pytest.FixtureRequest) -> Iterator[Clients]:
    """Makes clients of one of the two kinds; they are closed with the test. Their methods are called as Client's."""
    with ExitStack() as open_clients:

        def make(url: str, *, transport: Any = None, **options: Any) -> Any:
            if request.param == "sync":
                if transport is not None:
                    options["http"] = open_clients.enter_context(httpx.Client(transport=transport))
                return open_clients.enter_context(Client(url, **options))
            http = None if transport is None else httpx.AsyncClient(transport=transport)
            waited = Waited(lambda: AsyncClient(url, http=http, **options))
            open_clients.callback(waited.close, http)
            return waited

        yield make


@pytest.fixture
def client(clients: Clients, live_gateway: LiveGateway) -> Any:
    """A client of the stack that all tests share."""
    return clients(live_gateway.url)
