"""What becomes of a chat request when its client leaves, and when it comes again with the same idempotency key."""

from __future__ import annotations

import asyncio
import threading
import time
import uuid
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

import httpx
import openai
import pytest
from k2think.agents.backends.simulator import CallOutcome, Reply
from openai import AsyncOpenAI, OpenAI

if TYPE_CHECKING:
    from harness.live import LiveGateway

TIMEOUT_S = 60.0
STOPS_WITHIN_S = 2.0
"""What the service promises from the end of the connection to the end of the last upstream call."""
STAYS_STOPPED_S = 1.5
"""How long it is watched afterwards: several rounds of the sweeper."""
ENDLESS = Reply("word " * 5000, token_s=0.02)
SLOW = Reply("<answer>405</answer>", first_token_s=1.5)


@pytest.fixture
async def client(live_gateway: LiveGateway) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{live_gateway.url}/v1", api_key="none", timeout=TIMEOUT_S, max_retries=0) as one:
        yield one


def sync_client(live_gateway: LiveGateway, **options: Any) -> OpenAI:
    return OpenAI(base_url=f"{live_gateway.url}/v1", api_key="none", max_retries=0, **{"timeout": TIMEOUT_S, **options})


def asked(mark: str) -> list[Any]:
    return [{"role": "user", "content": f"What is 347 + 58? {mark}"}]


def open_calls(live: LiveGateway, mark: str) -> int:
    return sum(call.outcome is CallOutcome.open for call in live.calls(mark))


