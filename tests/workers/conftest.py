"""Fixtures of whole stacks, of single workers and of limiters; what they are made of is in `tests/harness/`."""

import asyncio
import subprocess
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from harness.limiters import LimiterMaker
from harness.lone_worker import Worker
from harness.stack import RunningUp
from k2think.agents.backends.simulator import SimulatedEngine, SimulatedServer, SolvingResponder
from k2think.schemas.backend_settings import BackendSettings
from k2think.workers import limits
from k2think.workers.limits import RedisLimiter, limiter_of


@pytest.fixture(scope="module")
def start_up() -> Iterator[Callable[..., RunningUp]]:
    """A function that starts `k2think up` with these variables and waits until all its workers run."""
    running: list[RunningUp] = []
    with tempfile.TemporaryDirectory(prefix="k2up-") as root:

        def start(**environment: str) -> RunningUp:
            folder = Path(root) / str(len(running))
            folder.mkdir()
            up = RunningUp(folder, environment)
            running.append(up)
            up.wait_for(
                lambda: (
                    up.count("worker_started") >= 5
                    and all(up.count(event) >= 1 for event in ("sweeper_started", "gateway_started"))
                ),
                "the start of `up`",
            )
            return up

        try:
            yield start
        finally:
            for up in running:
                try:
                    up.stop()
                except subprocess.TimeoutExpired:
                    up.process.kill()
                    up.process.wait()


@dataclass(frozen=True)
class SimulatedStack:
    """`up` with all its models on a simulated server."""

    up: RunningUp
    server: SimulatedServer


@pytest.fixture(scope="module")
def simulated_up(start_up: Callable[..., RunningUp]) -> Iterator[SimulatedStack]:
    """A stack for the module; the server lives on an event loop of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    engine = SimulatedEngine(slots=64, token_s=0.001)
    server = SimulatedServer(SolvingResponder(accuracy=0.6, reasoning_tokens=20), engine=engine)
    asyncio.run_coroutine_threadsafe(server.start(), loop).result(10)
    try:
        up = start_up(
            K2THINK_GENERATOR__BACKEND="openai",
            K2THINK_GENERATOR__BASE_URL=server.url,
            K2THINK_GENERATOR__MODEL="simulated",
        )
        yield SimulatedStack(up, server)
        up.stop()
    finally:
        asyncio.run_coroutine_threadsafe(server.stop(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


@pytest.fixture
def start_worker(tmp_path: Path) -> Iterator[Callable[..., Worker]]:
    """A function that starts a worker with these variables."""
    workers: list[Worker] = []

    def start(**environment: str) -> Worker:
        worker = Worker(tmp_path / f"worker-{len(workers)}.log", {"K2THINK_DATA_DIR": str(tmp_path), **environment})
        workers.append(worker)
        return worker

    yield start
    for worker in workers:
        try:
            worker.stop()
        except subprocess.TimeoutExpired:
            worker.process.kill()
            worker.process.wait()


@pytest.fixture
async def limiter(redis_server: Any, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[LimiterMaker]:
    """`limiter(streams_max=…)`: one process's keeper of the limits of one backend."""
    monkeypatch.setattr(limits, "AWAY_S", 0.1)
    made: list[RedisLimiter] = []

    def make(**fields: object) -> RedisLimiter:
        settings = BackendSettings.model_validate({"backend": "openai", "model": "m", **fields})
        one = limiter_of("fast", settings, broker_url=redis_server.url)
        assert one is not None
        made.append(one)
        return one

    yield make
    for one in made:
        await one.aclose()
