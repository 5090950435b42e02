"""What goes wrong in a chaos run: named faults, drawn by a seed, one every few seconds."""

import asyncio
import json
import random
import signal
import sqlite3
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from k2think.schemas.errors import StoreError
from k2think.schemas.messages import AgentKind
from k2think.workers.queues import list_keys
from model import FAULTS as MODEL_FAULTS
from small_disk import fill
from sqlalchemy import text
from stack import LEASE_S, Stack

OUTAGE_S = 3.0
"""How long a service is away, or ill."""
STOPPED_S = 1.6 * LEASE_S
"""How long a stopped process stands still: past its lease."""
READ_ONLY_MASTER = ("127.0.0.1", 1)
"""A master that does not exist."""
POLL_S = 0.05
_WORKER = text("SELECT worker FROM attempts WHERE job_id = :job AND step = :step AND attempt = :attempt")


@dataclass
class Injected:
    """A fault that happened. Unix times in seconds."""

    name: str
    began: float
    ended: float
    """When all was well again, as far as the fault itself goes."""
    pid: int | None = None
    """Process that was killed or stopped; None = none."""
    recovery_s: float | None = None
    """Seconds from `ended` (of a kill: from the kill) until work went on; None = there was none to go on with."""


Fault = Callable[[Stack, random.Random], Awaitable[int | None]]
"""Does the harm, ends it, and returns the process that was killed or stopped, if any."""


def _kill(role: str) -> Fault:
    async def kill(stack: Stack, chance: random.Random) -> int | None:
        return stack.send(role, signal.SIGKILL)

    return kill


def _stop(role: str) -> Fault:
    async def stop(stack: Stack, chance: random.Random) -> int | None:
        pid = stack.send(role, signal.SIGSTOP)
        try:
            await asyncio.sleep(STOPPED_S)
        finally:
            stack.send(role, signal.SIGCONT)
        return pid

    return stop


async def _redis_kill(stack: Stack, chance: random.Random) -> None:
    stack.redis.kill()
    await asyncio.sleep(OUTAGE_S)
    await stack.redis.start()


async def _redis_lost(stack: Stack, chance: random.Random) -> None:
    stack.redis.kill(lose=True)
    await asyncio.sleep(OUTAGE_S)
    await stack.redis.start()


async def _redis_flush(stack: Stack, chance: random.Random) -> None:
    await stack.redis.call("FLUSHALL")


async def _redis_full(stack: Stack, chance: random.Random) -> None:
    await stack.redis.call("CONFIG", "SET", "maxmemory", "1")
    try:
        await asyncio.sleep(OUTAGE_S)
    finally:
        await stack.redis.call("CONFIG", "SET", "maxmemory", "0")


async def _redis_read_only(stack: Stack, chance: random.Random) -> None:
    await stack.redis.call("REPLICAOF", *READ_ONLY_MASTER)
    try:
        await asyncio.sleep(OUTAGE_S)
    finally:
        await stack.redis.call("REPLICAOF", "NO", "ONE")


async def _redis_pause(stack: Stack, chance: random.Random) -> None:
    await stack.redis.call("CLIENT", "PAUSE", int(OUTAGE_S * 1000))
    await asyncio.sleep(OUTAGE_S)


async def _messages(stack: Stack, chance: random.Random) -> None:
    """Double every message that waits, and put them into another order."""
    async with stack.redis.client() as client:
        for key in [key for agent in AgentKind for key in list_keys(agent.value)]:
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


async def _postgresql_restart(stack: Stack, chance: random.Random) -> None:
    if stack.postgres is not None:
        await asyncio.to_thread(stack.postgres.stop)
        await asyncio.sleep(OUTAGE_S)
        await asyncio.to_thread(stack.postgres.start)


async def _sqlite_locked(stack: Stack, chance: random.Random) -> None:
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


async def _disk_full(stack: Stack, chance: random.Random) -> None:
    """No space is left where database and files are."""
    filler = stack.folder / "data" / "filler"
    try:
        await asyncio.to_thread(fill, filler)
        await asyncio.sleep(OUTAGE_S)
    finally:
        filler.unlink(missing_ok=True)


def _engine(name: str) -> Fault:
    async def misbehave(stack: Stack, chance: random.Random) -> None:
        stack.model.fault = name
        try:
            await asyncio.sleep(OUTAGE_S)
        finally:
            stack.model.fault = None

    return misbehave


def _slow(service: str) -> Fault:
    async def slow(stack: Stack, chance: random.Random) -> None:
        proxy = stack.proxies[service]
        proxy.latency_s = chance.choice((0.02, 0.2))
        await asyncio.sleep(OUTAGE_S)
        proxy.heal()

    return slow


