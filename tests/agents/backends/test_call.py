"""`call_model`: the record that it leaves, and what it tries again."""

import asyncio
from collections.abc import AsyncGenerator, Callable

import pytest
from k2think.agents.backends.openai import OpenAIBackend
from k2think.agents.backends.simulator import Fault, FaultKind, ReasoningField, Reply, Script, SimulatedServer
from k2think.agents.call import Completion, call_model
from k2think.schemas.backend_settings import BackendSettings
from k2think.schemas.completion import ChatMessage, CompletionRequest, Delta, TokenUsage
from k2think.schemas.errors import BackendError, ContextTooLong, Overloaded, RateLimited, StreamBroken, Unreachable
from k2think.schemas.trace import CallTrace

REQUEST = CompletionRequest(
    messages=(ChatMessage(role="user", content="What is 347 + 58?"),), stop=("</answer>",), seed=3
)
Call = Callable[..., "asyncio.Task[Completion]"]


@pytest.fixture
async def call() -> AsyncGenerator[Call, None]:
    """Start calls to a server; returns the task."""
    backends: list[OpenAIBackend] = []

    def start(
        server: SimulatedServer | str,
        record: CallTrace,
        *,
        on_delta: Callable[[Delta], None] | None = None,
        **fields: object,
    ) -> "asyncio.Task[Completion]":
        url = server if isinstance(server, str) else server.url
        settings = BackendSettings.model_validate(
            {"backend": "openai", "base_url": url, "model": "simulated", "max_tokens": 500, **fields}
        )
        backends.append(OpenAIBackend(settings, name="fast"))
        return asyncio.create_task(
            call_model(backends[-1], REQUEST, record=record, settings=settings, on_delta=on_delta)
        )

    yield start
    for backend in backends:
        await backend.aclose()


async def test_a_finished_call_is_recorded(call: Call) -> None:
    record, seen = CallTrace(), list[Delta]()
    reply = Reply(text="<answer>405", reasoning="carry the one", reasoning_field=ReasoningField.inline)
    async with SimulatedServer(Script(reply)) as server:
        done = await call(server, record, on_delta=seen.append)
    assert (done.text, done.reasoning) == ("<answer>405", "carry the one")
    assert "".join(delta.text for delta in seen) == done.text
    assert "".join(delta.reasoning for delta in seen) == done.reasoning
    assert record.backend == "fast"
    assert record.model == "simulated"
    assert record.prompt == list(REQUEST.messages)
    assert record.parameters["seed"] == 3
    assert record.parameters["max_tokens"] == 500
    assert record.raw_text == "<think>carry the one</think><answer>405"
    assert record.reasoning == "carry the one"
    assert record.usage == done.finish.usage
    assert record.usage.completion == server.sent_tokens
    assert 0 < record.usage.reasoning < record.usage.completion
    assert not record.usage_estimated
    assert record.finish_reason == "stop"
    assert record.time_to_first_token_s is not None
    assert 0 < record.time_to_first_token_s <= record.duration_s
    assert record.retries == 0
    assert record.rate_limits
    assert record.engine_queue_s is not None
    assert record.engine_prompt_s is not None
    assert record.engine_completion_s == done.finish.engine_completion_s
    assert record.tokens_per_s == record.usage.completion / (record.engine_completion_s or 0)
    assert record.cached_prompt_tokens is None


async def test_a_cancelled_call_leaves_what_it_had(call: Call) -> None:
    record = CallTrace()
    reply = Reply(text="word " * 1000, reasoning="thought", token_s=0.01)
    async with SimulatedServer(Script(reply)) as server:
        started = asyncio.Event()
        task = call(server, record, on_delta=lambda delta: started.set() if delta.text else None)
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with asyncio.timeout(2.0):
            while server.open_streams:
                await asyncio.sleep(0.01)
    assert record.raw_text.startswith("word")
    assert record.reasoning == "thought"
    assert record.usage_estimated
    # What is on its way when a call is cancelled is sent, but not seen.
    assert 0 < record.usage.completion <= server.sent_tokens
    assert record.usage.prompt > 0
    assert record.finish_reason is None
    assert record.duration_s > 0


async def test_a_cancelled_call_that_nobody_watches_leaves_what_it_had(call: Call) -> None:
    record = CallTrace()
    reply = Reply(text="word " * 1000, reasoning="thought", token_s=0.002)
    async with SimulatedServer(Script(reply)) as server:
        task = call(server, record)
        while server.sent_tokens < 50:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert record.raw_text.startswith("word word word")
    assert record.reasoning == "thought"
    assert record.usage_estimated
    assert 50 <= record.usage.completion <= server.sent_tokens
    assert record.time_to_first_token_s is not None
    assert record.time_to_first_token_s < record.duration_s


async def test_tokens_that_nobody_watches_keep_a_call_alive(call: Call) -> None:
    record, text = CallTrace(), "word " * 40
    reply = Reply(text=text, token_s=0.05)
    async with SimulatedServer(Script(reply)) as server:
        done = await call(server, record, first_token_timeout_s=0.6, idle_timeout_s=0.5)
    assert done.text == text
    assert record.duration_s > 1.5
    assert record.usage.completion == server.sent_tokens


