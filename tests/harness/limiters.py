"""Limiters of several processes on one Redis, and what that knows of them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import redis
from k2think.workers.limits import KEY_PREFIX, RedisLimiter

if TYPE_CHECKING:
    from conftest import RedisServer

LimiterMaker = Callable[..., RedisLimiter]


def stored(server: RedisServer) -> tuple[dict[str, Any], int]:
    """Return what Redis knows: the book, and how many streams are in flight."""
    with redis.Redis(unix_socket_path=str(server.socket)) as client:
        (state,) = client.keys(f"{KEY_PREFIX}*.state")
        streams = state.replace(b".state", b".streams")
        return json.loads(client.get(state)), client.zcard(streams)


async def until(true: Callable[[], bool]) -> None:
    """Wait until it is true; at most 10 seconds."""
    async with asyncio.timeout(10):
        while not true():
            await asyncio.sleep(0.01)
