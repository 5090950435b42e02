"""What runs in this process: heartbeats that keep the leases, and the ways in which running work is told to stop.

A step stops being wanted in two ways, and both lead here: a notice on the Redis channel (milliseconds), and the answer
to our own heartbeat, which names the steps that are still ours (seconds, and needs no Redis).
"""

import asyncio
import contextlib
import json
import time
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import redis
import structlog

from ..schemas.trace import AttemptOutcome
from ..store.database import Database
from ..store.steps import Claim, abandon_steps, heartbeat
from .ending import end_tasks
from .outage import DATABASE, REDIS, outage_of, patiently
from .queues import CANCEL_CHANNEL
from .subscriptions import heard, subscriber

CONNECT_TIMEOUT_S = 5.0
RESUBSCRIBE_S = 0.2
HAND_BACK_S = 5.0
"""Seconds in which a stopping process hands back its steps; the database may be away."""
Stopped = Literal[AttemptOutcome.cancelled, AttemptOutcome.released]
"""Why running work was told to stop: it is no longer wanted, or this worker shuts down."""
log = structlog.stdlib.get_logger(__name__)


@dataclass(eq=False, slots=True)
class Work:
    """One claimed step while its agent runs."""

    claim: Claim
    task: "asyncio.Task[Any] | None" = None
    """The agent's task."""
    stopped: Stopped | None = None
    """None = it was not told to stop."""
    began: float = field(default_factory=time.monotonic)

    @property
    def key(self) -> tuple[str, str, int]:
        """Job, step and fence."""
        envelope = self.claim.envelope
        return envelope.job_id, envelope.step, envelope.attempt

    def stop(self, outcome: Stopped) -> None:
        """Cancel the agent, which closes its stream."""
        if self.stopped is None:
            self.stopped = outcome
            if self.task is not None:
                self.task.cancel()


class Leases:
    """The registry of running work of one process; belongs to one event loop."""

    def __init__(self, database: Database, *, worker: str, broker_url: str, lease_s: float, heartbeat_s: float) -> None:
        self._database = database
        self._worker = worker
        self._broker_url = broker_url
        self._lease_s = lease_s
        self._heartbeat_s = heartbeat_s
        self._running: set[Work] = set()
        self._idle_leases: set[tuple[str, str, int]] = set()
        """Leases that the last heartbeat found without running work."""
        self._claiming = 0
        """Claims under way."""
        self._released = False
        """Whether work is handed back at once: its process stops."""
        self._idle = asyncio.Event()
        self._idle.set()
        self._outage = outage_of(DATABASE)
        self._redis_outage = outage_of(REDIS)
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin to beat and to listen."""
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._beat()), loop.create_task(self._listen())]

    @contextlib.contextmanager
    def claiming(self) -> Generator[None]:
        """A claim is under way. A process that stops waits for it: what it brings must be handed back, too."""
        self._claiming += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._claiming -= 1
            self._note_idle()

    def add(self, work: Work) -> None:
        """Keep the lease of this work."""
        self._running.add(work)
        self._idle.clear()
        if self._released:
            work.stop(AttemptOutcome.released)

    def remove(self, work: Work) -> None:
        """The work is over."""
        self._running.discard(work)
        self._note_idle()

    def _note_idle(self) -> None:
        if not self._running and not self._claiming:
            self._idle.set()

    @property
    def count(self) -> int:
        """Steps that run."""
        return len(self._running)

    async def drain(self, *, timeout_s: float) -> None:
        """Let running work finish for a while, then stop it, so that its steps are handed back."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), timeout_s)
        self._released = True
        for work in list(self._running):
            work.stop(AttemptOutcome.released)
        try:
            await asyncio.wait_for(self._idle.wait(), HAND_BACK_S)
        except TimeoutError:
            hint = "the database is away; they are taken up when their leases run out"
            log.warning("steps_not_handed_back", steps=len(self._running), hint=hint)

    async def close(self) -> None:
        """End the heartbeat and the listener."""
        await end_tasks(*self._tasks)

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(self._heartbeat_s)
            asked = list(self._running)
            if not asked:
                continue
            ours = await patiently(
                self._outage,
                lambda: self._database.run(
                    lambda connection: heartbeat(
                        connection, worker=self._worker, now=time.time(), lease_s=self._lease_s
                    ),
                    urgent=True,
                ),
            )
            await self._abandon(ours)
            for work in asked:
                if work in self._running and work.key not in ours:
                    log.info("step_no_longer_ours", job=work.key[0], step=work.key[1], attempt=work.key[2])
                    work.stop(AttemptOutcome.cancelled)

    async def _abandon(self, ours: set[tuple[str, str, int]]) -> None:
        """A step whose work broke here must not live on by our heartbeat. Twice in a row: a claim is ours before its work."""
        idle = ours - {work.key for work in self._running}
        broken, self._idle_leases = idle & self._idle_leases, idle
        if broken:
            log.error(
                "steps_abandoned", steps=len(broken), hint="the log has what broke them; the sweeper takes them up"
            )
            await patiently(
                self._outage,
                lambda: self._database.run(lambda connection: abandon_steps(connection, broken, worker=self._worker)),
            )

    async def _listen(self) -> None:
        while True:
            client = subscriber(self._broker_url, timeout_s=CONNECT_TIMEOUT_S)
            try:
                async with client.pubsub() as channel:
                    await channel.subscribe(CANCEL_CHANNEL)
                    self._redis_outage.back()
                    async for message in heard(channel):
                        if message["type"] == "message":
                            self._on_notice(message["data"])
            except (redis.RedisError, OSError) as exc:
                self._redis_outage.lost(exc)
            finally:
                with contextlib.suppress(redis.RedisError, OSError):
                    await client.aclose()
            await asyncio.sleep(RESUBSCRIBE_S)

    def _on_notice(self, data: bytes) -> None:
        try:
            notice = cast(dict[str, Any], json.loads(data))
            job_id, steps = str(notice["job"]), cast("list[str] | None", notice["steps"])
        except (ValueError, KeyError, TypeError):
            log.warning("cancel_notice_refused", hint="something else publishes on " + CANCEL_CHANNEL)
            return
        for work in list(self._running):
            if work.key[0] == job_id and (steps is None or work.key[1] in steps):
                work.stop(AttemptOutcome.cancelled)
