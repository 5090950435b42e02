"""Waiting out the loss of a service: try again with back-off, and say so once, not a thousand times."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from functools import cache
from typing import TypeVar

import structlog

from ..schemas.errors import BrokerUnavailable, StoreFull, StoreUnavailable

DATABASE = "database"
REDIS = "redis"
REPLIES = "result backend"
WAIT_FIRST_S = 0.1
WAIT_MAX_S = 2.0
BACK_AFTER_S = 8.0
"""A service counts as back when nobody has missed it for so long. One that does half of what it should, such as a Redis
that only reads, fails some callers and serves others: they shall not take turns in the log."""
T = TypeVar("T")
log = structlog.stdlib.get_logger(__name__)


class Outage:
    """Keeps one service's state, so that its loss and its return are each logged once per process (see `outage_of`)."""

    def __init__(self, service: str) -> None:
        self.service = service
        self._lost = False
        self._since = self._last = 0.0

    def lost(self, reason: BaseException) -> None:
        """Note that a call failed."""
        self._last = time.monotonic()
        if not self._lost:
            self._lost, self._since = True, self._last
            hint = "waiting; work goes on by itself when it is back"
            log.warning("service_unavailable", service=self.service, reason=str(reason), hint=hint)

    def back(self) -> None:
        """Note that a call succeeded."""
        if self._lost and time.monotonic() - self._last >= BACK_AFTER_S:
            self._lost = False
            log.info("service_back", service=self.service, away_s=round(self._last - self._since, 1))


@cache
def outage_of(service: str) -> Outage:
    """Return the one state of a service that all parts of this process share."""
    return Outage(service)


async def patiently(outage: Outage, call: Callable[[], Awaitable[T]]) -> T:
    """Await `call()` until it does not fail for want of its service; every other error passes at once."""
    wait_s = WAIT_FIRST_S
    while True:
        try:
            result = await call()
        except (StoreUnavailable, StoreFull, BrokerUnavailable) as exc:
            outage.lost(exc)
            await asyncio.sleep(wait_s * random.uniform(0.5, 1.0))
            wait_s = min(2 * wait_s, WAIT_MAX_S)
        else:
            outage.back()
            return result
