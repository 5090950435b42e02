"""`k2think up` with a gateway, its models on a simulated server in a thread of the tests."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from harness.stack import RunningUp
from k2think.agents.backends.simulator import (
    CallRecord,
    ChatRequest,
    Reply,
    SimulatedEngine,
    SimulatedServer,
    SolvingResponder,
    detect_role,
)


@dataclass(frozen=True)
class Replies:
    """The model's replies: to problems with a mark in them what a test asked for, else what the solver says."""

    solver: SolvingResponder
    scripted: dict[tuple[str, str], Reply] = field(default_factory=dict)
    """(role, mark) → reply."""

    def __call__(self, request: ChatRequest) -> Reply:
        role = detect_role(request)
        for (of, mark), reply in list(self.scripted.items()):
            if of == role and mark in request.text:
                return reply
        return self.solver(request)

    def to_mark(self, *, generator: Reply | None = None, planner: Reply | None = None) -> str:
        """Return a fresh mark to put into a problem, whose model calls get these replies (None = the solver's)."""
        mark = f"[{uuid.uuid4().hex[:12]}]"
        for role, reply in (("generator", generator), ("planner", planner)):
            if reply is not None:
                self.scripted[role, mark] = reply
        return mark


@dataclass(frozen=True)
class LiveGateway:
    """`k2think up` with a gateway; every test uses job ids, files and tenants of its own."""

    up: RunningUp
    server: SimulatedServer
    """The model server: what it was asked, and its exact token ledger."""
    replies: Replies
    """What the model says."""

    def calls(self, mark: str) -> list[CallRecord]:
        """The model calls whose prompt holds the mark."""
        return [call for call in list(self.server.calls) if mark in call.request.text]

    @property
    def url(self) -> str:
        """Root of the gateway, without /v1."""
        return self.up.url


@contextlib.contextmanager
def live_stack(**environment: str) -> Iterator[LiveGateway]:
    """A stack of its own. Right three times in five, so that answers are compared, too."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    engine = SimulatedEngine(slots=64, token_s=0.001)
    replies = Replies(SolvingResponder(accuracy=0.6, reasoning_tokens=20))
    server = SimulatedServer(replies, engine=engine)
    asyncio.run_coroutine_threadsafe(server.start(), loop).result(10)
    with tempfile.TemporaryDirectory(prefix="k2gw-") as root:
        up = RunningUp(
            Path(root),
            {
                "K2THINK_GENERATOR__BACKEND": "openai",
                "K2THINK_GENERATOR__BASE_URL": server.url,
                "K2THINK_GENERATOR__MODEL": "simulated",
                **environment,
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
            yield LiveGateway(up, server, replies)
        finally:
            up.stop()
            asyncio.run_coroutine_threadsafe(server.stop(), loop).result(10)
            loop.call_soon_threadsafe(loop.stop)
            thread.join(10)
            loop.close()


@pytest.fixture(scope="session")
def live_gateway() -> Iterator[LiveGateway]:
    """The stack, started once per test process."""
    with live_stack() as live:
        yield live
