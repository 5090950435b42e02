"""The one suite that every backend which speaks to a server must pass, against the simulated server over real HTTP."""

import asyncio
import logging
import re
import resource
import socket
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from k2think.agents.backends.base import Backend
from k2think.agents.backends.registry import create_backend
from k2think.agents.backends.simulator import (
    CallOutcome,
    Fault,
    FaultKind,
    ReasoningField,
    Reply,
    Script,
    SimulatedEngine,
    SimulatedServer,
)
from k2think.schemas.backend_settings import BackendSettings
from k2think.schemas.completion import ChatMessage, CompletionRequest, Delta, Finish, FinishReason, TokenUsage
from k2think.schemas.errors import (
    BackendError,
    BadRequest,
    ContextTooLong,
    MalformedResponse,
    ModelNotFound,
    Overloaded,
    PaymentRequired,
    RateLimited,
    Stalled,
    StreamBroken,
    Unauthorized,
    Unreachable,
)

Connect = Callable[..., Backend]


class Watching:
    """Whether streams are asked for delta by delta."""

    on = True


KEY = "sk-test-3f9a71c2"
AMPLE = {"connect_timeout_s": 20.0, "first_token_timeout_s": 30.0, "idle_timeout_s": 30.0}
"""Seconds that only a hanging test uses up; tests of the time-outs set their own."""
HELLO = Reply(text="It is 405, Jürgen 🎉.")
VERDICT_SCHEMA = {
    "type": "object",
    "properties": {"preference": {"type": "string", "enum": ["first", "second", "tie"]}},
    "required": ["preference"],
    "additionalProperties": False,
}


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


async def failure(connect: Connect, fault: Fault, **fields: Any) -> BackendError:
    """Return the error that a call meets with the fault."""
    async with SimulatedServer(Script(Reply(text="one two three four", fault=fault))) as server:
        with pytest.raises(BackendError) as caught:
            await collect(connect(server, **fields), ask())
    return caught.value


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


async def test_429_tells_the_seconds_to_wait(connect: Connect) -> None:
    error = await failure(connect, Fault.rate_limited(retry_after="7"))
    assert isinstance(error, RateLimited)
    assert (error.status, error.retry_after_s) == (429, 7.0)
    assert error.rate_limits["x-ratelimit-remaining-tokens-minute"] == "59000"


async def test_429_tells_the_date_to_wait_for(connect: Connect) -> None:
    due = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    error = await failure(connect, Fault.rate_limited(retry_after=due))
    assert isinstance(error, RateLimited)
    assert error.retry_after_s is not None
    assert 60 < error.retry_after_s <= 91


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (307, BadRequest),
        (400, BadRequest),
        (402, PaymentRequired),
        (403, Unauthorized),
        (404, ModelNotFound),
        (408, Overloaded),
        (413, ContextTooLong),
        (422, BadRequest),
        (429, RateLimited),
        (500, Overloaded),
        (502, Overloaded),
        (503, Overloaded),
        (529, Overloaded),
    ],
)
async def test_statuses_are_mapped(connect: Connect, status: int, expected: type[BackendError]) -> None:
    headers = {"Location": "http://192.0.2.1/v1/chat/completions"} if status == 307 else {}
    error = await failure(connect, Fault(FaultKind.status, status=status, message="as it is", headers=headers))
    assert type(error) is expected
    assert error.status == status


async def test_503_tells_the_seconds_to_wait(connect: Connect) -> None:
    error = await failure(connect, Fault(FaultKind.status, status=503, headers={"Retry-After": "3"}))
    assert isinstance(error, Overloaded)
    assert error.retry_after_s == 3.0


async def test_an_exhausted_quota_is_not_a_rate_limit(connect: Connect) -> None:
    error = await failure(connect, Fault(FaultKind.status, status=429, code="insufficient_quota"))
    assert isinstance(error, PaymentRequired)


async def test_context_too_long_by_code_and_by_words(connect: Connect) -> None:
    async with SimulatedServer(Script(HELLO), context_tokens=50) as server:
        with pytest.raises(ContextTooLong):
            await collect(connect(server), ask("word " * 60))
    words = Fault(
        FaultKind.status, status=400, message="the request exceeds the available context size, try increasing it"
    )
    assert isinstance(await failure(connect, words), ContextTooLong)


async def test_an_unknown_model(connect: Connect) -> None:
    async with SimulatedServer(Script(HELLO)) as server:
        backend = connect(server, model="nothing-of-the-kind")
        with pytest.raises(ModelNotFound, match="nothing-of-the-kind"):
            await collect(backend, ask())
        with pytest.raises(ModelNotFound, match="serves simulated"):
            await backend.probe()


