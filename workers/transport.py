"""kombu's Redis transport for our workers, where what is wrong in Redis must not end a worker or leak a prompt.

Three changes: what lies in a queue and is no message is refused with one line; messages that cannot be given back to
Redis are left to the sweeper, where kombu writes them to a temporary file; a full Redis loses no message of the intake.
"""

from queue import Empty
from typing import Any

import redis
import structlog
from kombu.transport import virtual
from kombu.transport.redis import Channel as RedisChannel
from kombu.transport.redis import QoS as RedisQoS
from kombu.transport.redis import SentinelChannel as KombuSentinelChannel
from kombu.transport.redis import Transport as RedisTransport

from ..schemas.redis_place import SENTINEL_PORT
from .outage import REDIS, outage_of

_NO_MESSAGE = (ValueError, TypeError, LookupError, AttributeError, RecursionError)
"""What reading something else than a message raises: text that is no JSON, JSON without the fields of a message."""
log = structlog.stdlib.get_logger(__name__)


class StepQoS(virtual.QoS):
    """Fetched messages of steps, which Redis no longer has."""

    _delivered: Any

    def restore_unacked(self) -> list[Any]:
        """Give back what was only fetched, as far as Redis takes it."""
        self._flush()
        messages = list(self._delivered.values())
        self._delivered.clear()
        for number, message in enumerate(messages):
            try:
                self.channel._restore(message)
            except (redis.RedisError, OSError) as exc:
                _not_given_back(len(messages) - number, exc)
                break
        return []


class DoorQoS(RedisQoS):
    """Fetched messages of the intake, which Redis keeps a copy of until they are acknowledged."""

    _delivered: Any

    def append(self, message: Any, delivery_tag: str) -> None:
        """Hold a message that was just taken from its queue; where Redis has no room for the copy, hold it without."""
        try:
            super().append(message, delivery_tag)
        except redis.ResponseError as exc:
            outage_of(REDIS).lost(exc)
            virtual.QoS.append(self, message, delivery_tag)

    def ack(self, delivery_tag: str) -> None:
        """Acknowledge; where Redis refuses to forget the copy, it returns it some day, and its claim is refused."""
        try:
            super().ack(delivery_tag)
        except redis.ResponseError as exc:
            outage_of(REDIS).lost(exc)
            virtual.QoS.ack(self, delivery_tag)

    def restore_unacked(self, client: Any = None) -> None:
        """Give back what was only fetched; Redis returns by itself what it did not take now."""
        try:
            super().restore_unacked(client)
        except (redis.RedisError, OSError) as exc:
            _not_given_back(len(self._delivered), exc)
            self._delivered.clear()

    def restore_visible(self, *words: Any, **more: Any) -> None:
        """Return what other workers fetched and never acknowledged; the next round tries again."""
        try:
            super().restore_visible(*words, **more)
        except redis.ResponseError as exc:
            outage_of(REDIS).lost(exc)


class Channel(RedisChannel):
    """A channel with our ways of holding messages."""

    QoS = DoorQoS

    def __init__(self, *words: Any, **more: Any) -> None:
        super().__init__(*words, **more)
        if not self.ack_emulation:
            self.QoS = StepQoS


class Transport(RedisTransport):
    """`k2think.workers.transport:Transport`."""

    Channel = Channel

    def on_readable(self, fileno: int) -> None:
        """Take what Redis has sent."""
        try:
            super().on_readable(fileno)
        except Empty:
            outage_of(REDIS).back()
            raise
        except _NO_MESSAGE as exc:
            refused(exc)
        else:
            outage_of(REDIS).back()


class SentinelChannel(Channel, KombuSentinelChannel):
    """The same to the master that Sentinels name."""


class SentinelTransport(Transport):
    """`k2think.workers.transport:SentinelTransport`."""

    default_port = SENTINEL_PORT
    Channel = SentinelChannel


def refused(exc: BaseException, **fields: Any) -> None:
    """Log that something in a queue is no message of ours: what is wrong with it, and nothing of what it says."""
    log.error("message_refused", problems=[type(exc).__name__], hint="not sent by k2think, or by Celery", **fields)


def _not_given_back(count: int, exc: BaseException) -> None:
    log.warning("messages_not_given_back", messages=count, reason=str(exc), hint="the sweeper rings for them again")
