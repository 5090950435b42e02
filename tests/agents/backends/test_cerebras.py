"""What only Cerebras has: its SDK for real, over its aiohttp transport, against a server that speaks its wire form.

What it has in common with the other kinds is in test_conformance*.py.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from typing import Any

import pytest
from cerebras.cloud.sdk import AsyncCerebras
from k2think.agents.backends.cerebras import CerebrasBackend
from k2think.agents.backends.registry import create_backend
from k2think.agents.backends.simulator import ChatRequest, Fault, FaultKind, Reply, Script, SimulatedServer
from k2think.agents.planner import PLAN_SCHEMA
from k2think.agents.screening.guards import REPLY_SCHEMA
from k2think.agents.verifier import BETTER_INDEX_SCHEMA, PREFERENCE_SCHEMA
from k2think.schemas.completion import ChatMessage, CompletionRequest, Delta, Finish
from k2think.schemas.errors import BackendError, ModelNotFound, Overloaded, PaymentRequired, RateLimited, Unreachable
from k2think.schemas.settings import BackendSettings

KEY = "csk-test-55d1"


@pytest.fixture
async def server() -> AsyncGenerator[SimulatedServer, None]:
    """A server that answers with the question, and wants a key."""
    async with SimulatedServer(echo, api_key=KEY, models=("gpt-oss-120b", "zai-glm-4.7")) as running:
        yield running


def echo(request: ChatRequest) -> Reply:
    """Answer with the last turn."""
    return Reply(text=request.messages[-1][1], token_s=0.001)


def backend_for(server: SimulatedServer, **fields: Any) -> CerebrasBackend:
    """Return a backend of the server's first model."""
    values = {"backend": "cerebras", "base_url": server.root_url, "model": "gpt-oss-120b", "api_key": KEY, **fields}
    made = create_backend(BackendSettings.model_validate(values), name="fast")
    assert isinstance(made, CerebrasBackend)
    return made


async def ask(backend: CerebrasBackend, text: str = "405", **fields: Any) -> tuple[str, Finish]:
    """Return the text and the end of one completion."""
    request = CompletionRequest(messages=(ChatMessage(role="user", content=text),), **fields)
    items = [item async for item in backend.stream(request)]
    return "".join(item.text for item in items if isinstance(item, Delta)), items[-1]  # type: ignore[return-value]


async def test_the_sdks_warm_up_request_is_left_out(server: SimulatedServer) -> None:
    blocking = await asyncio.to_thread(AsyncCerebras, api_key=KEY, base_url=server.root_url)
    await blocking.close()
    assert server.warm_ups == 1, "the SDK has one to leave out, and the server would see it"
    async with aclosing(backend_for(server)) as backend:
        assert (await ask(backend))[0] == "405"
    assert server.warm_ups == 1


async def test_calls_at_once_each_get_their_own_reply(server: SimulatedServer) -> None:
    async with aclosing(backend_for(server)) as backend:
        questions = [f"question {number} of many" for number in range(60)]
        answers = await asyncio.gather(*(ask(backend, question) for question in questions))
    assert [text for text, _ in answers] == questions


@pytest.mark.parametrize("suffix", ["", "/", "/v1", "/v1/"])
async def test_the_address_is_meant_with_or_without_v1(server: SimulatedServer, suffix: str) -> None:
    async with aclosing(backend_for(server, base_url=server.root_url + suffix)) as backend:
        assert (await ask(backend))[0] == "405"
        assert (await backend.probe())["address"] == server.root_url


async def test_reasoning_and_tier_are_sent_as_set(server: SimulatedServer) -> None:
    options = {"reasoning_effort": "low", "reasoning_format": "parsed", "service_tier": "flex"}
    async with aclosing(backend_for(server, **options)) as backend:
        await ask(backend)
    async with aclosing(backend_for(server)) as backend:
        await ask(backend)
    sent, plain = (call.request.body for call in server.calls)
    assert {name: sent[name] for name in options} == options
    assert not set(options) & set(plain)
    assert sent["max_completion_tokens"] == 4096, "the quota reserves it, so it is always said"


async def test_an_openai_server_gets_the_options_that_it_knows(server: SimulatedServer) -> None:
    fields = {"backend": "openai", "base_url": server.url, "model": "gpt-oss-120b", "api_key": KEY}
    settings = BackendSettings.model_validate({**fields, "reasoning_effort": "high", "service_tier": "priority"})
    async with aclosing(create_backend(settings, name="other")) as backend:  # type: ignore[type-var]
        await ask(backend)  # type: ignore[arg-type]
    body = server.calls[0].request.body
    assert (body["reasoning_effort"], body["service_tier"]) == ("high", "priority")
    assert "reasoning_format" not in body


