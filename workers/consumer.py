"""Celery's consumer, which here outlives whatever Redis does, and says so once.

It reconnects within a second, starts anew when Redis refuses what it asks for (a replica, no memory left), and refuses
what is no message without repeating its text.
"""

import time
from typing import Any

import redis
import structlog
from celery.exceptions import NotRegistered
from celery.worker.consumer import Consumer as CeleryConsumer
from celery.worker.state import maybe_shutdown

from .outage import REDIS, REPLIES, outage_of
from .transport import refused

RECONNECT_STEP_S = 0.2
RECONNECT_MAX_S = 1.0
RESTART_PAUSE_S = 0.3
"""Between the loss of a connection and the next try: Celery calls more than five in a second an error of its own."""
REFUSED_PAUSE_S = 1.0
"""Between two tries with a Redis that answers and refuses."""
log = structlog.stdlib.get_logger(__name__)


class Consumer(CeleryConsumer):
    """`worker_consumer=k2think.workers.consumer:Consumer`."""

    app: Any

    def connection_for_read(self, heartbeat: Any = None) -> Any:
        """Connect by our own transport."""
        connection = self.app.connection_for_read(heartbeat=heartbeat)
        sentinel = connection.transport_cls == "sentinel"
        connection.transport_cls = f"k2think.workers.transport:{'SentinelTransport' if sentinel else 'Transport'}"
        # All Sentinels are asked at each connection; going on to the next one would bring kombu's own transport back.
        connection.cycle = None
        return self.ensure_connected(connection)

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
        self.first_connection_attempt = False
        return connected

    def on_connection_error_before_connected(self, exc: BaseException) -> None:
        """Celery logs every failure here; `ensure_connected` tells all there is to tell."""
        log.debug("redis_connection_lost", reason=str(exc))

    def on_connection_error_after_connected(self, exc: BaseException) -> None:
        """Close the connection; the next one is not made in the same moment."""
        outage_of(REDIS).lost(exc)
        super().on_connection_error_after_connected(exc)
        time.sleep(REFUSED_PAUSE_S if isinstance(exc, redis.ResponseError) else RESTART_PAUSE_S)

    # What is no message of ours. Celery's own ways write its text, which may be a prompt, to the log.

    def create_task_handler(self, *words: Any, **more: Any) -> Any:
        """Handle messages so that none can end the worker."""
        handle = super().create_task_handler(*words, **more)

        def handle_or_refuse(message: Any) -> None:
            try:
                handle(message)
            except (redis.RedisError, OSError):
                raise
            except Exception as exc:
                self.on_decode_error(message, exc)

        return handle_or_refuse

    def on_decode_error(self, message: Any, exc: BaseException) -> None:
        """Its body cannot be read."""
        refused(exc)
        if not message.acknowledged:
            message.ack()

    def on_unknown_message(self, body: Any, message: Any) -> None:
        """It names no task."""
        self.on_decode_error(message, KeyError("task"))

    def on_invalid_task(self, body: Any, message: Any, exc: BaseException) -> None:
        """It is not what Celery calls a task message."""
        self.on_decode_error(message, exc)

    def on_unknown_task(self, body: Any, message: Any, exc: BaseException) -> None:
        """It names a task that this worker does not have; who sent it is told."""
        headers = message.headers
        self.on_decode_error(message, exc)
        try:
            self.app.backend.mark_as_failure(headers["id"], NotRegistered(headers["task"]))
        except (redis.RedisError, OSError) as failure:
            outage_of(REPLIES).lost(failure)
        except KeyError:  # as Celery's first protocol has it
            return
