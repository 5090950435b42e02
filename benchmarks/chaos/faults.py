"""What goes wrong in a chaos run: named faults, drawn by a seed, one every few seconds."""

import asyncio
import random
import signal
import time
from dataclasses import dataclass

import process_faults as processes
import service_faults as services
from clock import JUMP_S, find_library
from k2think.schemas.errors import StoreError
from model import FAULTS as MODEL_FAULTS
from process_faults import OUTAGE_S, Harm
from sqlalchemy import text
from stack import Stack

POLL_S = 0.05
OFTEN = ("kill:", "redis:kill", "redis:lost", "postgresql:restart")
"""Beginnings of the names of those whose recovery has a bound: the more often they happen, the better it is known."""
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


@dataclass(frozen=True)
class Fault:
    """A fault that can happen."""

    harm: Harm
    lasts_s: float = OUTAGE_S
    """About how long it takes."""


def faults_for(stack: Stack) -> dict[str, Fault]:
    """All faults that this stack can have."""
    return _of_processes(stack) | _of_services(stack)


def _of_processes(stack: Stack) -> dict[str, Fault]:
    found: dict[str, Fault] = {}
    for role in stack.roles:
        found[f"kill:{role}"] = Fault(processes.kill(role), 0.0)
        found[f"stop:{role}"] = Fault(processes.stop(role), processes.STOPPED_S)
        found[f"term:{role}"] = Fault(processes.term(role), processes.RENEWED_S)
    found["roll"] = Fault(processes.roll, processes.RENEWED_S * len(stack.roles))
    if find_library() is None:
        return found
    found["clock:forward"] = Fault(processes.clock(None, JUMP_S))
    found["clock:back"] = Fault(processes.clock(None, -JUMP_S))
    # SQLite's processes are on one machine, and so is their clock; those of PostgreSQL may be on several.
    for role in stack.roles if stack.db == "postgresql" else ():
        found[f"clock:{role}:forward"] = Fault(processes.clock(role, JUMP_S))
    return found


def _of_services(stack: Stack) -> dict[str, Fault]:
    found = {
        "redis:kill": Fault(services.redis_kill),
        "redis:lost": Fault(services.redis_lost),
        "redis:flushall": Fault(services.redis_flush, 0.0),
        "redis:full": Fault(services.redis_full),
        "redis:read_only": Fault(services.redis_read_only),
        "redis:pause": Fault(services.redis_pause),
        "redis:doubled_and_reordered": Fault(services.messages, 0.0),
    }
    if stack.db == "postgresql":
        found["postgresql:restart"] = Fault(services.postgresql_restart)
    else:
        found["sqlite:locked"] = Fault(services.sqlite_locked)
    if stack.small_disk:
        found["disk:full"] = Fault(services.disk_full)
    for name in MODEL_FAULTS:
        found[f"engine:{name}"] = Fault(services.engine(name))
    for service in stack.services:
        found[f"net:{service}:slow"] = Fault(services.slow(service))
        found[f"net:{service}:sliced"] = Fault(services.sliced(service))
        found[f"net:{service}:reset"] = Fault(services.reset(service))
        found[f"net:{service}:half_open"] = Fault(services.half_open(service), 2 * OUTAGE_S)
        found[f"net:{service}:dead"] = Fault(services.dead(service), 0.0)
    return found


def draw(names: list[str], count: int, chance: random.Random) -> list[str]:
    """Draw `count` faults: all of the names before they come again, those of OFTEN twice."""
    drawn: list[str] = []
    while len(drawn) < count:
        again = [*names, *(name for name in names if name.startswith(OFTEN))]
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
        pid = await known[name].harm(stack, chance)
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
