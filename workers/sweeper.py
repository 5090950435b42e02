"""The sweeper: what time alone must move. Any number may run; each round is safe beside the others.

It takes up the steps of dead workers, rings again for steps whose message was lost, wakes jobs at their limits, ends
jobs whose client has gone, and repeats answers that did not arrive.
"""

import asyncio
import time
from collections.abc import Iterable

import redis
import structlog
from sqlalchemy.engine import Connection

from ..schemas.errors import StoreError
from ..schemas.messages import Envelope
from ..schemas.settings import Settings
from ..store.jobs import job_result, unreplied
from ..store.sweep import (
    DueStep,
    any_unrung,
    attached_jobs,
    due_jobs,
    due_steps,
    forget_times,
    mark_published,
    ready_counts,
    reclaim_lost,
    running_leases,
)
from .clocks import ClockWatch, LeaseWatch
from .coordinator import Coordinator
from .counters import counters
from .ending import end_tasks
from .outage import DATABASE, REDIS, outage_of, patiently
from .queues import broker_url, job_channel, list_keys
from .redis_clients import async_redis_client

REPUBLISH_S = 5.0
"""Seconds after which a step that is still unclaimed may be rung for again."""
VANISHED_S = 0.8
"""Seconds after its last sight at which the subscriber of an attached job counts as gone."""
RESUBSCRIBED_S = 15.0
"""Seconds after a restart of Redis in which clients may be absent."""
REPLIES_MAX = 100
MOVES_MAX = 200
"""Jobs that are moved on at once."""
AGAIN_S = 10.0
"""Seconds after which a job that could not be moved on, or answered for, is tried again."""
log = structlog.stdlib.get_logger(__name__)


