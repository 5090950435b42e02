"""A Celery task pool on one asyncio loop: a thousand streams in one process for a few megabytes.

It bypasses Celery's synchronous tracer. A task body is a coroutine function `(message, *, acknowledge, task_id)`: it calls
`acknowledge()` once the work is safe in SQL, which takes the message off the broker. What waits for its turn stays
unacknowledged and so bounded by the prefetch window; what runs is bounded by the pool's limit. Redis hands out the most
urgent message first, but knows nothing of those that were fetched already: so the pool's own queue goes by priority, too.
"""

import asyncio
import contextlib
import heapq
import itertools
import os
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine
from functools import partial
from typing import Any, ClassVar, Protocol, cast

import structlog
from celery.concurrency.base import BasePool
from kombu.serialization import loads

INTAKE_WINDOW_MAX = 64
"""Messages fetched ahead at most, so that one worker does not hoard what another could run."""
START_TIMEOUT_S = 60.0

Acknowledge = Callable[[], None]
TaskBody = Callable[..., Coroutine[Any, Any, None]]
log = structlog.stdlib.get_logger(__name__)


class PoolRuntime(Protocol):
    """What lives on the pool's loop besides the tasks."""

    async def start(self) -> None:
        """Called once, before the first task."""
        ...

    async def drain(self) -> None:
        """Called once, after the last message was taken; returns when nothing runs any more."""
        ...


class Slots:
    """So many at once. Of those who wait, the most urgent goes first; among equals, the one who came first."""

    def __init__(self, limit: int) -> None:
        self._free = limit
        self._numbers = itertools.count()
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []

    @contextlib.asynccontextmanager
    async def slot(self, priority: int) -> AsyncGenerator[None]:
        """Wait for a slot and hold it; 0 is the most urgent."""
        if self._free and not self._waiting:
            self._free -= 1
        else:
            turn = asyncio.get_running_loop().create_future()
            heapq.heappush(self._waiting, (priority, next(self._numbers), turn))
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self._release()
                raise
        try:
            yield
        finally:
            self._release()

    def _release(self) -> None:
        """Hand the slot on to who waits, else keep it free."""
        while self._waiting:
            turn = heapq.heappop(self._waiting)[2]
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1


class TaskPool(BasePool):
    """Base of the pool classes that `pool_class` makes for Celery's worker."""

    runtime: ClassVar[PoolRuntime]

    body_can_be_buffer = True
    signal_safe = False
    task_join_will_block = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._limit = int(self.limit or 1)
        self._loop = asyncio.new_event_loop()
        self._slots = Slots(self._limit)
        self._numbers = itertools.count(1)
        self._tasks: set[asyncio.Task[None]] = set()
        self._accepted: deque[Callable[[], None]] = deque()
        """What tells Celery that a message is accepted, where that may wait until it wakes by itself."""
        self._accepted_max = 1
        self._closing = False

    @property
    def num_processes(self) -> int:
        """What Celery multiplies to its prefetch count: the window of messages fetched ahead."""
        return max(2, min(INTAKE_WINDOW_MAX, self._limit // 4))

    def on_start(self) -> None:
        # Where Redis keeps no copy until then, acknowledging only makes room in the window: waking Celery's loop for each
        # message would be a quarter of its work.
        kept = cast(Any, self.app).conf.broker_transport_options.get("ack_emulation", True)
        self._accepted_max = 1 if kept else max(1, self.num_processes // 2)
        started = threading.Event()
        failure: list[BaseException] = []

        def main() -> None:
            asyncio.set_event_loop(self._loop)
            try:
                self._loop.run_until_complete(self.runtime.start())
            except BaseException as exc:
                failure.append(exc)
            started.set()
            if not failure:
                self._loop.run_forever()

        self._thread = threading.Thread(target=main, name="k2think-loop", daemon=True)
        self._thread.start()
        if not started.wait(START_TIMEOUT_S):
            raise RuntimeError(f"the worker's event loop did not start within {START_TIMEOUT_S:g} s")
        if failure:
            raise failure[0]

    def on_apply(
        self,
        target: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
        callback: Callable[..., None] | None = None,
        accept_callback: Callable[..., None] | None = None,
        **_: Any,
    ) -> None:
        """Called by Celery's consumer thread for every message."""
        self._tell_accepted()
        name, task_id, request, body, content_type, content_encoding = args
        run = cast(Any, self.app).tasks[name].run
        number = next(self._numbers)
        priority = int((request.get("delivery_info") or {}).get("priority") or 0)

        def acknowledge() -> None:
            if accept_callback is not None:
                self._accepted.append(partial(accept_callback, number, time.monotonic()))
            if len(self._accepted) >= self._accepted_max:
                self._tell_accepted()

        def decode() -> Any:
            return loads(body, content_type, content_encoding, accept={"application/json"}) if content_type else body

        def spawn() -> None:
            task = self._loop.create_task(self._run(run, task_id, priority, decode, acknowledge, callback))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        self._loop.call_soon_threadsafe(spawn)

    def _tell_accepted(self) -> None:
        while True:
            try:
                tell = self._accepted.popleft()
            except IndexError:  # perhaps the other thread was quicker
                return
            tell()

    async def _run(
        self,
        run: TaskBody,
        task_id: str,
        priority: int,
        decode: Callable[[], Any],
        acknowledge: Acknowledge,
        callback: Callable[..., None] | None,
    ) -> None:
        began = time.monotonic()
        acknowledged = False

        def acknowledge_once() -> None:
            nonlocal acknowledged
            if not acknowledged:
                acknowledged = True
                acknowledge()

        async with self._slots.slot(priority):
            if self._closing:
                return
            try:
                arguments, keywords, _embed = decode()
                await run(*arguments, **keywords, acknowledge=acknowledge_once, task_id=task_id)
            except Exception:
                log.exception("message_failed", hint="its step is taken up again when its lease runs out")
            acknowledge_once()
            if callback is not None:
                callback((False, None, time.monotonic() - began))

    def on_stop(self) -> None:
        """Warm shutdown: give running steps their time, then hand them back; what was only fetched returns to the broker."""
        self._close()

    def on_terminate(self) -> None:
        """Cold shutdown: the same, as the leases would otherwise have to run out."""
        self._close()

    def _close(self) -> None:
        if self._closing or not self._loop.is_running():
            return
        self._closing = True
        drained = asyncio.run_coroutine_threadsafe(self.runtime.drain(), self._loop)
        try:
            drained.result()
        except Exception:
            log.exception("drain_failed", hint="unfinished steps are taken up again when their leases run out")
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)

    def _get_info(self) -> dict[str, Any]:
        info: dict[str, Any] = super()._get_info()
        info.update({"max-concurrency": self._limit, "running": len(self._tasks), "processes": [os.getpid()]})
        return info


def pool_class(runtime: PoolRuntime) -> type[TaskPool]:
    """Return the pool class to give to Celery's worker, bound to this runtime."""
    return type("BoundTaskPool", (TaskPool,), {"runtime": runtime})