async def test_the_end_tells_times_usage_cache_and_rates() -> None:
    reply = Reply(text="one two three", reasoning="carry", cached_prompt_tokens=4, token_s=0.01)
    async with SimulatedServer(Script(reply)) as server, aclosing(backend_for(server, model="simulated")) as backend:
        text, finish = await ask(backend)
        sent = server.calls[0]
    assert text == "one two three"
    assert finish.usage.completion == sent.sent_tokens
    assert finish.usage.reasoning > 0
    assert finish.cached_prompt_tokens == 4
    assert finish.engine_queue_s is not None
    assert finish.engine_prompt_s == 0.0
    assert finish.engine_completion_s is not None
    assert finish.engine_completion_s >= 0.01 * (sent.sent_tokens - 1)
    assert finish.rate_limits["x-ratelimit-limit-requests-day"] == "14400"


async def test_the_accounts_models_are_listed(server: SimulatedServer) -> None:
    async with aclosing(backend_for(server)) as backend:
        assert await backend.probe() == {
            "address": server.root_url,
            "model": "gpt-oss-120b",
            "models": "gpt-oss-120b, zai-glm-4.7",
        }
    async with aclosing(backend_for(server, model="llama3.1-8b")) as backend:
        with pytest.raises(ModelNotFound, match=r"llama3\.1-8b.*serves gpt-oss-120b, zai-glm-4\.7"):
            await backend.probe()


@pytest.mark.parametrize(
    ("fault", "expected", "words"),
    [
        (Fault(FaultKind.status, status=402, message="no credit"), PaymentRequired, "no credit"),
        (Fault(FaultKind.status, status=429, code="token_quota_exceeded"), RateLimited, "quota of tokens"),
        (Fault(FaultKind.status, status=429, code="request_quota_exceeded"), RateLimited, "quota of requests"),
        (Fault(FaultKind.status, status=429, code="queue_exceeded"), Overloaded, "queue is full"),
        (Fault(FaultKind.status, status=503, headers={"Retry-After": "2"}), Overloaded, "retry after 2 s"),
        (
            Fault(FaultKind.error_mid_stream, after_tokens=1, code="token_quota_exceeded"),
            RateLimited,
            "quota of tokens",
        ),
        (Fault(FaultKind.error_mid_stream, after_tokens=1, code="queue_exceeded"), Overloaded, "queue is full"),
        (Fault(FaultKind.error_mid_stream, after_tokens=1), Overloaded, "failed inside the stream"),
    ],
)
async def test_refusals_keep_their_reason(fault: Fault, expected: type[BackendError], words: str) -> None:
    reply = Reply(text="one two three", fault=fault)
    async with SimulatedServer(Script(reply)) as server, aclosing(backend_for(server, model="simulated")) as backend:
        with pytest.raises(BackendError, match=words) as caught:
            await ask(backend)
    assert type(caught.value) is expected
    if fault.kind is FaultKind.status:
        assert caught.value.rate_limits["x-ratelimit-reset-tokens-minute"] == "11.5"


async def test_no_proxy_of_the_environment_is_used(server: SimulatedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with aclosing(backend_for(server)) as backend:
        assert (await ask(backend))[0] == "405"


async def test_a_server_that_is_down_is_unreachable_for_doctor_too(server: SimulatedServer) -> None:
    async with aclosing(backend_for(server)) as backend:
        await server.stop()
        with pytest.raises(Unreachable, match="cannot be reached"):
            await backend.probe()


def objects_of(schema: Any) -> Iterator[dict[str, Any]]:
    """Yield the schemas of objects, and every other schema, inside one."""
    if isinstance(schema, dict):
        yield schema
        for inner in schema.values():
            yield from objects_of(inner)


@pytest.mark.parametrize("schema", [PLAN_SCHEMA, PREFERENCE_SCHEMA, BETTER_INDEX_SCHEMA, REPLY_SCHEMA])
async def test_what_our_agents_ask_for_is_what_strict_mode_takes(
    server: SimulatedServer, schema: dict[str, Any]
) -> None:
    async with aclosing(backend_for(server)) as backend:
        await ask(backend, json_schema=schema)
    form = server.calls[0].request.body["response_format"]
    assert form["type"] == "json_schema"
    assert form["json_schema"]["strict"] is True
    sent = form["json_schema"]["schema"]
    assert sent == schema
    for part in objects_of(sent):
        if part.get("type") == "object":
            # Inference docs, structured outputs: no further properties, and all of them required.
            assert part["additionalProperties"] is False
            assert sorted(part["required"]) == sorted(part["properties"])
        assert not isinstance(part.get("type"), list), "unions must be anyOf"
        assert not {"minItems", "maxItems", "pattern", "format", "minLength", "maxLength"} & set(part)
