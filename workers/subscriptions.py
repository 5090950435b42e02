"""Listening to Redis channels on a connection that is known to live: one that went silent is given up in a few seconds."""

from collections.abc import AsyncGenerator
from typing import Any

import redis
import redis.asyncio
from redis.asyncio.client import PubSub
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from .redis_clients import async_redis_client

PING_S = 1.5
"""Seconds of silence after which Redis is asked whether it is there."""
PINGS_MAX = 2
"""Questions in a row without any answer after which it is not."""
SILENT_S = PING_S * (PINGS_MAX + 1)
"""Seconds of silence after which a connection is given up."""


def subscriber(broker_url: str, *, timeout_s: float) -> redis.asyncio.Redis:
    """Return a client to subscribe with, which connects or fails within about `timeout_s`."""
    times = {"socket_timeout": timeout_s, "socket_connect_timeout": timeout_s}
    return async_redis_client(broker_url, retry=Retry(NoBackoff(), 0), **times)


async def heard(channel: PubSub) -> AsyncGenerator[dict[str, Any]]:
    """Yield what comes, for ever: messages, and confirmations of subscribing. Raises redis-py's errors and OSError."""
    unanswered = 0
    while True:
        message = await channel.get_message(timeout=PING_S)
        if message is not None:
            unanswered = 0
            yield message
        elif unanswered == PINGS_MAX:
            raise redis.ConnectionError("Redis went silent on an open connection")
        else:
            await channel.ping()
            unanswered += 1
