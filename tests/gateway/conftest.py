"""One whole stack with a gateway for all tests of the doors, its models on a simulated server."""

from __future__ import annotations

import asyncio
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from harness.stack import RunningUp
from k2think.agents.backends.simulator import SimulatedEngine, SimulatedServer, SolvingResponder


@dataclass(frozen=True)
class LiveGateway:
    """`k2think up` with a gateway; every test uses job ids, files and tenants of its own."""

    up: RunningUp
    server: SimulatedServer
    """The model server: what it was asked, and its exact token ledger."""

    @property
    def url(self) -> str:
        """Root of the gateway, without /v1."""
        return self.up.url


@pytest.fixture(scope="session")
def live_gateway() -> Iterator[LiveGateway]:
    """The stack, started once per test process. Right three times in five, so that answers are compared, too."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    engine = SimulatedEngine(slots=64, token_s=0.001)
    server = SimulatedServer(SolvingResponder(accuracy=0.6, reasoning_tokens=20), engine=engine)
    asyncio.run_coroutine_threadsafe(server.start(), loop).result(10)
    with tempfile.TemporaryDirectory(prefix="k2gw-") as root:
        up = RunningUp(
            Path(root),
            {
                "K2THINK_GENERATOR__BACKEND": "openai",
                "K2THINK_GENERATOR__BASE_URL": server.url,
                "K2THINK_GENERATOR__MODEL": "simulated",
            },
        )
        try:
            up.wait_for(
                lambda: (
                    up.count("worker_started") >= 5
                    and all(up.count(event) >= 1 for event in ("sweeper_started", "gateway_started"))
                ),
                "the start of `up`",
            )
            yield LiveGateway(up, server)
        finally:
            up.stop()
            asyncio.run_coroutine_threadsafe(server.stop(), loop).result(10)
            loop.call_soon_threadsafe(loop.stop)
            thread.join(10)
            loop.close()
