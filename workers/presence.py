"""Signs of life: each process keeps a row of its own in table `workers`, with its counters. Best effort."""

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Callable

import structlog

from .. import __version__
from ..schemas.errors import StoreError
from ..schemas.settings import Settings
from ..store.database import Database
from ..store.workers import WorkerRow, forget_workers, remove_worker, sign_of_life
from .counters import counters

FORGET_AFTER_S = 3_600.0
"""Age of a last sign of life after which the row is deleted."""
FORGET_EVERY_S = 600.0
LEAVE_TIMEOUT_S = 2.0
log = structlog.stdlib.get_logger(__name__)


def process_id(role: str) -> str:
    """Make an id for this process that no other has had."""
    return f"{role}-{socket.gethostname()}-{os.getpid()}-{os.urandom(3).hex()}"


def _nothing() -> int:
    return 0


class Presence:
    """The row of this process; belongs to one event loop.

    A database that is away is no reason to stop or to complain: who works on it says so, and the next sign comes soon.
    """

    def __init__(
        self,
        settings: Settings,
        database: Database,
        *,
        worker: str,
        role: str,
        backend: str | None = None,
        capacity: int = 0,
        running: Callable[[], int] = _nothing,
    ) -> None:
        """`capacity`: steps that it can run at once; `running` tells how many it runs now."""
        self._database = database
        self._every_s = settings.heartbeat_s
        self._alive_file = settings.alive_file
        self._worker = worker
        self._role = role
        self._backend = backend
        self._capacity = capacity
        self._running = running
        self._draining = False
        self._started_at = time.time()
        self._forget_at = 0.0
        self._task: asyncio.Task[None] | None = None
        self._leaving = asyncio.Event()
        self._signing = asyncio.Lock()
        """Two signs at once could both find no row yet."""

    def start(self) -> None:
        """Begin to give signs."""
        self._task = asyncio.get_running_loop().create_task(self._beat())

    async def drain(self) -> None:
        """Tell that this process was told to stop."""
        self._draining = True
        with contextlib.suppress(StoreError, TimeoutError):
            await asyncio.wait_for(self._sign(), LEAVE_TIMEOUT_S)

    async def close(self) -> None:
        """Take the row away."""
        self._leaving.set()
        if self._task is not None:
            # Not cancelled at once: a sign that is under way would be written all the same, after the removal.
            await asyncio.wait((self._task,), timeout=LEAVE_TIMEOUT_S)
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        with contextlib.suppress(StoreError, TimeoutError):
            await asyncio.wait_for(
                self._database.run(lambda connection: remove_worker(connection, self._worker)), LEAVE_TIMEOUT_S
            )

    async def _beat(self) -> None:
        while not self._leaving.is_set():
            self._touch()
            try:
                await self._sign()
                await self._forget()
            except StoreError as exc:
                log.debug("sign_of_life_lost", reason=str(exc))
            except Exception:
                log.exception("sign_of_life_failed", hint="the next one comes all the same")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._leaving.wait(), self._every_s)

    def _touch(self) -> None:
        """Also while the database is away: that is no reason to be restarted."""
        if self._alive_file is not None:
            try:
                self._alive_file.touch()
            except OSError as exc:
                hint = "K2THINK_ALIVE_FILE must be a file in a folder that this process can write"
                log.warning("alive_file_not_touched", reason=str(exc), hint=hint)
                self._alive_file = None

    async def _sign(self) -> None:
        async with self._signing:
            row = WorkerRow(
                worker=self._worker,
                role=self._role,
                host=socket.gethostname(),
                pid=os.getpid(),
                version=__version__,
                backend=self._backend,
                capacity=self._capacity,
                running=self._running(),
                draining=self._draining,
                started_at=self._started_at,
                seen_at=self._database.now(),
                metrics=counters().snapshot(),
            )
            await self._database.run(lambda connection: sign_of_life(connection, row))

    async def _forget(self) -> None:
        """Sweepers delete the rows of processes that died long ago."""
        if self._role not in ("sweeper", "all") or time.monotonic() < self._forget_at:
            return
        before = self._database.now() - FORGET_AFTER_S
        await self._database.run(lambda connection: forget_workers(connection, before=before))
        self._forget_at = time.monotonic() + FORGET_EVERY_S
