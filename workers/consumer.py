"""Celery's consumer with one change: it reconnects within a second and says so once, not at every try."""

from typing import Any

import structlog
from celery.worker.consumer import Consumer as CeleryConsumer
from celery.worker.state import maybe_shutdown

from .outage import REDIS, outage_of

RECONNECT_STEP_S = 0.2
RECONNECT_MAX_S = 1.0
log = structlog.stdlib.get_logger(__name__)


class Consumer(CeleryConsumer):
    """`worker_consumer=k2think.workers.consumer:Consumer`."""

    def ensure_connected(self, conn: Any) -> Any:
        """Wait for Redis as long as it takes; Celery's own way waits up to 30 s between tries and logs each one."""
        outage = outage_of(REDIS)

        def on_error(exc: BaseException, interval: float) -> None:
            outage.lost(exc)

        connected = conn.ensure_connection(
            on_error,
            None,
            RECONNECT_STEP_S,
            RECONNECT_STEP_S,
            RECONNECT_MAX_S,
            callback=maybe_shutdown,
        )
        outage.back()
        self.first_connection_attempt = False
        return connected

    def on_connection_error_before_connected(self, exc: BaseException) -> None:
        """Celery logs every failure here; `ensure_connected` tells all there is to tell."""
        log.debug("redis_connection_lost", reason=str(exc))
