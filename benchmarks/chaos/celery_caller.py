"""Some other service that uses the Celery door: a stock Celery app, which knows the broker and nothing of ours."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from celery import Celery

TIMEOUT_S = 5.0
"""How long a call to Redis may take."""
POLL_S = 0.5
T = TypeVar("T")


class CeleryCaller:
    """Asks k2think by `send_task`. Belongs to one event loop; all its calls are made in a thread of its own."""

    def __init__(self, redis_url: str) -> None:
        self._app = Celery("other-service", broker=redis_url, backend=redis_url, set_as_current=False)
        self._app.conf.update(
            broker_transport_options={"socket_timeout": TIMEOUT_S, "socket_connect_timeout": TIMEOUT_S},
            redis_socket_timeout=TIMEOUT_S,
            redis_socket_connect_timeout=TIMEOUT_S,
        )
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="celery-caller")

    async def ask(self, request: dict[str, Any], *, patience_s: float) -> dict[str, Any] | None:
        """Send the request and wait for its answer; None = none came, since Redis was away or has lost one of the two.

        The answer is looked for now and then: an AsyncResult subscribes, and to lose Redis then ends the whole app.
        """
        deadline = time.monotonic() + patience_s
        task_id = await self._call(
            lambda: self._app.send_task("k2think.solve", [request], queue="intake", retry=False, ignore_result=True).id,
        )
        while task_id is not None and time.monotonic() < deadline:
            await asyncio.sleep(POLL_S)
            found = await self._call(lambda: self._app.backend.get_task_meta(task_id, cache=False))
            if found is not None and found["status"] == "SUCCESS":
                return found["result"]
        return None

    async def _call(self, call: Callable[[], T]) -> T | None:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, call)
        except Exception:
            # Celery, kombu and redis-py have many names for a Redis that is away or ill: all mean to try again.
            return None

    def close(self) -> None:
        """Give back all connections."""
        self._thread.shutdown(wait=False, cancel_futures=True)
        self._app.close()
