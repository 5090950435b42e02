"""The doorbell: publishes messages and notices to Redis after the commit that made them true.

Best effort by design. What cannot be delivered now is dropped here and taken up by the sweeper, since SQL holds it all;
so a lost Redis never blocks or fails a step. One thread sends everything that waits in one batch.
"""

import json
import queue
import threading
from dataclasses import dataclass
from typing import Any

import redis
import structlog
from kombu.connection import Connection
from kombu.exceptions import KombuError
from kombu.messaging import Producer

from ..schemas.messages import Envelope, queue_of
from .outage import REDIS, outage_of
from .queues import (
    CANCEL_CHANNEL,
    ENDED_NOTICE,
    PRIORITY_STEPS,
    RUNG_NOTICE,
    job_channel,
    task_of_queue,
)
from .redis_clients import celery_place, redis_client

BATCH_MAX = 500
WAITING_MAX = 10_000
"""Messages and notices that wait to be sent; further ones are dropped."""
SOCKET_TIMEOUT_S = 5.0
log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Notice:
    channel: str
    text: str


_Item = Envelope | _Notice | threading.Event | None


class Dispatcher:
    """Sends from any thread or loop; returns at once."""

    def __init__(self, broker_url: str) -> None:
        self._url = broker_url
        self._waiting: queue.SimpleQueue[_Item] = queue.SimpleQueue()
        self._dropped = 0
        self._dropping = threading.Lock()
        self._outage = outage_of(REDIS)
        self._thread = threading.Thread(target=self._main, name="k2think-dispatcher", daemon=True)
        self._thread.start()

    def publish(self, messages: tuple[Envelope, ...] | list[Envelope]) -> None:
        """Ring for new steps."""
        for message in messages:
            self._put(message)

    def notify_cancel(self, job_id: str, steps: list[str] | None) -> None:
        """Tell all workers that these steps, or with None all steps of the job, are no longer wanted."""
        self._put(_Notice(CANCEL_CHANNEL, json.dumps({"job": job_id, "steps": steps})))

    def notify_job(self, job_id: str, *, ended: bool = False) -> None:
        """Tell the clients that wait for the job that something happened, or that it has ended."""
        self._put(_Notice(job_channel(job_id), ENDED_NOTICE if ended else RUNG_NOTICE))

    def _put(self, item: Envelope | _Notice) -> None:
        if self._waiting.qsize() < WAITING_MAX:
            self._waiting.put(item)
        else:
            with self._dropping:
                self._dropped += 1

    def flush(self, *, timeout_s: float = SOCKET_TIMEOUT_S) -> bool:
        """Wait until all that was put before is sent or dropped; False when that took too long."""
        done = threading.Event()
        self._waiting.put(done)
        return done.wait(timeout_s)

    def close(self) -> None:
        """Send what waits, then end the thread."""
        self._waiting.put(None)
        self._thread.join(2 * SOCKET_TIMEOUT_S)

    def _main(self) -> None:
        connection: Connection | None = None
        client: redis.Redis | None = None
        open_ = True
        while open_:
            batch = self._next_batch()
            open_ = None not in batch
            try:
                if connection is None or client is None:
                    connection, client = self._connect()
                self._send_messages(connection, [item for item in batch if isinstance(item, Envelope)])
                self._send_notices(client, [item for item in batch if isinstance(item, _Notice)])
                self._outage.back()
            except Exception as exc:  # whatever it is, this thread must live: the sweeper rings again
                self._outage.lost(exc)
                _close(connection, client)
                connection = client = None
            self._tell_dropped()
            for item in batch:
                if isinstance(item, threading.Event):
                    item.set()
        _close(connection, client)

    def _tell_dropped(self) -> None:
        with self._dropping:
            dropped, self._dropped = self._dropped, 0
        if dropped:
            log.warning("doorbells_dropped", dropped=dropped, hint="too many wait for Redis; the sweeper rings again")

    def _next_batch(self) -> list[_Item]:
        batch = [self._waiting.get()]
        while len(batch) < BATCH_MAX:
            try:
                batch.append(self._waiting.get_nowait())
            except queue.Empty:
                break
        return batch

    def _connect(self) -> tuple[Connection, redis.Redis]:
        options = {
            "priority_steps": PRIORITY_STEPS,
            "socket_timeout": SOCKET_TIMEOUT_S,
            "socket_connect_timeout": SOCKET_TIMEOUT_S,
            "health_check_interval": 25,
        }
        client = redis_client(self._url, socket_timeout=SOCKET_TIMEOUT_S, socket_connect_timeout=SOCKET_TIMEOUT_S)
        client.ping()
        place = celery_place(self._url)
        tls: Any = place.ssl or False  # kombu's own annotation knows no options
        return Connection(place.url, ssl=tls, transport_options=options | place.options), client

    def _send_messages(self, connection: Connection, messages: list[Envelope]) -> None:
        if not messages:
            return
        producer = Producer(connection.default_channel, serializer="json", auto_declare=False)
        with producer.batch(max_size=BATCH_MAX):
            for message in messages:
                send(producer, message)

    def _send_notices(self, client: redis.Redis, notices: list[_Notice]) -> None:
        if not notices:
            return
        pipeline = client.pipeline(transaction=False)
        for notice in dict.fromkeys(notices):
            pipeline.publish(notice.channel, notice.text)
        pipeline.execute()


def send(producer: Producer, message: Envelope) -> None:
    """Publish one step as a Celery task message (protocol 2, the least that a worker needs).

    Celery's own `apply_async` costs twenty times the CPU. The anonymous exchange needs no bindings in Redis, so that
    a FLUSHALL cannot break it.
    """
    queue = queue_of(message.body)
    headers = {"lang": "py", "task": task_of_queue(queue), "id": message.message_id, "ignore_result": True}
    body: tuple[list[Any], dict[str, Any], dict[str, Any]] = ([message.model_dump(mode="json")], {}, {})
    producer.publish(body, exchange="", routing_key=queue, priority=int(message.priority), headers=headers)


def _close(connection: Connection | None, client: redis.Redis | None) -> None:
    for resource in (connection, client):
        try:
            if resource is not None:
                resource.close()
        except (KombuError, redis.RedisError, OSError):
            continue
