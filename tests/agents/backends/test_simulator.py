"""The simulated server speaks the wire: driven by the stock SDKs, by plain HTTP, and as a command."""

import asyncio
import json
import random
import signal
import sys
from typing import Any

import aiohttp
import openai
import pytest
from cerebras.cloud.sdk import AsyncCerebras
from k2think.agents.backends.simulator import (
    CallOutcome,
    ChatRequest,
    Fault,
    FaultKind,
    ReasoningField,
    Reply,
    Script,
    SimulatedEngine,
    SimulatedServer,
    SolvingResponder,
    detect_role,
    fill_schema,
)
from k2think.schemas.outcomes import Preference
from pydantic import BaseModel

REPLY = Reply(text="It is 405.", reasoning="7 + 8 is 15, carry.")
MESSAGES: Any = [{"role": "user", "content": "What is 347 + 58?"}]


class Verdict(BaseModel):
    """What a judge is asked for, as pydantic writes it (with `$defs`)."""

    preference: Preference
    reason: str


class Ideas(BaseModel):
    topics: list[str]
    plan: str


@pytest.fixture
def client_of() -> Any:
    """Make the stock openai client."""

    def make(server: SimulatedServer, key: str = "none") -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(base_url=server.url, api_key=key, max_retries=0)

    return make


