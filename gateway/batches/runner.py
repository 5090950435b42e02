"""Work on open batches, in every gateway process: claimed under a lease, taken up by another when this one dies."""

import asyncio
import contextlib
import time

import structlog
from sqlalchemy import Connection

from ...schemas.errors import StoreError
from ...store.batch_runs import BatchClaim, ClaimLost, any_free, claim_batches, release, renew
from ...workers.outage import DATABASE, outage_of
from ...workers.presence import process_id
from ..services import Services
from .run import BatchRun

RUNS_MAX = 32
"""Batches that one process works on at once."""
LOOK_S = 0.25
"""Seconds between two looks for batches."""
RELEASE_TIMEOUT_S = 2.0
log = structlog.stdlib.get_logger(__name__)


class BatchRunner:
    """The claims of one process; belongs to one event loop."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._database = services.database
        self._lease_s = services.settings.lease_s
        self._owner = process_id("gateway")
        self._runs: dict[BatchClaim, asyncio.Task[None]] = {}
        self._renew_at = 0.0
        self._outage = outage_of(DATABASE)

    @property
    def working(self) -> int:
        """Batches that are worked on now."""
        return sum(not task.done() for task in self._runs.values())

    async def run(self) -> None:
        """Look for work until cancelled, then give back what is not done."""
        try:
            while True:
                try:
                    await self._round()
                    self._outage.back()
                except StoreError as exc:
                    self._outage.lost(exc)
                except Exception:
                    log.exception("batches_failed", hint="the next round tries again")
                await asyncio.sleep(LOOK_S)
        finally:
            await self._leave()

    async def _round(self) -> None:
        self._runs = {claim: task for claim, task in self._runs.items() if not task.done()}
        if self._runs and time.monotonic() >= self._renew_at:
            claims = list(self._runs)
            void = await self._database.run(
                lambda conn: renew(conn, claims, now=self._database.now(), lease_s=self._lease_s), urgent=True
            )
            for claim in void:
                self._runs[claim].cancel()
            self._renew_at = time.monotonic() + self._services.settings.heartbeat_s
        room = RUNS_MAX - self.working
        if room <= 0 or not await self._database.read(self._any_free):
            return
        for claim in await self._database.run(lambda conn: self._claim(conn, room)):
            self._runs[claim] = asyncio.ensure_future(self._work(claim))

    def _any_free(self, conn: Connection) -> bool:
        return any_free(conn, now=self._database.now(), lease_s=self._lease_s)

    def _claim(self, conn: Connection, limit: int) -> list[BatchClaim]:
        return claim_batches(conn, owner=self._owner, now=self._database.now(), lease_s=self._lease_s, limit=limit)

    async def _work(self, claim: BatchClaim) -> None:
        """Work on one batch. One that fails keeps its lease to the end, so that the next try is not at once."""
        try:
            await BatchRun(self._services, claim).work()
        except ClaimLost:
            log.info("batch_claim_over", batch=claim.batch_id, fence=claim.fence)
        except OSError as exc:
            log.error(
                "batch_files_unreachable",
                batch=claim.batch_id,
                reason=exc.strerror,
                hint="all gateways must share K2THINK_GATEWAY__FILES_DIR, with space left; it is tried again",
            )
        except Exception:
            log.exception("batch_run_failed", batch=claim.batch_id, hint="it is tried again when its lease is over")

    async def _leave(self) -> None:
        open_ = [claim for claim, task in self._runs.items() if not task.done()]
        for task in self._runs.values():
            task.cancel()
        await asyncio.gather(*self._runs.values(), return_exceptions=True)

        def give_back(conn: Connection) -> None:
            for claim in open_:
                release(conn, claim)

        if open_:
            with contextlib.suppress(StoreError, TimeoutError):
                await asyncio.wait_for(self._database.run(give_back), RELEASE_TIMEOUT_S)


async def run_batches(services: Services) -> None:
    """Work on batches until cancelled (a task of the gateway)."""
    await BatchRunner(services).run()
