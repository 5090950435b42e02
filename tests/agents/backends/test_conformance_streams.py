"""Streams of every backend that speaks to a server: stalled, closed, cancelled, or many. See test_conformance.py."""

import asyncio
import resource
from typing import Any

import pytest
from harness.conformance import Connect, ask, collect, pieces
from k2think.agents.backends.simulator import (
    CallOutcome,
    Fault,
    FaultKind,
    Reply,
    Script,
    SimulatedEngine,
    SimulatedServer,
)
from k2think.schemas.errors import Stalled, StreamBroken


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