async def test_the_openai_client_streams(client_of: Any) -> None:
    async with SimulatedServer(Script(REPLY)) as server, client_of(server) as client:
        stream = await client.chat.completions.create(
            model="simulated", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    assert "".join(delta.content or "" for delta in deltas) == REPLY.text
    assert "".join(delta.model_extra.get("reasoning", "") for delta in deltas) == REPLY.reasoning
    assert chunks[-1].usage.completion_tokens == server.sent_tokens
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"


@pytest.mark.parametrize(("after", "sent"), [(None, None), (4, 4)])
async def test_a_chunk_may_hold_several_tokens(client_of: Any, after: int | None, sent: int | None) -> None:
    fault = None if after is None else Fault(FaultKind.no_end, after_tokens=after)
    reply = Reply(text=REPLY.text, reasoning=REPLY.reasoning, fault=fault)
    async with (
        SimulatedServer(Script(reply), engine=SimulatedEngine(chunk_tokens=3)) as server,
        client_of(server) as client,
    ):
        stream = await client.chat.completions.create(model="simulated", messages=MESSAGES, stream=True)
        deltas = [chunk.choices[0].delta async for chunk in stream if chunk.choices]
    told = ["".join(value or "" for value in (delta.content, delta.model_extra.get("reasoning"))) for delta in deltas]
    whole = REPLY.reasoning + REPLY.text
    assert whole.startswith("".join(told))
    if sent is None:
        assert "".join(told) == whole
        assert len([piece for piece in told if piece]) < server.sent_tokens
    else:
        assert server.sent_tokens == sent


async def test_the_openai_client_gets_a_plain_completion(client_of: Any) -> None:
    async with SimulatedServer(Script(REPLY)) as server, client_of(server) as client:
        done = await client.chat.completions.create(model="simulated", messages=MESSAGES, max_tokens=500)
        models = [model.id async for model in client.models.list()]
    assert done.choices[0].message.content == REPLY.text
    assert done.usage.completion_tokens == server.sent_tokens
    assert models == ["simulated"]


async def test_the_openai_client_raises_its_own_errors(client_of: Any) -> None:
    wrong = Script(Reply(fault=Fault.rate_limited(retry_after="2")), Reply(fault=Fault.context_too_long()))
    async with SimulatedServer(wrong, api_key="right") as server:
        async with client_of(server, "wrong") as client:
            with pytest.raises(openai.AuthenticationError):
                await client.chat.completions.create(model="simulated", messages=MESSAGES)
        async with client_of(server, "right") as client:
            with pytest.raises(openai.RateLimitError) as limited:
                await client.chat.completions.create(model="simulated", messages=MESSAGES)
            with pytest.raises(openai.BadRequestError, match="context length"):
                await client.chat.completions.create(model="simulated", messages=MESSAGES)
            with pytest.raises(openai.NotFoundError):
                await client.chat.completions.create(model="another", messages=MESSAGES)
            with pytest.raises(openai.BadRequestError, match="messages"):
                await client.chat.completions.create(model="simulated", messages=[])
    assert limited.value.response.headers["retry-after"] == "2"


async def test_the_openai_client_sees_an_error_inside_the_stream(client_of: Any) -> None:
    reply = Reply(text="one two three", fault=Fault(FaultKind.error_mid_stream, after_tokens=1, message="engine died"))
    async with SimulatedServer(Script(reply)) as server, client_of(server) as client:
        stream = await client.chat.completions.create(model="simulated", messages=MESSAGES, stream=True)
        with pytest.raises(openai.APIError, match="engine died"):
            [chunk async for chunk in stream]


async def test_the_openai_client_parses_structured_output(client_of: Any) -> None:
    async with SimulatedServer(SolvingResponder(seed=1)) as server, client_of(server) as client:
        done = await client.chat.completions.parse(model="simulated", messages=MESSAGES, response_format=Verdict)
        ideas = await client.chat.completions.parse(model="simulated", messages=MESSAGES, response_format=Ideas)
    assert done.choices[0].message.parsed.preference in Preference
    assert ideas.choices[0].message.parsed.topics
    assert [call.role for call in server.calls] == ["judge", "planner"]


async def test_the_cerebras_client_streams_with_its_time_info() -> None:
    async with (
        SimulatedServer(Script(REPLY)) as server,
        AsyncCerebras(base_url=server.root_url, api_key="k", warm_tcp_connection=False, max_retries=0) as client,
    ):
        raw = await client.chat.completions.with_raw_response.create(model="simulated", messages=MESSAGES, stream=True)
        chunks: list[Any] = [chunk async for chunk in await raw.parse()]
        plain: Any = await client.chat.completions.create(model="simulated", messages=MESSAGES)
    assert raw.headers["x-ratelimit-limit-requests-day"] == "14400"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == REPLY.text
    assert "".join(chunk.choices[0].delta.reasoning or "" for chunk in chunks if chunk.choices) == REPLY.reasoning
    assert chunks[-1].time_info.completion_time is not None
    assert plain.choices[0].message.reasoning == REPLY.reasoning
    assert plain.usage.completion_tokens == server.calls[1].sent_tokens


async def test_the_ledger_is_exact_to_the_token() -> None:
    reply = Reply(text="one two three four five", fault=Fault(FaultKind.truncated, after_tokens=3))
    async with SimulatedServer(Script(reply, Reply(text="one two"))) as server, aiohttp.ClientSession() as session:
        for _ in range(2):
            async with session.post(
                f"{server.url}/chat/completions", json={"model": "simulated", "messages": MESSAGES, "stream": True}
            ) as response:
                try:
                    raw = await response.read()
                except aiohttp.ClientPayloadError:
                    continue
    assert [(call.outcome, call.sent_tokens) for call in server.calls] == [
        (CallOutcome.faulted, 3),
        (CallOutcome.completed, 2),
    ]
    payloads = [json.loads(line[6:]) for line in raw.decode().split("\n\n") if line.startswith("data: {")]
    assert sum(bool(one["choices"] and one["choices"][0]["delta"].get("content")) for one in payloads) == 2
    assert server.calls[0].closed_at is not None
    assert server.open_streams == 0


async def test_stop_strings_and_max_tokens_cut_the_reply(client_of: Any) -> None:
    text = "<answer>405</answer> and more"
    async with SimulatedServer(Script(Reply(text=text))) as server, client_of(server) as client:
        stopped = await client.chat.completions.create(model="simulated", messages=MESSAGES, stop=["</answer>"])
        short = await client.chat.completions.create(model="simulated", messages=MESSAGES, max_tokens=2)
    assert stopped.choices[0].message.content == "<answer>405"
    assert stopped.choices[0].finish_reason == "stop"
    assert short.choices[0].finish_reason == "length"
    assert [call.sent_tokens for call in server.calls] == [stopped.usage.completion_tokens, 2]


async def test_slots_bound_what_runs_at_once(client_of: Any) -> None:
    engine = SimulatedEngine(slots=3, token_s=0.01)
    async with SimulatedServer(Script(Reply(text="one two")), engine=engine) as server, client_of(server) as client:
        await asyncio.gather(*(client.chat.completions.create(model="simulated", messages=MESSAGES) for _ in range(10)))
    assert engine.running_max == 3
    assert engine.running == 0


def request_with(text: str, *, schema: dict[str, Any] | None = None, seed: int | None = None) -> ChatRequest:
    return ChatRequest({}, {}, "simulated", (("user", text),), True, True, None, (), seed, schema)


def test_the_solver_is_right_as_often_as_it_is_told() -> None:
    responder = SolvingResponder(truth="405", accuracy=0.8, seed=1)
    replies = [responder(request_with("What is 347 + 58?", seed=seed)) for seed in range(400)]
    right = sum(reply.text == "<answer>405</answer>" for reply in replies)
    assert 280 <= right <= 360
    assert all(reply.reasoning and reply.reasoning_field is ReasoningField.inline for reply in replies)
    assert replies[7] == SolvingResponder(truth="405", accuracy=0.8, seed=1)(request_with("What is 347 + 58?", seed=7))


@pytest.mark.parametrize(
    ("request_", "role"),
    [
        (request_with("What is 347 + 58?"), "generator"),
        (request_with("Judge", schema=Verdict.model_json_schema()), "judge"),
        (request_with("Ideas", schema=Ideas.model_json_schema()), "planner"),
        (request_with("Write a plan for this problem without giving away the answer."), "planner"),
    ],
)
def test_the_role_is_guessed_from_the_request(request_: ChatRequest, role: str) -> None:
    assert detect_role(request_) == role


def test_schemas_are_filled() -> None:
    schema = {
        "type": "object",
        "properties": {
            "choice": {"enum": ["first", "second"]},
            "score": {"type": "integer", "minimum": 3},
            "notes": {"type": "array", "items": {"type": "string", "maxLength": 4}},
            "maybe": {"anyOf": [{"type": "null"}, {"type": "string"}]},
            "fixed": {"const": 7},
            "sure": {"type": "boolean"},
        },
    }
    value = fill_schema(schema, random.Random(0))
    assert value["choice"] in {"first", "second"}
    assert value == {**value, "score": 3, "notes": ["Take"], "maybe": None, "fixed": 7, "sure": True}
    assert Verdict.model_validate(fill_schema(Verdict.model_json_schema(), random.Random(0)))


async def test_the_command_serves_until_it_is_told_to_stop() -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "k2think.agents.backends.simulator", "--port", "0", "--truth", "405"),
        *("--accuracy", "1.0", "--seed", "1", "--api-key", "secret"),
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        url = (await asyncio.wait_for(process.stdout.readline(), 30)).decode().strip()
        async with openai.AsyncOpenAI(base_url=url, api_key="secret", max_retries=0) as client:
            done = await client.chat.completions.create(model="simulated", messages=MESSAGES)
        content = done.choices[0].message.content or ""
        assert content.startswith("<think>")
        assert content.endswith("<answer>405</answer>")
    finally:
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 10) == 0
