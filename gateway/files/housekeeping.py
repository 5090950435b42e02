"""Deleting expired files and orphaned content, in every gateway process."""

import asyncio
import time

import structlog

from ...schemas.errors import StoreError
from ...store.files import drop_expired_files, known_files
from ...workers.outage import DATABASE, outage_of
from ..services import Services
from .storage import remove_content, remove_orphans

EXPIRED_EVERY_S = 10.0
ORPHANS_EVERY_S = 600.0
log = structlog.stdlib.get_logger(__name__)


async def keep_files(services: Services) -> None:
    """Delete what is due until cancelled (a task of the gateway)."""
    orphans_at = time.monotonic()
    while True:
        try:
            await remove_expired(services)
            if time.monotonic() >= orphans_at:
                orphans_at = time.monotonic() + ORPHANS_EVERY_S
                await asyncio.to_thread(_remove_orphans, services)
        except StoreError as exc:
            outage_of(DATABASE).lost(exc)
        except Exception:
            log.exception("housekeeping_failed", hint="the next round tries again")
        await asyncio.sleep(EXPIRED_EVERY_S)


async def remove_expired(services: Services) -> None:
    """Delete the expired files. Should this process die after the rows are gone, the content is an orphan."""
    database = services.database
    while ids := await database.run(lambda connection: drop_expired_files(connection, now=database.now())):
        await asyncio.to_thread(remove_content, services.settings.files_dir, ids)
        log.info("files_expired", files=len(ids))


def _remove_orphans(services: Services) -> None:
    def known(ids: list[str]) -> set[str]:
        return services.database.read_sync(lambda connection: known_files(connection, ids))

    removed = remove_orphans(services.settings.files_dir, known)
    if removed:
        log.info("orphans_removed", files=removed)
