"""Ending tasks for certain, and this process."""

import asyncio
import os
import signal
import threading
from typing import Any

import structlog

from ..schemas.settings import Settings

AGAIN_S = 0.1
"""Seconds after which a task that has not ended is cancelled once more."""
HANG_S = 20.0
"""Seconds, after K2THINK_SHUTDOWN_S, in which a process told to stop gives back what it holds. Sockets to a service that
fell silent without a word may hang for longer."""
log = structlog.stdlib.get_logger(__name__)


async def end_tasks(*tasks: "asyncio.Future[Any]") -> None:
    """Cancel tasks until they have ended.

    Once is not always enough: a cancellation can get lost while a client connects to Redis.
    """
    while pending := [task for task in tasks if not task.done()]:
        for task in pending:
            task.cancel()
        await asyncio.wait(pending, timeout=AGAIN_S)
    await asyncio.gather(*tasks, return_exceptions=True)


def end_in_time(settings: Settings) -> None:
    """Called in the main thread when this process is told to stop: whatever hangs, it is over in time.

    Leases make good what is lost by that. Being told again changes nothing.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    threading.Thread(target=_end, args=(settings.shutdown_s + HANG_S,), name="k2think-end", daemon=True).start()


def _end(after_s: float) -> None:
    threading.Event().wait(after_s)
    log.error("drain_cut_short", seconds=after_s, hint="what was not handed back is taken up when its lease runs out")
    os._exit(1)