async def test_probe_reaches_the_server(connect: Connect) -> None:
    async with SimulatedServer(Script(HELLO), api_key=KEY) as server:
        facts = await connect(server).probe()
    assert facts["model"] == "simulated"
    assert facts["address"].startswith("http://127.0.0.1:")


async def test_a_wrong_key_is_named_but_never_shown(connect: Connect, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with SimulatedServer(Script(HELLO), api_key="another") as server:
        backend = connect(server)
        with pytest.raises(Unauthorized, match="API_KEY") as caught:
            await collect(backend, ask())
        with pytest.raises(Unauthorized):
            await backend.probe()
    assert caught.value.status == 401
    assert KEY not in str(caught.value)
    assert KEY not in caplog.text
    assert KEY not in repr(backend)


async def test_a_connection_reset_before_the_answer(connect: Connect) -> None:
    assert isinstance(await failure(connect, Fault(FaultKind.reset)), Unreachable)


@pytest.mark.parametrize("fault", [FaultKind.reset, FaultKind.truncated, FaultKind.no_end])
async def test_a_stream_that_ends_early_is_broken(connect: Connect, fault: FaultKind) -> None:
    async with SimulatedServer(Script(Reply(text="one two three four", fault=Fault(fault, after_tokens=2)))) as server:
        seen: list[Any] = []
        with pytest.raises(StreamBroken):
            await collect(connect(server), ask(), seen)
    # A reset may overtake tokens that were on their way; an orderly end may not.
    assert pieces(seen) == 2 or fault is FaultKind.reset


async def test_a_refused_connection(connect: Connect) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        with pytest.raises(Unreachable, match=f"127.0.0.1:{port}"):
            await collect(connect(f"http://127.0.0.1:{port}"), ask())


async def test_a_slow_first_token_stalls(connect: Connect) -> None:
    async with SimulatedServer(Script(Reply(text="late", first_token_s=60.0))) as server:
        with pytest.raises(Stalled, match="first token"):
            await collect(connect(server, first_token_timeout_s=0.2), ask())
        await closed(server)


async def test_a_backend_closed_before_the_answer_is_broken_not_unreachable(connect: Connect) -> None:
    arrived = asyncio.Event()

    async def silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        arrived.set()
        await reader.read()
        writer.close()

    listener = await asyncio.start_server(silence, "127.0.0.1", 0)
    async with listener:
        backend = connect(f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}")
        task = asyncio.create_task(collect(backend, ask()))
        await arrived.wait()
        await asyncio.sleep(0.05)
        await backend.aclose()
        with pytest.raises(StreamBroken):
            await task


async def test_a_server_that_never_answers_stalls(connect: Connect) -> None:
    async def silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    listener = await asyncio.start_server(silence, "127.0.0.1", 0)
    async with listener:
        port = listener.sockets[0].getsockname()[1]
        with pytest.raises(Stalled):
            await collect(connect(f"http://127.0.0.1:{port}", first_token_timeout_s=0.2), ask())


async def test_a_stream_that_falls_silent_stalls(connect: Connect) -> None:
    reply = Reply(text="one two three four", fault=Fault(FaultKind.stall, after_tokens=2))
    async with SimulatedServer(Script(reply)) as server:
        seen: list[Any] = []
        with pytest.raises(Stalled):
            await collect(connect(server, idle_timeout_s=0.2), ask(), seen)
        await closed(server)
    assert pieces(seen) == 2


async def test_keepalives_before_the_first_token_do_no_harm(connect: Connect) -> None:
    async with SimulatedServer(Script(Reply(text="late", first_token_s=0.3, keepalive_s=0.05))) as server:
        assert (await collect(connect(server), ask())).text == "late"


async def test_keepalives_alone_do_not_keep_a_call_alive(connect: Connect) -> None:
    waiting = Reply(text="late", first_token_s=60.0, keepalive_s=0.05)
    silent = Reply(text="one two three", keepalive_s=0.05, fault=Fault(FaultKind.stall, after_tokens=1))
    async with SimulatedServer(Script(waiting, silent)) as server:
        backend = connect(server, first_token_timeout_s=0.4, idle_timeout_s=0.2)
        for _ in range(2):
            with pytest.raises(Stalled):
                await collect(backend, ask())


@pytest.mark.parametrize("fault", [FaultKind.malformed_json, FaultKind.html])
async def test_nonsense_is_malformed(connect: Connect, fault: FaultKind) -> None:
    assert isinstance(await failure(connect, Fault(fault, after_tokens=1)), MalformedResponse)


@pytest.mark.parametrize(
    ("code", "expected"),
    [(None, Overloaded), ("rate_limit_exceeded", RateLimited), ("context_length_exceeded", ContextTooLong)],
)
async def test_an_error_in_the_middle_of_the_stream(
    connect: Connect, code: str | None, expected: type[BackendError]
) -> None:
    fault = Fault(FaultKind.error_mid_stream, after_tokens=2, code=code, message="engine died")
    error = await failure(connect, fault)
    assert type(error) is expected


async def closed(server: SimulatedServer) -> None:
    """Wait until the server has seen every stream closed; at most 2 seconds."""
    async with asyncio.timeout(2.0):
        while server.open_streams:
            await asyncio.sleep(0.01)


async def test_closing_the_iterator_closes_the_connection(connect: Connect) -> None:
    async with SimulatedServer(Script(Reply(text="word " * 1000, token_s=0.02))) as server:
        stream: Any = connect(server).stream(ask())
        await anext(stream)
        await stream.aclose()
        await closed(server)
    assert server.calls[0].outcome is CallOutcome.aborted
    assert server.calls[0].sent_tokens < 900


async def test_cancelling_the_task_closes_the_connection(connect: Connect) -> None:
    async with SimulatedServer(Script(Reply(text="word " * 1000, token_s=0.02))) as server:
        backend = connect(server)
        task = asyncio.create_task(collect(backend, ask()))
        while not server.sent_tokens:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await closed(server)
    assert server.calls[0].outcome is CallOutcome.aborted


async def test_cancelling_before_the_first_token_closes_the_connection(connect: Connect) -> None:
    async with SimulatedServer(Script(Reply(text="late", first_token_s=60.0))) as server:
        backend = connect(server)
        task = asyncio.create_task(collect(backend, ask()))
        while not server.calls:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await closed(server)


@pytest.mark.parametrize("reply", [Reply(text="word " * 1000, token_s=0.02), Reply(text="late", first_token_s=60.0)])
async def test_a_closed_backend_ends_its_streams(connect: Connect, reply: Reply) -> None:
    async with SimulatedServer(Script(reply)) as server:
        backend = connect(server)
        task = asyncio.create_task(collect(backend, ask()))
        while not server.calls or (reply.token_s and not server.sent_tokens):
            await asyncio.sleep(0.01)
        await backend.aclose()
        with pytest.raises(StreamBroken):
            await task
        await closed(server)
        with pytest.raises(StreamBroken):
            await collect(backend, ask())


async def test_one_client_serves_call_after_call(connect: Connect) -> None:
    async with SimulatedServer(Script(HELLO)) as server:
        backend = connect(server)
        texts = [(await collect(backend, ask())).text for _ in range(5)]
    assert texts == [HELLO.text] * 5
    assert [call.outcome for call in server.calls] == [CallOutcome.completed] * 5


async def test_a_thousand_streams_in_one_process(connect: Connect, kind: str) -> None:
    # The SDK costs more time per call; a smaller crowd shows the same. vllm is the same client as openai.
    crowd = {"openai": 1000, "vllm": 100, "cerebras": 100}[kind]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4 * crowd)), hard))
    engine = SimulatedEngine()
    started = asyncio.Event()

    def reply(request: object) -> Reply:
        if len(server.calls) == crowd:
            started.set()
        return Reply(text="one two three", token_s=0.2)

    async with SimulatedServer(reply, engine=engine) as server:
        backend = connect(server, first_token_timeout_s=60.0, idle_timeout_s=60.0, connect_timeout_s=60.0)
        got = await asyncio.gather(*(collect(backend, ask()) for _ in range(crowd)))
    assert started.is_set()
    assert {one.text for one in got} == {"one two three"}
    assert sum(one.finish.usage.completion for one in got) == server.sent_tokens == engine.tokens_sent


async def test_a_line_without_end_is_refused_before_it_fills_the_memory(connect: Connect) -> None:
    assert isinstance(await failure(connect, Fault(FaultKind.endless_line, after_tokens=1)), MalformedResponse)


async def test_messages_name_the_backend_and_stay_in_one_line(connect: Connect, kind: str) -> None:
    error = await failure(connect, Fault(FaultKind.status, status=500, message="first line\nsecond " + "x" * 5000))
    assert re.match(rf"backend '{kind}' at http://127\.0\.0\.1:\d+", str(error))
    assert "\n" not in str(error)
    assert len(str(error)) < 700
