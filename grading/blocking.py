"""Asynchronous grading for callers that are not: one event loop per process, on a thread of its own.

One loop rather than one per call: a judge's connections belong to the loop that opened them.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from ..schemas.errors import GradingError

T = TypeVar("T")

_lock = threading.Lock()
_loop: asyncio.AbstractEventLoop | None = None
_thread: threading.Thread | None = None


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run `work` to its end and return what it returns, or raise what it raises. Safe from any thread.

    A caller that gives up waiting (KeyboardInterrupt) cancels the work. Never call it from inside such work.
    """
    loop = _running_loop()
    if threading.current_thread() is _thread:
        work.close()
        raise GradingError("a blocking score was asked for inside a score: await the asynchronous one there")
    future = asyncio.run_coroutine_threadsafe(work, loop)
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise


def _running_loop() -> asyncio.AbstractEventLoop:
    global _loop, _thread
    with _lock:
        if _loop is None:
            _loop = asyncio.new_event_loop()
            _thread = threading.Thread(target=_loop.run_forever, name="k2think-scores", daemon=True)
            _thread.start()
        return _loop


def _forget() -> None:
    """In a forked copy of the process: its parent's thread does not exist there."""
    global _lock, _loop, _thread
    _lock, _loop, _thread = threading.Lock(), None, None


os.register_at_fork(after_in_child=_forget)