def wait_until(condition: Callable[[], bool], what: str) -> float:
    """Return the seconds that it took."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() < began + TIMEOUT_S, what
        time.sleep(0.01)
    return time.monotonic() - began


def nothing_runs_on(live: LiveGateway, mark: str) -> None:
    """All upstream calls end in time, none is made afterwards, and the job has ended as cancelled."""
    took = wait_until(lambda: open_calls(live, mark) == 0, "the upstream calls go on")
    assert took < STOPS_WITHIN_S
    calls = live.calls(mark)
    assert CallOutcome.aborted in {call.outcome for call in calls}
    sent = sum(call.sent_tokens for call in calls)
    time.sleep(STAYS_STOPPED_S)
    assert live.calls(mark) == calls
    assert sum(call.sent_tokens for call in calls) == sent
    jobs = httpx.get(f"{live.url}/v1/jobs", params={"door": "chat", "limit": 20}).json()["data"]
    mine = [job for job in jobs if mark in job["problem"]]
    assert mine
    assert {(job["status"], job["error_code"]) for job in mine} == {("cancelled", "cancelled")}


def test_closing_a_stream_stops_every_call(live_gateway: LiveGateway) -> None:
    mark = live_gateway.replies.to_mark(generator=ENDLESS)
    with sync_client(live_gateway) as client:
        stream = client.chat.completions.create(model="k2think", messages=asked(mark), n=2, stream=True)
        next(iter(stream))
        wait_until(lambda: open_calls(live_gateway, mark) == 6, "two choices with three candidates each are sampled")
        stream.close()
        nothing_runs_on(live_gateway, mark)


async def test_closing_an_async_stream_stops_every_call(live_gateway: LiveGateway, client: AsyncOpenAI) -> None:
    mark = live_gateway.replies.to_mark(generator=ENDLESS)
    stream = await client.chat.completions.create(model="k2think", messages=asked(mark), stream=True)
    await anext(aiter(stream))
    await asyncio.to_thread(wait_until, lambda: open_calls(live_gateway, mark) == 3, "three candidates are sampled")
    await stream.close()
    await asyncio.to_thread(nothing_runs_on, live_gateway, mark)


def test_a_client_that_leaves_during_the_plan_stops_the_planner(live_gateway: LiveGateway) -> None:
    mark = live_gateway.replies.to_mark(planner=ENDLESS)
    with sync_client(live_gateway) as client:
        stream = client.chat.completions.create(model="k2think", messages=asked(mark), stream=True)
        wait_until(lambda: open_calls(live_gateway, mark) == 1, "it is planned")
        stream.close()
        nothing_runs_on(live_gateway, mark)


@pytest.mark.parametrize("model", ["k2think", "simulated"])
def test_a_plain_request_that_times_out_in_the_client_stops_every_call(live_gateway: LiveGateway, model: str) -> None:
    mark = live_gateway.replies.to_mark(generator=ENDLESS)
    with sync_client(live_gateway, timeout=3.0) as client, pytest.raises(openai.APITimeoutError):
        client.chat.completions.create(model=model, messages=asked(mark))
    nothing_runs_on(live_gateway, mark)


async def test_a_plain_async_request_that_is_cancelled_stops_every_call(
    live_gateway: LiveGateway, client: AsyncOpenAI
) -> None:
    mark = live_gateway.replies.to_mark(generator=ENDLESS)
    request = asyncio.ensure_future(client.chat.completions.create(model="k2think", messages=asked(mark)))
    await asyncio.to_thread(wait_until, lambda: open_calls(live_gateway, mark) == 3, "three candidates are sampled")
    request.cancel()
    await asyncio.gather(request, return_exceptions=True)
    await asyncio.to_thread(nothing_runs_on, live_gateway, mark)


def test_a_gateway_keeps_a_silent_stream_alive(live_gateway: LiveGateway) -> None:
    # The stack's own keepalive is every 10 s: a stream that says nothing for longer has comments in it.
    mark = live_gateway.replies.to_mark(generator=Reply("405", first_token_s=11))
    body = {"model": "simulated", "messages": asked(mark), "stream": True}
    with httpx.stream("POST", f"{live_gateway.url}/v1/chat/completions", json=body, timeout=TIMEOUT_S) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["cache-control"] == "no-store"
        lines = list(answer.iter_lines())
    assert ": keepalive" in lines
    assert lines[-2:] == ["data: [DONE]", ""]


# ---- idempotency keys


def with_key(key: str, **more: str) -> dict[str, Any]:
    return {"extra_headers": {"Idempotency-Key": key, **more}}


async def test_the_same_key_brings_the_same_answer(live_gateway: LiveGateway, client: AsyncOpenAI) -> None:
    mark, key = live_gateway.replies.to_mark(), uuid.uuid4().hex
    first = await client.chat.completions.create(model="k2think", messages=asked(mark), n=2, **with_key(key))
    calls = live_gateway.calls(mark)

    again = await client.chat.completions.create(model="k2think", messages=asked(mark), n=2, **with_key(key))

    assert again == first
    assert len(again.choices) == 2
    assert live_gateway.calls(mark) == calls


async def test_a_second_request_joins_one_that_is_still_worked_on(
    live_gateway: LiveGateway, client: AsyncOpenAI
) -> None:
    mark, key = live_gateway.replies.to_mark(generator=SLOW), uuid.uuid4().hex
    answers = await asyncio.gather(
        *(client.chat.completions.create(model="simulated", messages=asked(mark), **with_key(key)) for _ in range(4))
    )
    assert len({answer.id for answer in answers}) == 1
    assert {answer.choices[0].message.content for answer in answers} == {"<answer>405</answer>"}
    assert len(live_gateway.calls(mark)) == 1


@pytest.mark.parametrize("stream", [False, True])
async def test_with_a_key_the_work_goes_on_for_the_client_that_comes_back(
    live_gateway: LiveGateway, client: AsyncOpenAI, stream: bool
) -> None:
    mark, key = live_gateway.replies.to_mark(generator=SLOW), uuid.uuid4().hex
    fields: dict[str, Any] = {"model": "k2think", "messages": asked(mark), "stream": stream, **with_key(key)}
    first = asyncio.ensure_future(client.chat.completions.create(**fields))
    await asyncio.to_thread(wait_until, lambda: open_calls(live_gateway, mark) == 3, "three candidates are sampled")
    if stream:
        await (await first).close()
    else:
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)

    answer = await client.chat.completions.create(**fields)

    if stream:
        text = "".join([chunk.choices[0].delta.content or "" async for chunk in answer])
    else:
        text = answer.choices[0].message.content
    assert text == "405"
    generator = [call for call in live_gateway.calls(mark) if call.role == "generator"]
    assert len(generator) == 3, "nothing was sampled twice"


async def test_one_of_two_that_wait_may_leave(live_gateway: LiveGateway, client: AsyncOpenAI) -> None:
    mark, key = live_gateway.replies.to_mark(generator=SLOW), uuid.uuid4().hex

    def ask() -> asyncio.Future[Any]:
        return asyncio.ensure_future(
            client.chat.completions.create(model="simulated", messages=asked(mark), **with_key(key))
        )

    first, second = ask(), ask()
    await asyncio.to_thread(wait_until, lambda: open_calls(live_gateway, mark) == 1, "it is sampled")
    first.cancel()
    assert (await second).choices[0].finish_reason == "stop"


@pytest.mark.parametrize(
    "change",
    [
        {"messages": [{"role": "user", "content": "What is 1 + 1?"}]},
        {"user": "somebody else"},
        {"n": 2},
        {"stream": True},
        {"model": "simulated"},
    ],
    ids=lambda change: next(iter(change)),
)
async def test_another_body_with_the_same_key_is_refused(
    live_gateway: LiveGateway, client: AsyncOpenAI, change: dict[str, Any]
) -> None:
    key = uuid.uuid4().hex
    fields: dict[str, Any] = {"model": "k2think", "messages": asked("once")}
    await client.chat.completions.create(**fields, **with_key(key))
    with pytest.raises(openai.ConflictError) as caught:
        await client.chat.completions.create(**{**fields, **change}, **with_key(key))
    assert caught.value.code == "idempotency_conflict"


async def test_a_key_of_another_door_is_refused(live_gateway: LiveGateway, client: AsyncOpenAI) -> None:
    key, message = uuid.uuid4().hex, asked("door")
    headers = {"Idempotency-Key": key}
    job = httpx.post(f"{live_gateway.url}/v1/jobs", json={"messages": message}, headers=headers)
    assert job.status_code == 202
    with pytest.raises(openai.ConflictError):
        await client.chat.completions.create(model="k2think", messages=message, **with_key(key))
    other = uuid.uuid4().hex
    await client.chat.completions.create(model="k2think", messages=message, **with_key(other))
    job = httpx.post(f"{live_gateway.url}/v1/jobs", json={"messages": message}, headers={"Idempotency-Key": other})
    assert job.status_code == 409


def test_many_clients_with_one_key_make_one_job(live_gateway: LiveGateway) -> None:
    mark, key = live_gateway.replies.to_mark(), uuid.uuid4().hex
    ids: list[str] = []

    def ask() -> None:
        with sync_client(live_gateway) as client:
            ids.append(client.chat.completions.create(model="simulated", messages=asked(mark), **with_key(key)).id)

    threads = [threading.Thread(target=ask) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT_S)
    assert len(ids) == 12
    assert len(set(ids)) == 1
    assert len(live_gateway.calls(mark)) == 1