def _sliced(service: str) -> Fault:
    async def sliced(stack: Stack, chance: random.Random) -> None:
        proxy = stack.proxies[service]
        proxy.slice_bytes = chance.choice((1, 3, 17))
        await asyncio.sleep(OUTAGE_S)
        proxy.heal()

    return sliced


def _reset(service: str) -> Fault:
    async def reset(stack: Stack, chance: random.Random) -> None:
        for _ in range(3):
            stack.proxies[service].reset()
            await asyncio.sleep(OUTAGE_S / 3)

    return reset


def _half_open(service: str) -> Fault:
    """All connections stay open and say nothing more; then they are gone."""

    async def half_open(stack: Stack, chance: random.Random) -> None:
        proxy = stack.proxies[service]
        proxy.hang()
        await asyncio.sleep(2 * OUTAGE_S)
        proxy.reset()
        proxy.heal()

    return half_open


def faults_for(stack: Stack) -> dict[str, Fault]:
    """All faults that this stack can have."""
    found: dict[str, Fault] = {}
    for role in stack.roles:
        found[f"kill:{role}"] = _kill(role)
        found[f"stop:{role}"] = _stop(role)
    found |= {
        "redis:kill": _redis_kill,
        "redis:lost": _redis_lost,
        "redis:flushall": _redis_flush,
        "redis:full": _redis_full,
        "redis:read_only": _redis_read_only,
        "redis:pause": _redis_pause,
        "redis:doubled_and_reordered": _messages,
    }
    if stack.db == "postgresql":
        found["postgresql:restart"] = _postgresql_restart
    else:
        found["sqlite:locked"] = _sqlite_locked
    if stack.small_disk:
        found["disk:full"] = _disk_full
    for name in MODEL_FAULTS:
        found[f"engine:{name}"] = _engine(name)
    for service in stack.proxies:
        found[f"net:{service}:slow"] = _slow(service)
        found[f"net:{service}:sliced"] = _sliced(service)
        found[f"net:{service}:reset"] = _reset(service)
        found[f"net:{service}:half_open"] = _half_open(service)
    return found


def draw(names: list[str], count: int, chance: random.Random) -> list[str]:
    """Draw `count` faults: each of the names once before one comes again."""
    drawn: list[str] = []
    while len(drawn) < count:
        again = list(names)
        chance.shuffle(again)
        drawn += again
    return drawn[:count]


async def inject(stack: Stack, names: list[str], *, every_s: float, chance: random.Random) -> list[Injected]:
    """Let the faults happen one after the other, with pauses in which work goes on."""
    known = faults_for(stack)
    injected: list[Injected] = []
    restarts: list[asyncio.Task[None]] = []
    for name in names:
        await asyncio.sleep(every_s * chance.uniform(0.5, 1.0))
        began = time.time()
        pid = await known[name](stack, chance)
        injected.append(Injected(name, began, time.time(), pid))
        if name == "kill:gateway":
            restarts.append(asyncio.create_task(_note_restart(stack, injected[-1])))
    await asyncio.gather(*restarts)
    return injected


async def _note_restart(stack: Stack, fault: Injected) -> None:
    """Note when another gateway than the killed one listens."""
    host, _, port = stack.url.removeprefix("http://").partition(":")
    while True:
        await asyncio.sleep(POLL_S)
        if stack.pid("gateway") in (None, fault.pid):
            continue
        try:
            _reader, writer = await asyncio.open_connection(host, int(port))
        except OSError:
            continue
        writer.close()
        fault.recovery_s = time.time() - fault.began
        return


async def kill_for_poison(stack: Stack) -> None:
    """Kill the workers that work on what kills workers, until cancelled."""
    while True:
        await asyncio.sleep(POLL_S)
        while stack.model.killers:
            job, step, attempt = stack.model.killers[0].split(".")
            values = {"job": job, "step": step, "attempt": int(attempt)}
            try:
                worker = await stack.database.read(lambda conn, v=values: conn.execute(_WORKER, v).scalar_one_or_none())
            except StoreError:
                break  # it is away just now
            stack.model.killers.pop(0)
            pid = pid_of(worker or "")
            role = stack.pids.get(pid)
            if role is not None and stack.pid(role) == pid:
                stack.send(role, signal.SIGKILL)


def pid_of(worker: str) -> int:
    """Process id in a worker's id; 0 = there is none."""
    parts = worker.rsplit("-", 2)
    return int(parts[1]) if len(parts) == 3 and parts[1].isdigit() else 0
