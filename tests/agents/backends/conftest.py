"""Backends that speak to a server: each kind, and as many of it as a test wants."""

from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Any

import pytest
from harness.conformance import Watching, settings_for
from k2think.agents.backends.base import Backend
from k2think.agents.backends.registry import create_backend
from k2think.agents.backends.simulator import SimulatedServer


@pytest.fixture(params=["openai", "openai-unwatched", "vllm", "vllm-unwatched", "cerebras", "cerebras-unwatched"])
def kind(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each kind of backend that speaks to a server, watched and, where that makes a difference, not."""
    name, _, unwatched = request.param.partition("-")
    Watching.on = not unwatched
    yield name
    Watching.on = True


@pytest.fixture
async def connect(kind: str) -> AsyncGenerator[Callable[..., Backend], None]:
    """Make backends of the kind; all are closed at the end."""
    made: list[Backend] = []

    def make(server: SimulatedServer | str, **fields: Any) -> Backend:
        made.append(create_backend(settings_for(kind, server, **fields), name=kind))
        return made[-1]

    yield make
    for backend in made:
        await backend.aclose()
