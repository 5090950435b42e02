"""What the suite of all backends that speak to a server is made of: settings, requests, streams read to their end."""

from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from k2think.agents.backends.base import Backend
from k2think.agents.backends.simulator import Reply, SimulatedServer
from k2think.schemas.backend_settings import BackendSettings
from k2think.schemas.completion import ChatMessage, CompletionRequest, Delta, Finish

Connect = Callable[..., Backend]


class Watching:
    """Whether streams are asked for delta by delta."""

    on = True


KEY = "sk-test-3f9a71c2"
AMPLE = {"connect_timeout_s": 20.0, "first_token_timeout_s": 30.0, "idle_timeout_s": 30.0}
"""Seconds that only a hanging test uses up; tests of the time-outs set their own."""
HELLO = Reply(text="It is 405, Jürgen 🎉.")


@dataclass
class Collected:
    """A stream read to its end."""

    deltas: list[Delta]
    finish: Finish

    @property
    def text(self) -> str:
        return "".join(delta.text for delta in self.deltas)

    @property
    def reasoning(self) -> str:
        return "".join(delta.reasoning for delta in self.deltas)


async def collect(backend: Backend, request: CompletionRequest, seen: list[Any] | None = None) -> Collected:
    """Read a stream to its end into `seen` and hold it to the protocol: deltas, then exactly one Finish."""
    items: list[Any] = [] if seen is None else seen
    unseen: list[Delta] | None = None if Watching.on else []
    stream: Any = backend.stream(request, unseen=unseen)
    try:
        async with aclosing(stream):
            async for item in stream:
                items.append(item)
    finally:
        items += unseen or ()
    assert all(isinstance(item, Delta) for item in items[:-1])
    assert isinstance(items[-1], Finish)
    return Collected(items[:-1], items[-1])


def pieces(deltas: list[Delta]) -> int:
    """Return how many pieces of the server's stream they are."""
    return sum(delta.pieces for delta in deltas)


def ask(text: str = "What is 347 + 58?", **fields: Any) -> CompletionRequest:
    """Return a request with one user turn."""
    return CompletionRequest(messages=(ChatMessage(role="user", content=text),), **fields)


def settings_for(kind: str, server: SimulatedServer | str, **fields: Any) -> BackendSettings:
    """Return settings of a kind for a server or a base URL."""
    url = server if isinstance(server, str) else server.root_url if kind == "cerebras" else server.url
    values = {"backend": kind, "base_url": url, "model": "simulated", "api_key": KEY, **AMPLE, **fields}
    return BackendSettings.model_validate(values)
