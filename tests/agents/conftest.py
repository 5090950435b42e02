"""An agent's context bound to the simulated model server: real HTTP through the real OpenAI backend."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass

import pytest
from k2think.agents.backends.openai import OpenAIBackend
from k2think.agents.backends.simulator import ChatRequest, Reply, Responder, Script, SimulatedServer
from k2think.agents.context import AgentContext
from k2think.agents.routing import Route
from k2think.schemas.backend_settings import BackendKind, BackendSettings
from k2think.schemas.trace import CallTrace


@dataclass
class Bound:
    """A context and the server behind it."""

    context: AgentContext
    server: SimulatedServer

    @property
    def requests(self) -> list[ChatRequest]:
        """What the server was asked, in order."""
        return [call.request for call in self.server.calls]


Bind = Callable[..., Awaitable[Bound]]


@pytest.fixture
async def bind() -> AsyncIterator[Bind]:
    """`await bind("reply", Reply(…), model=…)`: a context whose model gives these replies in order, the last one for ever."""
    async with AsyncExitStack() as stack:

        async def make(
            *replies: str | Reply, responder: Responder | None = None, model: str = "simulated", **fields: object
        ) -> Bound:
            script = Script(*(reply if isinstance(reply, Reply) else Reply(text=reply) for reply in replies or ("",)))
            server = await stack.enter_async_context(SimulatedServer(responder or script, models=(model,)))
            settings = BackendSettings.model_validate(
                {"backend": BackendKind.openai, "base_url": server.url, "model": model, "connect_retries": 0, **fields}
            )
            backend = OpenAIBackend(settings, name="simulated")
            stack.push_async_callback(backend.aclose)
            route = Route.to(backend, settings)
            context = AgentContext(job_id="job", step="step", attempt=1, route=route, record=CallTrace())
            return Bound(context, server)

        yield make
