"""The one suite that every backend which speaks to a server must pass, against the simulated server over real HTTP.

Here is what is asked and what comes back; test_conformance_errors.py has what goes wrong, and test_conformance_streams.py
streams that stall, are ended, or are many.
"""

import pytest
from harness.conformance import HELLO, KEY, Connect, Watching, ask, collect, pieces
from k2think.agents.backends.simulator import CallOutcome, ReasoningField, Reply, Script, SimulatedServer
from k2think.schemas.completion import FinishReason, TokenUsage

VERDICT_SCHEMA = {
    "type": "object",
    "properties": {"preference": {"type": "string", "enum": ["first", "second", "tie"]}},
    "required": ["preference"],
    "additionalProperties": False,
}


async def test_a_plain_completion_streams_its_tokens_and_its_usage(connect: Connect) -> None:
    async with SimulatedServer(Script(HELLO)) as server:
        got = await collect(connect(server), ask())
    assert got.text == HELLO.text
    assert got.reasoning == ""
    assert pieces(got.deltas) == server.calls[0].sent_tokens > 3
    assert len(got.deltas) == pieces(got.deltas) or not Watching.on
    assert got.finish.finish_reason is FinishReason.stop
    assert got.finish.usage == TokenUsage(prompt=server.calls[0].prompt_tokens, completion=server.sent_tokens)
    assert not got.finish.usage_estimated
    assert got.finish.model == "simulated"
    assert got.finish.rate_limits["x-ratelimit-remaining-tokens-minute"] == "59000"
    assert got.finish.engine_queue_s is not None
    assert got.finish.engine_prompt_s is not None
    assert got.finish.engine_completion_s is not None
    assert got.finish.cached_prompt_tokens is None


async def test_cached_prompt_tokens_are_told(connect: Connect) -> None:
    async with SimulatedServer(Script(Reply(text="405", cached_prompt_tokens=3))) as server:
        got = await collect(connect(server), ask())
    assert got.finish.cached_prompt_tokens == 3


async def test_the_request_carries_every_decoding_parameter(connect: Connect, kind: str) -> None:
    async with SimulatedServer(Script(HELLO)) as server:
        backend = connect(server, max_tokens=77)
        await collect(backend, ask(temperature=0.5, top_p=0.9, stop=("</answer>",), seed=7, request_id="job/step/1"))
        await collect(backend, ask(max_tokens=5))
    body = server.calls[0].request.body
    field = "max_completion_tokens" if kind == "cerebras" else "max_tokens"
    assert {key: body[key] for key in ("temperature", "top_p", "stop", "seed", field)} == {
        "temperature": 0.5,
        "top_p": 0.9,
        "stop": ["</answer>"],
        "seed": 7,
        field: 77,
    }
    assert body["stream_options"] == {"include_usage": True}
    assert server.calls[0].request.headers["x-request-id"] == "job/step/1"
    assert "seed" not in server.calls[1].request.body
    assert server.calls[1].request.max_tokens == 5


async def test_halves_of_characters_are_replaced(connect: Connect) -> None:
    # JSON can carry them; a tokenizer behind the server cannot, and would refuse the call.
    async with SimulatedServer(Script(HELLO)) as server:
        await collect(connect(server), ask("What is \udc80 2 + 2? 🎉"))
    assert server.calls[0].request.text == "What is ? 2 + 2? 🎉"


async def test_a_cut_off_completion_says_so(connect: Connect) -> None:
    async with SimulatedServer(Script(HELLO)) as server:
        got = await collect(connect(server), ask(max_tokens=2))
    assert got.finish.finish_reason is FinishReason.length
    assert got.finish.usage.completion == 2


@pytest.mark.parametrize("field", [ReasoningField.reasoning, ReasoningField.reasoning_content, ReasoningField.both])
async def test_reasoning_is_read_under_either_name(connect: Connect, field: ReasoningField) -> None:
    reply = Reply(text="405", reasoning="7 + 8 is 15, carry.", reasoning_field=field, null_content=True)
    async with SimulatedServer(Script(reply)) as server:
        got = await collect(connect(server), ask())
    assert (got.text, got.reasoning) == ("405", "7 + 8 is 15, carry.")
    assert got.finish.usage.reasoning == pieces(got.deltas) - 1 > 0  # the answer is one piece


async def test_inline_reasoning_stays_in_the_text_for_the_caller_to_split(connect: Connect) -> None:
    reply = Reply(text="405", reasoning="carry", reasoning_field=ReasoningField.inline)
    async with SimulatedServer(Script(reply)) as server:
        got = await collect(connect(server), ask())
    assert got.text == "<think>carry</think>405"


async def test_structured_output_is_asked_for_by_schema(connect: Connect) -> None:
    async with SimulatedServer(Script(Reply(text='{"preference": "first"}'))) as server:
        got = await collect(connect(server), ask(json_schema=VERDICT_SCHEMA))
    assert got.text == '{"preference": "first"}'
    assert server.calls[0].request.json_schema == VERDICT_SCHEMA
    assert server.calls[0].role == "judge"


async def test_missing_usage_is_estimated_and_marked(connect: Connect) -> None:
    async with SimulatedServer(Script(Reply(text="one two three", usage=False))) as server:
        got = await collect(connect(server), ask())
    assert got.finish.usage_estimated
    assert got.finish.usage.completion == server.sent_tokens
    assert got.finish.usage.prompt > 0


async def test_a_plain_reply_to_a_stream_request_is_accepted(connect: Connect) -> None:
    async with SimulatedServer(Script(Reply(text="405", reasoning="carry", plain=True))) as server:
        got = await collect(connect(server), ask())
    assert (got.text, got.reasoning) == ("405", "carry")
    assert got.finish.usage.completion == server.sent_tokens


async def test_an_empty_completion_is_a_completion(connect: Connect) -> None:
    async with SimulatedServer(Script(Reply(text="", null_content=True))) as server:
        got = await collect(connect(server), ask())
    assert got.text == ""
    assert got.finish.finish_reason is FinishReason.stop


async def test_probe_reaches_the_server(connect: Connect) -> None:
    async with SimulatedServer(Script(HELLO), api_key=KEY) as server:
        facts = await connect(server).probe()
    assert facts["model"] == "simulated"
    assert facts["address"].startswith("http://127.0.0.1:")


async def test_one_client_serves_call_after_call(connect: Connect) -> None:
    async with SimulatedServer(Script(HELLO)) as server:
        backend = connect(server)
        texts = [(await collect(backend, ask())).text for _ in range(5)]
    assert texts == [HELLO.text] * 5
    assert [call.outcome for call in server.calls] == [CallOutcome.completed] * 5
