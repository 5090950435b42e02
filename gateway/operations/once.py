"""Asking the same thing for many at once: one question under way, and its answer kept for a moment."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class AskedOnce(Generic[T]):
    """Whoever asks gets an answer that is at most `max_age_s` old. However many ask, the question is put once at a time.

    So a database that hangs holds one question of all probes and scrapes, not one more every few seconds.
    """

    def __init__(self, ask: Callable[[], Awaitable[T]], *, max_age_s: float) -> None:
        self._ask = ask
        self._max_age_s = max_age_s
        self._asked: asyncio.Future[T] | None = None
        self._answered_at = 0.0

    async def get(self, *, timeout_s: float) -> T:
        """Return the answer. Raises TimeoutError when there is none in time, and whatever the question raised."""
        asked = self._asked
        if asked is None or (asked.done() and time.monotonic() - self._answered_at > self._max_age_s):
            asked = self._asked = asyncio.ensure_future(self._ask())
            asked.add_done_callback(self._note)
        return await asyncio.wait_for(asyncio.shield(asked), timeout_s)

    def _note(self, asked: "asyncio.Future[T]") -> None:
        self._answered_at = time.monotonic()
        if not asked.cancelled():
            asked.exception()  # seen, also when everyone who waited has gone