@pytest.mark.parametrize("watched", [True, False])
async def test_an_error_that_the_server_tells_before_it_breaks_off_is_the_one_that_counts(
    call: Call, watched: bool
) -> None:
    events = ('{"choices": [{"delta": {"content": "one"}}]}', '{"error": {"code": "rate_limit_exceeded"}}')

    async def break_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        for event in events:
            await asyncio.sleep(0.1)
            line = f"data: {event}\n\n".encode()
            writer.write(b"%x\r\n%b\r\n" % (len(line), line))
        writer.close()
        broken_off.set()

    record, broken_off = CallTrace(), asyncio.Event()
    async with await asyncio.start_server(break_off, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        with pytest.raises(RateLimited):
            await call(url, record, on_delta=(lambda delta: None) if watched else None)
        await broken_off.wait()
    assert record.raw_text == "one"


async def test_a_broken_call_leaves_what_it_had_and_is_not_tried_again(call: Call) -> None:
    record = CallTrace()
    reply = Reply(text="one two three", fault=Fault(FaultKind.truncated, after_tokens=2))
    async with SimulatedServer(Script(reply)) as server:
        with pytest.raises(StreamBroken):
            await call(server, record)
        assert len(server.calls) == 1
    assert record.raw_text == "one two"
    assert record.usage.completion == 2
    assert record.usage_estimated
    assert record.retries == 0


async def test_an_error_after_the_first_token_is_not_tried_again(call: Call) -> None:
    reply = Reply(
        text="one two three", fault=Fault(FaultKind.error_mid_stream, after_tokens=1, code="rate_limit_exceeded")
    )
    async with SimulatedServer(Script(reply)) as server:
        with pytest.raises(RateLimited):
            await call(server, CallTrace())
        assert len(server.calls) == 1


@pytest.mark.parametrize(
    "fault",
    [
        Fault.rate_limited(retry_after="0.05"),
        Fault.rate_limited(),
        Fault(FaultKind.status, status=503),
        Fault(FaultKind.reset),
    ],
)
async def test_refusals_before_the_first_token_are_tried_again(call: Call, fault: Fault) -> None:
    record = CallTrace()
    refused = Reply(fault=fault)
    async with SimulatedServer(Script(refused, refused, Reply(text="405"))) as server:
        done = await call(server, record)
        assert len(server.calls) == 3
    assert done.text == "405"
    assert record.retries == 2
    assert record.usage.completion == server.sent_tokens


async def test_refusals_end_after_the_allowed_retries(call: Call) -> None:
    record = CallTrace()
    async with SimulatedServer(Script(Reply(fault=Fault(FaultKind.status, status=503)))) as server:
        with pytest.raises(Overloaded):
            await call(server, record, connect_retries=1)
        assert len(server.calls) == 2
    assert record.retries == 1
    assert record.usage == TokenUsage()
    assert record.prompt == list(REQUEST.messages)


async def test_retry_after_is_waited_for(call: Call) -> None:
    refused = Reply(fault=Fault.rate_limited(retry_after="0.3"))
    async with SimulatedServer(Script(refused, Reply(text="405"))) as server:
        await call(server, CallTrace())
    first, second = server.calls
    assert second.opened_at - first.opened_at >= 0.3


async def test_a_long_retry_after_hands_the_call_back_at_once(call: Call) -> None:
    record = CallTrace()
    async with SimulatedServer(Script(Reply(fault=Fault.rate_limited(retry_after="600")))) as server:
        with pytest.raises(RateLimited) as caught:
            await call(server, record, retry_after_max_s=5.0)
        assert len(server.calls) == 1
    assert caught.value.retry_after_s == 600.0
    assert record.retries == 0


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (Fault.context_too_long(), ContextTooLong),
        (Fault(FaultKind.html), BackendError),
        (Fault(FaultKind.status, status=401), BackendError),
    ],
)
async def test_what_would_fail_again_is_not_tried_again(call: Call, fault: Fault, expected: type[BackendError]) -> None:
    async with SimulatedServer(Script(Reply(text="x", fault=fault))) as server:
        with pytest.raises(expected):
            await call(server, CallTrace())
        assert len(server.calls) == 1


async def test_an_unreachable_server_is_tried_again(call: Call, unused_tcp_port: int) -> None:
    record = CallTrace()
    with pytest.raises(Unreachable):
        await call(f"http://127.0.0.1:{unused_tcp_port}/v1", record)
    assert record.retries == 2


async def test_cancelling_while_waiting_to_try_again_ends_the_call(call: Call) -> None:
    async with SimulatedServer(Script(Reply(fault=Fault.rate_limited(retry_after="20")))) as server:
        task = call(server, CallTrace())
        while not server.calls:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(server.calls) == 1


async def test_an_error_in_the_listener_closes_the_stream(call: Call) -> None:
    def broken(delta: Delta) -> None:
        raise LookupError("listener")

    async with SimulatedServer(Script(Reply(text="word " * 1000, token_s=0.01))) as server:
        with pytest.raises(LookupError):
            await call(server, CallTrace(), on_delta=broken)
        async with asyncio.timeout(2.0):
            while server.open_streams:
                await asyncio.sleep(0.01)
