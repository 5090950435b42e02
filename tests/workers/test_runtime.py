"""What a worker takes on: a backend's weight is its generators', and so is the name that the worker is seen under."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
from k2think.schemas.settings import Settings
from k2think.store.migrate import upgrade
from k2think.store.workers import seen_workers
from k2think.workers.runtime import REMOTE_CONCURRENCY, RULES_CONCURRENCY, Runtime

FAST: dict[str, Any] = {"backend": "openai", "base_url": "http://127.0.0.1:9/v1", "model": "m", "weight": 4}
OWN: dict[str, Any] = {"backend": "openai", "base_url": "http://127.0.0.1:9/v1", "model": "p", "concurrency": 8}


def runtime(folder: Path, role: str, **roles: Any) -> Runtime:
    settings = Settings(
        _env_file=None,  # pyright: ignore[reportCallIssue]
        data_dir=folder,
        broker_url="redis://127.0.0.1:9/0",  # pyright: ignore[reportArgumentType]
        backends={"fast": FAST},  # pyright: ignore[reportArgumentType]
        **{"generator": {"backend": "fast"}, **roles},
    )
    upgrade(settings.sqlalchemy_url)
    return Runtime(settings, role=role, backend="fast")


@pytest.mark.parametrize(
    ("role", "roles", "capacity", "backend"),
    [
        ("generator", {}, 4 * REMOTE_CONCURRENCY, "fast"),
        ("generator", {"generator": {"backend": "fast", "concurrency": 10}}, 40, "fast"),
        ("all", {"planner": OWN, "verifier": OWN, "generator": {"backend": "fast", "concurrency": 1}}, 8, "fast"),
        ("all", {"planner": OWN, "generator": {"backend": "fast", "concurrency": 3}}, 12, "fast"),
        ("planner", {"planner": OWN}, 8, None),
        ("verifier", {}, REMOTE_CONCURRENCY, None),
        ("safety", {}, RULES_CONCURRENCY, None),
        ("safety", {"safety": OWN}, 8, None),
    ],
)
async def test_only_generators_are_bound_to_a_backend_and_weighed_by_it(
    tmp_path: Path, role: str, roles: dict[str, Any], capacity: int, backend: str | None
) -> None:
    made = runtime(tmp_path, role, **roles)
    try:
        assert made.concurrency == capacity
        made.presence.start()
        deadline = time.monotonic() + 30
        while not (rows := made.database.read_sync(lambda conn: seen_workers(conn, since=0))):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)
        assert [(row.role, row.capacity, row.backend) for row in rows] == [(role, capacity, backend)]
    finally:
        await made.presence.close()
        await made.backends.close()
        made.dispatcher.close()
        made.database.close()
