"""Ending tasks for certain."""

import asyncio
from typing import Any

AGAIN_S = 0.1
"""Seconds after which a task that has not ended is cancelled once more."""


async def end_tasks(*tasks: "asyncio.Future[Any]") -> None:
    """Cancel tasks until they have ended.

    Once is not always enough: a cancellation can get lost while a client connects to Redis.
    """
    while pending := [task for task in tasks if not task.done()]:
        for task in pending:
            task.cancel()
        await asyncio.wait(pending, timeout=AGAIN_S)
    await asyncio.gather(*tasks, return_exceptions=True)
