"""What happens to processes: they are killed, stand still, are told to end, and their clocks jump."""

import asyncio
import random
import signal
import time
from collections.abc import Awaitable, Callable

from stack import LEASE_S, Stack

OUTAGE_S = 3.0
"""How long a service is away, or ill; how long a clock is wrong."""
STOPPED_S = 1.6 * LEASE_S
"""How long a stopped process stands still: past its lease."""
TERM_MAX_S = 30.0
"""How long a process may take to end when it is told to."""
RENEWED_S = 4.0
"""How long it takes about until a process that was told to end has a successor."""
POLL_S = 0.1

Harm = Callable[[Stack, random.Random], Awaitable[int | None]]
"""Does the harm, ends it, and returns the process that was killed or stopped, if any."""


def kill(role: str) -> Harm:
    """SIGKILL."""

    async def harm(stack: Stack, chance: random.Random) -> int | None:
        return stack.send(role, signal.SIGKILL)

    return harm


def stop(role: str) -> Harm:
    """SIGSTOP, and SIGCONT after its leases have run out."""

    async def harm(stack: Stack, chance: random.Random) -> int | None:
        pid = stack.send(role, signal.SIGSTOP)
        try:
            await asyncio.sleep(STOPPED_S)
        finally:
            stack.send(role, signal.SIGCONT)
        return pid

    return harm


def term(role: str) -> Harm:
    """SIGTERM; over when its successor is up."""

    async def harm(stack: Stack, chance: random.Random) -> int | None:
        return await _renew(stack, role)

    return harm


async def roll(stack: Stack, chance: random.Random) -> None:
    """Restart all roles one after the other."""
    for role in stack.roles:
        await _renew(stack, role)


def clock(role: str | None, jump_s: int) -> Harm:
    """Set the clock of one child, or with None of all, and set it right again."""

    async def harm(stack: Stack, chance: random.Random) -> None:
        clocks = stack.clocks
        if clocks is None:
            return
        roles = list(stack.roles) if role is None else [role]
        clocks.set(roles, jump_s)
        try:
            await asyncio.sleep(OUTAGE_S)
        finally:
            clocks.set(roles, 0)

    return harm


async def _renew(stack: Stack, role: str) -> int | None:
    """Tell a process to end, and wait until the next one is up. Return its id; None = it did not run just then."""
    ups = stack.count_starts(role)
    pid = stack.send(role, signal.SIGTERM)
    if pid is None:
        return None
    told = time.monotonic()
    while stack.pid(role) == pid:
        if time.monotonic() - told > TERM_MAX_S:
            stack.send(role, signal.SIGKILL)
            break
        await asyncio.sleep(POLL_S)
    stack.ends.append((role, time.monotonic() - told))
    deadline = time.monotonic() + TERM_MAX_S
    while stack.count_starts(role) == ups and time.monotonic() < deadline:
        await asyncio.sleep(POLL_S)
    return pid
