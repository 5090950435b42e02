"""Calls to a server with quotas, by limits shared through a real Redis: they wait for their turn instead of being refused."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, aclosing
from typing import Any

import pytest
from harness.limiters import LimiterMaker
from k2think.agents.backends.openai import OpenAIBackend
from k2think.agents.backends.simulator import CallOutcome, Reply, Script, ServerRates, SimulatedServer
from k2think.agents.call import call_model
from k2think.schemas.backend_settings import BackendSettings
from k2think.schemas.completion import ChatMessage, CompletionRequest
from k2think.schemas.trace import CallTrace


@pytest.fixture
async def limited() -> AsyncIterator[Callable[..., Any]]:
    """`await limited(requests_per_minute=…)`: a simulated server with quotas."""
    async with AsyncExitStack() as stack:

        async def make(**quotas: object) -> SimulatedServer:
            rates = ServerRates(**quotas)  # type: ignore[arg-type]
            reply = Reply(text="word " * 20, token_s=0.001)
            return await stack.enter_async_context(SimulatedServer(Script(reply), rates=rates))

        yield make


REQUEST = CompletionRequest(messages=(ChatMessage(role="user", content="What is 347 + 58?"),), max_tokens=400)


@pytest.mark.parametrize("quota", ["requests_per_minute", "tokens_per_minute"])
async def test_calls_to_a_limited_server_wait_instead_of_being_refused(
    limiter: LimiterMaker, limited: Callable[..., Any], quota: str
) -> None:
    per_minute = {"requests_per_minute": 60, "tokens_per_minute": 1_200}[quota]
    server = await limited(**{quota: per_minute})
    settings = BackendSettings.model_validate(
        {"backend": "openai", "base_url": server.url, "model": "simulated", quota: per_minute}
    )
    backends = [OpenAIBackend(settings, name="fast") for _ in range(2)]
    keepers = [limiter(base_url=server.url, **{quota: per_minute}) for _ in range(2)]
    records = [CallTrace() for _ in range(61 if quota == "requests_per_minute" else 20)]
    calls = (
        call_model(backends[number % 2], REQUEST, record=record, settings=settings, limiter=keepers[number % 2])
        for number, record in enumerate(records)
    )
    began = time.monotonic()
    async with aclosing(backends[0]), aclosing(backends[1]):
        await asyncio.gather(*calls)
    took_s = time.monotonic() - began
    assert not [call for call in server.calls if call.outcome is CallOutcome.refused]
    assert len(server.calls) == len(records)
    waits = [record.limit_wait_s for record in records if record.limit_wait_s is not None]
    assert len(waits) == len(records)
    assert max(waits) > 0.1, "the bucket does not hold all of them"
    for record in records:
        assert record.time_to_first_token_s is not None
        assert record.time_to_first_token_s <= record.duration_s
        assert record.duration_s + (record.limit_wait_s or 0) <= took_s + 0.1
    assert min(record.duration_s for record in records) < 1.0


async def test_a_call_that_is_cancelled_in_line_was_not_begun(
    limiter: LimiterMaker, limited: Callable[..., Any]
) -> None:
    server = await limited(requests_per_minute=600)
    settings = BackendSettings.model_validate({"backend": "openai", "base_url": server.url, "model": "simulated"})
    backend, keeper, record = OpenAIBackend(settings, name="fast"), limiter(streams_max=1), CallTrace()
    async with aclosing(backend), keeper.reserve(tokens=10):
        task = asyncio.create_task(call_model(backend, REQUEST, record=record, settings=settings, limiter=keeper))
        await asyncio.sleep(0.2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert not server.calls
    assert record.usage.total == 0
    assert (record.limit_wait_s or 0) >= 0.2
    assert record.duration_s < 0.2


async def test_a_refusal_by_the_server_is_told_to_everybody(limiter: LimiterMaker, limited: Callable[..., Any]) -> None:
    server = await limited(requests_per_minute=60)
    settings = BackendSettings.model_validate({"backend": "openai", "base_url": server.url, "model": "simulated"})
    backend, keeper = OpenAIBackend(settings, name="fast"), limiter(adaptive=True)
    server.rates.requests.take(60)
    record = CallTrace()
    async with aclosing(backend):
        await call_model(backend, REQUEST, record=record, settings=settings, limiter=keeper)
    assert [call.outcome for call in server.calls] == [CallOutcome.refused, CallOutcome.completed]
    assert record.retries == 1
