"""Several gateways on one database: any of them goes on where another stopped, or died."""

from __future__ import annotations

import asyncio
import os
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import openai
import pytest
from harness.gateway import RunningGateway
from k2think.agents.backends.simulator import CallOutcome, Reply
from k2think.workers.redis_server import broker_url_of, socket_path
from openai import AsyncOpenAI, OpenAI

if TYPE_CHECKING:
    from harness.live import LiveGateway

TIMEOUT_S = 60.0
STOPS_WITHIN_S = 2.0
ENDLESS = Reply("word " * 5000, token_s=0.02)
SLOW = Reply("<answer>405</answer>", first_token_s=2.0)


@pytest.fixture
def second(live_gateway: LiveGateway, tmp_path: Path) -> Iterator[RunningGateway]:
    """Another gateway on the database and the Redis of the stack."""
    up = live_gateway.up
    settings = {name: value for name, value in up.environment.items() if name.startswith("K2THINK_GENERATOR__")}
    settings["K2THINK_DATABASE_URL"] = f"sqlite:///{up.folder / 'k2think.db'}"
    with RunningGateway(tmp_path, broker_url_of(socket_path(up.folder)), **settings) as gateway:
        yield gateway


def client_of(gateway: Any) -> OpenAI:
    return OpenAI(base_url=f"{gateway.url}/v1", api_key="none", timeout=TIMEOUT_S, max_retries=0)


def wait_until(condition: Callable[[], bool]) -> float:
    began = time.monotonic()
    while not condition():
        assert time.monotonic() < began + TIMEOUT_S
        time.sleep(0.01)
    return time.monotonic() - began


def open_calls(live: LiveGateway, mark: str) -> int:
    return sum(call.outcome is CallOutcome.open for call in live.calls(mark))


def test_a_stream_that_was_begun_at_one_gateway_goes_on_at_another(
    live_gateway: LiveGateway, second: RunningGateway
) -> None:
    mark = live_gateway.replies.to_mark(generator=SLOW)
    with client_of(second) as there, client_of(live_gateway) as here:
        stream = there.responses.create(model="k2think", input=f"347 + 58? {mark}", background=True, stream=True)
        seen: list[Any] = []
        for event in stream:
            seen.append(event.to_dict())
            if event.type == "response.reasoning_summary_part.done":
                break
        os.kill(second.pid, signal.SIGKILL)

        response_id = seen[0]["response"]["id"]
        rest = here.responses.retrieve(response_id, stream=True, starting_after=seen[-1]["sequence_number"])
        seen += [event.to_dict() for event in rest]

        assert seen == [event.to_dict() for event in here.responses.retrieve(response_id, stream=True)]
        assert seen[-1]["type"] == "response.completed"


@pytest.mark.parametrize("stream", [False, True])
async def test_when_a_gateway_dies_so_does_the_work_that_was_waited_for_there(
    live_gateway: LiveGateway, second: RunningGateway, stream: bool
) -> None:
    mark = live_gateway.replies.to_mark(generator=ENDLESS)
    message: list[Any] = [{"role": "user", "content": f"347 + 58? {mark}"}]

    async def ask(client: AsyncOpenAI) -> None:
        answer: Any = await client.chat.completions.create(model="k2think", messages=message, stream=stream)
        if stream:
            async for _chunk in answer:
                pass

    async with AsyncOpenAI(base_url=f"{second.url}/v1", api_key="none", timeout=TIMEOUT_S, max_retries=0) as client:
        request = asyncio.ensure_future(ask(client))
        await asyncio.to_thread(wait_until, lambda: open_calls(live_gateway, mark) == 3)
        os.kill(second.pid, signal.SIGKILL)
        took = await asyncio.to_thread(wait_until, lambda: open_calls(live_gateway, mark) == 0)
        with pytest.raises((openai.APIConnectionError, httpx.TransportError)):
            await request
    assert took < STOPS_WITHIN_S
    calls = len(live_gateway.calls(mark))
    await asyncio.sleep(1.5)
    assert len(live_gateway.calls(mark)) == calls


async def test_a_request_with_a_key_survives_its_gateway(live_gateway: LiveGateway, second: RunningGateway) -> None:
    mark = live_gateway.replies.to_mark(generator=SLOW)
    fields: dict[str, Any] = {
        "model": "k2think",
        "messages": [{"role": "user", "content": f"347 + 58? {mark}"}],
        "extra_headers": {"Idempotency-Key": uuid.uuid4().hex},
    }
    async with AsyncOpenAI(base_url=f"{second.url}/v1", api_key="none", timeout=TIMEOUT_S, max_retries=0) as client:
        request = asyncio.ensure_future(client.chat.completions.create(**fields))
        await asyncio.to_thread(wait_until, lambda: open_calls(live_gateway, mark) == 3)
        os.kill(second.pid, signal.SIGKILL)
        with pytest.raises(openai.APIConnectionError):
            await request

    async with AsyncOpenAI(base_url=f"{live_gateway.url}/v1", api_key="none", timeout=TIMEOUT_S) as client:
        answer = await client.chat.completions.create(**fields)

    assert answer.choices[0].message.content == "405"
    assert len([call for call in live_gateway.calls(mark) if call.role == "generator"]) == 3
