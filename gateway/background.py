"""What every gateway process does besides answering. Any number of them may do it: each task claims its work in SQL."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable

from .batches.runner import run_batches
from .files.housekeeping import keep_files
from .operations.presence import keep_presence
from .services import Services

TASKS: tuple[Callable[[Services], Awaitable[None]], ...] = (keep_presence, run_batches, keep_files)
"""Each runs until it is cancelled, and survives a database or Redis that is away."""
LEAVE_S = 5.0
"""Seconds in which the tasks of a stopping process give back what they hold; what hangs is left behind."""


@contextlib.asynccontextmanager
async def background(services: Services) -> AsyncGenerator[None]:
    """Run the tasks while the application serves."""
    running = [asyncio.ensure_future(task(services)) for task in TASKS]
    try:
        yield
    finally:
        for task in running:
            task.cancel()
        await asyncio.wait(running, timeout=LEAVE_S)
