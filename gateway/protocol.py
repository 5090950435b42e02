"""HTTP/1.1 on the wire: uvicorn's h11 protocol, and a deadline for the head of each request.

h11 rather than httptools: it bounds the size of a request's head; httptools takes one of any size.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_BYTES_MAX = 64 * 1024
"""Request line and headers together."""
HEAD_TIMEOUT_S = 10.0
"""Seconds from a connection, or from the first byte of a further request on it, to the end of the request's headers."""


class PunctualProtocol(H11Protocol):
    """Closes connections whose client does not come to the point: they would fill the process's table of files."""

    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The head of the first request is due."""
        super().connection_made(transport)
        self._wait_for_head()

    def data_received(self, data: bytes) -> None:
        """Take what came, and see whether a head is still on its way."""
        super().data_received(data)
        if self.conn.their_state is h11.IDLE and not self.transport.is_closing():
            if self._late is None:
                self._wait_for_head()
        else:
            self._stop_waiting()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is due any more."""
        self._stop_waiting()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        """Between two requests uvicorn's own keep-alive deadline holds."""
        self._stop_waiting()
        super().on_response_complete()

    def _wait_for_head(self) -> None:
        close: Callable[[], Any] = self.transport.close
        self._late = self.loop.call_later(HEAD_TIMEOUT_S, close)

    def _stop_waiting(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None