class Sweeper:
    """Runs rounds for ever; belongs to one event loop."""

    def __init__(self, settings: Settings, coordinator: Coordinator) -> None:
        self._settings = settings
        self._coordinator = coordinator
        self._database = coordinator.database
        self._redis = async_redis_client(broker_url(settings), socket_timeout=5, socket_connect_timeout=5)
        self._store_outage = outage_of(DATABASE)
        self._redis_outage = outage_of(REDIS)
        self._watched: dict[str, float] = {}
        """Attached jobs, and the monotonic time until which their clients count as present."""
        self._redis_run_id = ""
        self._leases = LeaseWatch(lease_s=settings.lease_s, sweep_s=settings.sweep_s)
        self._clock = ClockWatch()
        self._went_back = False
        """Whether the clock was set back and what waits for the old time has yet to be told."""
        self._deadlines_from = 0.0
        """Monotonic time from which jobs are woken at their limits again."""
        self._moving: dict[str, asyncio.Task[None]] = {}
        """Jobs that are being moved on beside the rounds: their answers may have to be compared first."""
        self._replying: asyncio.Task[None] | None = None
        self._put_off: dict[str, float] = {}
        """Jobs that are left alone for now, and the monotonic time until which they are."""
        self._broken: set[str] = set()
        """Jobs of which the log says already that they cannot be moved on."""

    async def run(self) -> None:
        """Sweep every `K2THINK_SWEEP_S` seconds until cancelled."""
        try:
            while True:
                try:
                    await self.round()
                except Exception:
                    log.exception("sweep_failed", hint="the next round tries again")
                await asyncio.sleep(self._settings.sweep_s)
        finally:
            await end_tasks(*self._moving.values(), *([] if self._replying is None else [self._replying]))
            await self._redis.aclose()

    async def round(self) -> None:
        """One round. A service that is away ends it; the next round tries again. One job that fails holds up no other."""
        try:
            await self._reclaim()
            await self._look_at_clock()
            await self._wake()
            await self._repeat_replies()
            self._store_outage.back()
        except StoreError as exc:
            self._store_outage.lost(exc)
            return
        try:
            await self._ring()
            await self._end_abandoned()
            self._redis_outage.back()
        except (redis.RedisError, OSError) as exc:
            self._redis_outage.lost(exc)
            self._redis_run_id = ""
        except StoreError as exc:
            self._store_outage.lost(exc)

    async def _look_at_clock(self) -> None:
        """A clock that was set is said once. Limits of jobs rest for one lease, in which it may be set right again."""
        now, monotonic = self._database.now(), time.monotonic()
        if jump_s := self._clock.jump_s(now=now, monotonic=monotonic):
            hint = "let the clock be slewed, not set; deadlines are kept by it and come sooner or later by as much"
            log.warning("clock_jumped", seconds=round(jump_s, 1), hint=hint)
            self._deadlines_from = monotonic + self._settings.lease_s
            self._went_back = self._went_back or jump_s < 0
        if self._went_back:
            await self._database.run(lambda connection: forget_times(connection, now=self._database.now()))
            self._went_back = False

    async def _reclaim(self) -> None:
        leases = await self._database.read(running_leases)
        for lease in self._leases.run_out(leases, at=time.monotonic(), now=self._database.now()):
            lost = await self._database.run(
                lambda connection, lease=lease: reclaim_lost(
                    connection, lease, now=self._database.now(), attempts_max=self._settings.attempts_max
                )
            )
            for step in lost:
                counters().lost(dead=step.dead)
                place = {"job": step.job_id, "step": step.step, "attempt": step.attempt}
                log.warning("lease_ran_out", **place, dead_letter=step.dead)
                self._coordinator.dispatcher.notify_cancel(step.job_id, [step.step])
            self._start_moving({step.job_id for step in lost if step.dead})

    async def _wake(self) -> None:
        """Jobs whose soft limit or deadline has come."""
        room = MOVES_MAX - len(self._moving)
        if room <= 0 or time.monotonic() < self._deadlines_from:
            return
        skip = [*self._moving, *self._resting()]
        now = self._database.now()
        self._start_moving(
            await self._database.read(lambda connection: due_jobs(connection, now=now, limit=room, skip=skip))
        )

    def _start_moving(self, job_ids: Iterable[str]) -> None:
        for job_id in job_ids:
            if job_id not in self._moving:
                self._moving[job_id] = asyncio.get_running_loop().create_task(self._move(job_id))

    async def _move(self, job_id: str) -> None:
        try:
            await self._coordinator.advance(job_id)
        except Exception:
            self._tell_broken(job_id)
            self._rest(job_id)
        finally:
            del self._moving[job_id]

    async def _repeat_replies(self) -> None:
        if self._replying is not None and not self._replying.done():
            return
        skip = self._resting()
        owed = await self._database.read(lambda connection: unreplied(connection, limit=REPLIES_MAX, skip=skip))
        if owed:
            self._replying = asyncio.get_running_loop().create_task(self._reply(owed))

    async def _reply(self, owed: list[tuple[str, str]]) -> None:
        """Answer one after the other, until one answer cannot be sent: the next may have to wait as long in vain."""
        for job_id, reply_to in owed:
            try:
                _status, result = await patiently(
                    self._store_outage,
                    lambda job_id=job_id: self._database.read(lambda connection: job_result(connection, job_id)),
                )
                if result is None or await self._coordinator.reply(job_id, reply_to, result):
                    continue
            except Exception:
                self._tell_broken(job_id)
                self._rest(job_id)
            else:
                self._rest(job_id)
                return

    def _tell_broken(self, job_id: str) -> None:
        """Called where an exception is handled."""
        if job_id not in self._broken:
            self._broken.add(job_id)
            log.exception("job_skipped", job=job_id, hint="the others go on; it is tried again every few seconds")

    def _rest(self, job_id: str) -> None:
        self._put_off[job_id] = time.monotonic() + AGAIN_S

    def _resting(self) -> list[str]:
        now = time.monotonic()
        self._put_off = {job_id: until for job_id, until in self._put_off.items() if until > now}
        return [*self._put_off]

    async def _ring(self) -> None:
        """Ring for due steps that nobody has rung for, and again for those of every queue that holds too few messages.

        A queue should hold as many as there are steps ready for it; which of them is missing cannot be seen. Steps that
        were taken back from a lost worker do not have to wait until the queue has run short.
        """
        now = self._database.now()
        ready, unrung = await self._database.read(
            lambda connection: (ready_counts(connection), any_unrung(connection, now=now))
        )
        missing = {queue: count - await self._waiting(queue) for queue, count in ready.items()}
        if not unrung and not any(count > 0 for count in missing.values()):
            return

        def take(connection: Connection) -> list[DueStep]:
            now = self._database.now()
            left = dict(missing)
            taken: list[DueStep] = []
            short = [queue for queue, count in missing.items() if count > 0]
            for step in due_steps(connection, now=now, short=short):
                if not step.rung or left.get(step.queue, 0) > 0:
                    left[step.queue] = left.get(step.queue, 0) - 1
                    taken.append(step)
            mark_published(connection, [(step.job_id, step.step) for step in taken], now=now, due_at=now + REPUBLISH_S)
            return taken

        again: list[Envelope] = []
        for step in await self._database.run(take):
            if step.message is not None:
                again.append(step.message)
            elif step.job_id not in self._broken:
                self._broken.add(step.job_id)
                log.error("step_skipped", job=step.job_id, step=step.step, hint="its message cannot be read")
        if again:
            log.info("steps_rung_again", steps=len(again))
            self._coordinator.dispatcher.publish(again)

    async def _waiting(self, queue: str) -> int:
        async with self._redis.pipeline(transaction=False) as pipeline:
            for key in list_keys(queue):
                pipeline.llen(key)
            return sum(await pipeline.execute())

    async def _end_abandoned(self) -> None:
        """A client that waits for its job holds a subscription; one that died holds none."""
        jobs = await self._database.read(attached_jobs)
        run_id = str((await self._redis.info("server"))["run_id"])
        now = time.monotonic()
        if run_id != self._redis_run_id:  # another Redis: its clients have yet to subscribe again
            self._redis_run_id = run_id
            self._watched = dict.fromkeys(jobs, now + RESUBSCRIBED_S)
        if not jobs:
            return
        counts = await self._redis.pubsub_numsub(*[job_channel(job_id) for job_id in jobs])
        watched: dict[str, float] = {}
        for job_id, (_channel, subscribers) in zip(jobs, counts, strict=True):
            until = max(self._watched.get(job_id, 0.0), now + VANISHED_S if subscribers else 0.0)
            until = until or now + VANISHED_S
            if until > now:
                watched[job_id] = until
                continue
            log.info("client_vanished", job=job_id)
            try:
                await self._coordinator.cancel(job_id, reason="the client that waited for it went away")
            except Exception:
                self._tell_broken(job_id)
                watched[job_id] = now + AGAIN_S
        self._watched = watched
