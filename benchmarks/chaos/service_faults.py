"""What happens to the services and on the way to them: Redis, the database, the disk, the model server, the network."""

import asyncio
import json
import random
import sqlite3
import uuid

from k2think.schemas.messages import AgentKind
from k2think.workers.queues import INTAKE, list_keys
from process_faults import OUTAGE_S, Harm
from small_disk import fill
from stack import Stack

READ_ONLY_MASTER = ("127.0.0.1", 1)
"""A master that does not exist."""


async def redis_kill(stack: Stack, chance: random.Random) -> None:
    """SIGKILL; its AOF stays."""
    stack.redis.kill()
    await asyncio.sleep(OUTAGE_S)
    await stack.redis.start()


async def redis_lost(stack: Stack, chance: random.Random) -> None:
    """SIGKILL; its AOF goes, too."""
    stack.redis.kill(lose=True)
    await asyncio.sleep(OUTAGE_S)
    await stack.redis.start()


async def redis_flush(stack: Stack, chance: random.Random) -> None:
    """FLUSHALL."""
    await stack.redis.call("FLUSHALL")


async def redis_full(stack: Stack, chance: random.Random) -> None:
    """Every write is refused for want of memory."""
    await stack.redis.call("CONFIG", "SET", "maxmemory", "1")
    try:
        await asyncio.sleep(OUTAGE_S)
    finally:
        await stack.redis.call("CONFIG", "SET", "maxmemory", "0")


async def redis_read_only(stack: Stack, chance: random.Random) -> None:
    """Every write is refused, as by a replica."""
    await stack.redis.call("REPLICAOF", *READ_ONLY_MASTER)
    try:
        await asyncio.sleep(OUTAGE_S)
    finally:
        await stack.redis.call("REPLICAOF", "NO", "ONE")


async def redis_pause(stack: Stack, chance: random.Random) -> None:
    """CLIENT PAUSE."""
    await stack.redis.call("CLIENT", "PAUSE", int(OUTAGE_S * 1000))
    await asyncio.sleep(OUTAGE_S)


async def messages(stack: Stack, chance: random.Random) -> None:
    """Double every message that waits, and put them into another order."""
    queues = [INTAKE, *(agent.value for agent in AgentKind)]
    async with stack.redis.client() as client:
        for key in [key for queue in queues for key in list_keys(queue)]:
            waiting: list[bytes] | None = await client.execute_command("LRANGE", key, 0, -1)
            if not waiting:
                continue
            shuffled = [*waiting, *(_copy(raw) for raw in waiting)]
            chance.shuffle(shuffled)
            # What workers have fetched meanwhile is doubled, too: it comes once more.
            async with client.pipeline(transaction=True) as pipeline:
                pipeline.delete(key)
                pipeline.rpush(key, *shuffled)
                await pipeline.execute()


def _copy(raw: bytes) -> bytes:
    message = json.loads(raw)
    message["properties"]["delivery_tag"] = str(uuid.uuid4())
    return json.dumps(message).encode()


async def postgresql_restart(stack: Stack, chance: random.Random) -> None:
    """It ends as in a crash, and comes back."""
    if stack.postgres is not None:
        await asyncio.to_thread(stack.postgres.stop)
        await asyncio.sleep(OUTAGE_S)
        await asyncio.to_thread(stack.postgres.start)


async def sqlite_locked(stack: Stack, chance: random.Random) -> None:
    """Another process holds the write lock."""
    other = sqlite3.connect(
        stack.database_url.removeprefix("sqlite:///"), isolation_level=None, timeout=30, check_same_thread=False
    )
    try:
        await asyncio.to_thread(other.execute, "BEGIN IMMEDIATE")
        await asyncio.sleep(OUTAGE_S)
        other.execute("ROLLBACK")
    finally:
        other.close()


async def disk_full(stack: Stack, chance: random.Random) -> None:
    """No space is left where the database is. A PostgreSQL that ends for want of it is started again afterwards."""
    filler = stack.disk / "filler"
    try:
        await asyncio.to_thread(fill, filler)
        await asyncio.sleep(OUTAGE_S)
    finally:
        filler.unlink(missing_ok=True)
        if stack.postgres is not None and not stack.postgres.alive:
            await asyncio.to_thread(stack.postgres.restart)


def engine(name: str) -> Harm:
    """The model server misbehaves at a share of its calls."""

    async def harm(stack: Stack, chance: random.Random) -> None:
        stack.model.fault = name
        try:
            await asyncio.sleep(OUTAGE_S)
        finally:
            stack.model.fault = None

    return harm


def slow(service: str) -> Harm:
    """Every piece takes longer."""

    async def harm(stack: Stack, chance: random.Random) -> None:
        proxy = stack.proxies[service]
        proxy.latency_s = chance.choice((0.02, 0.2))
        await asyncio.sleep(OUTAGE_S)
        proxy.heal()

    return harm


def sliced(service: str) -> Harm:
    """Everything comes in slices of a few bytes."""

    async def harm(stack: Stack, chance: random.Random) -> None:
        proxy = stack.proxies[service]
        proxy.slice_bytes = chance.choice((1, 3, 17))
        await asyncio.sleep(OUTAGE_S)
        proxy.heal()

    return harm


def reset(service: str) -> Harm:
    """All connections are reset, three times."""

    async def harm(stack: Stack, chance: random.Random) -> None:
        for _ in range(3):
            stack.proxies[service].reset()
            await asyncio.sleep(OUTAGE_S / 3)

    return harm


def half_open(service: str) -> Harm:
    """All connections stay open and say nothing more, new ones as well; then they are gone."""

    async def harm(stack: Stack, chance: random.Random) -> None:
        proxy = stack.proxies[service]
        proxy.hang()
        await asyncio.sleep(2 * OUTAGE_S)
        proxy.reset()
        proxy.heal()

    return harm


def dead(service: str) -> Harm:
    """All connections that there are stay open and say nothing for ever; new ones work."""

    async def harm(stack: Stack, chance: random.Random) -> None:
        stack.proxies[service].lose()

    return harm
