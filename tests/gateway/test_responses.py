"""Responses with the stock openai client, sync and async: now, streamed, in the background, resumed, cancelled."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any

import httpx
import openai
import pytest
from k2think.agents.backends.simulator import CallOutcome, Fault, Reply
from openai import AsyncOpenAI, OpenAI
from openai.types.responses import Response, ResponseStreamEvent

if TYPE_CHECKING:
    from harness.live import LiveGateway

TIMEOUT_S = 60.0
STOPS_WITHIN_S = 2.0
POLL_S = 0.05
ASK = "What is 347 + 58?"
ENDLESS = Reply("word " * 5000, token_s=0.02)
FAKE_KEY = "ghp_" + "a8Kd93mfLq02Xz7PvbNw41RtYcHs65JuGe1o"


@pytest.fixture
def client(live_gateway: LiveGateway) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{live_gateway.url}/v1", api_key="none", timeout=TIMEOUT_S, max_retries=0) as client:
        yield client


@pytest.fixture
async def async_client(live_gateway: LiveGateway) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{live_gateway.url}/v1", api_key="none", timeout=TIMEOUT_S, max_retries=0) as one:
        yield one


def ended(client: OpenAI, response_id: str) -> Response:
    deadline = time.monotonic() + TIMEOUT_S
    while (response := client.responses.retrieve(response_id)).status in ("queued", "in_progress"):
        assert time.monotonic() < deadline
        time.sleep(POLL_S)
    return response


def plain(event: ResponseStreamEvent) -> dict[str, Any]:
    return event.to_dict(mode="json")


# ---- now


def test_a_response_has_a_summary_and_the_answer(client: OpenAI, live_gateway: LiveGateway) -> None:
    mark = live_gateway.replies.to_mark(planner=Reply('{"plan": "Add ones, then tens."}'))

    response = client.responses.create(model="k2think", input=f"{ASK} {mark}", metadata={"a": "b"}, user="ada")

    reasoning, message = response.output
    assert (response.object, response.status, response.model) == ("response", "completed", "k2think")
    assert response.output_text == response.model_extra["k2think"]["answer"]  # type: ignore[index]
    assert (reasoning.type, message.type) == ("reasoning", "message")
    assert "Plan:\nAdd ones, then tens." in [part.text for part in reasoning.summary]
    assert reasoning.content[0].text
    assert response.completed_at is not None
    assert response.completed_at >= response.created_at
    assert response.usage is not None
    assert response.usage.total_tokens == response.usage.input_tokens + response.usage.output_tokens > 0
    assert (response.metadata, response.user, response.background) == ({"a": "b"}, "ada", False)
    assert client.responses.retrieve(response.id) == response


async def test_instructions_and_history_reach_the_model(async_client: AsyncOpenAI, live_gateway: LiveGateway) -> None:
    mark = live_gateway.replies.to_mark(generator=Reply("Bonjour encore."))
    first = await async_client.responses.create(model="k2think", input=ASK)
    given: list[Any] = [
        {"role": "user", "content": "Hello"},
        *[item.to_dict() for item in first.output],
        {"role": "user", "content": [{"type": "input_text", "text": f"Again. {mark}"}]},
    ]

    response = await async_client.responses.create(
        model="k2think",
        instructions="Answer in French.",
        input=given,
        reasoning={"effort": "minimal"},
        temperature=0.25,
        top_p=0.5,
        max_output_tokens=99,
    )

    assert response.output_text == "Bonjour encore."
    (call,) = live_gateway.calls(mark)
    (_, instructions), *rest = call.request.messages
    assert instructions.endswith("Answer in French.")
    assert rest == [("user", "Hello"), ("assistant", first.output_text), ("user", f"Again. {mark}")]
    assert (call.request.body["temperature"], call.request.body["top_p"], call.request.max_tokens) == (0.25, 0.5, 99)
    assert (response.instructions, response.temperature, response.max_output_tokens) == ("Answer in French.", 0.25, 99)
    assert response.reasoning is not None
    assert response.reasoning.effort == "minimal"


def test_a_single_sample_of_a_backends_model(client: OpenAI, live_gateway: LiveGateway) -> None:
    mark = live_gateway.replies.to_mark(generator=Reply(" 405\n", reasoning="Five and eight."))
    response = client.responses.create(model="simulated", input=f"{ASK} {mark}")
    assert response.output_text == " 405\n"
    reasoning: Any = response.output[0]
    assert (reasoning.summary, reasoning.content[0].text) == ([], "Five and eight.")
    (call,) = live_gateway.calls(mark)
    assert call.request.messages == (("user", f"{ASK} {mark}"),)


def test_what_is_withheld_is_a_refusal(client: OpenAI, live_gateway: LiveGateway) -> None:
    mark = live_gateway.replies.to_mark(
        generator=Reply(f"Use {FAKE_KEY}."), planner=Reply(f'{{"plan": "Try {FAKE_KEY}."}}')
    )
    refused = client.responses.create(model="k2think", input=f"{ASK} {mark}")
    assert refused.status == "incomplete"
    assert refused.incomplete_details is not None
    assert refused.incomplete_details.reason == "content_filter"
    message: Any = refused.output[-1]
    assert (message.content[0].type, message.content[0].refusal) == ("refusal", "the answer was withheld: secrets")
    events = list(client.responses.retrieve(refused.id, stream=True))
    assert events[-1].type == "response.incomplete"
    assert "response.refusal.delta" in {event.type for event in events}
    for shown in (refused.to_json(), *(event.to_json() for event in events)):
        assert "ghp" not in shown


def test_a_text_that_is_cut_off_is_incomplete(client: OpenAI, live_gateway: LiveGateway) -> None:
    mark = live_gateway.replies.to_mark(generator=Reply("one two six ten"))
    for model, text in (("k2think", ""), ("simulated", "one two six")):
        response = client.responses.create(model=model, input=f"{ASK} {mark}", max_output_tokens=3)
        assert response.status == "incomplete"
        assert response.incomplete_details is not None
        assert response.incomplete_details.reason == "max_output_tokens"
        assert response.output_text == text


def test_a_failure_is_an_error_now_and_a_failed_response_later(client: OpenAI, live_gateway: LiveGateway) -> None:
    mark = live_gateway.replies.to_mark(generator=Reply(fault=Fault.context_too_long()))
    with pytest.raises(openai.UnprocessableEntityError) as caught:
        client.responses.create(model="k2think", input=f"{ASK} {mark}")
    assert caught.value.code == "backend_context_too_long"

    failed = ended(client, client.responses.create(model="k2think", input=f"{ASK} {mark}", background=True).id)
    assert failed.status == "failed"
    assert failed.error is not None
    assert failed.error.code == "server_error"
    assert failed.model_extra["k2think"]["error_code"] == "backend_context_too_long"  # type: ignore[index]
    assert list(client.responses.retrieve(failed.id, stream=True))[-1].type == "response.failed"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": ""}, "input"),
        ({"input": []}, "input"),
        ({"input": [{"role": "assistant", "content": "4"}]}, "input"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input"),
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"tools": [{"type": "web_search"}]}, "tools"),
        ({"text": {"format": {"type": "json_object"}}}, "text"),
        ({"truncation": "auto"}, "truncation"),
        ({"include": ["message.output_text.logprobs"]}, "include"),
        ({"temperature": 3}, "temperature"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"reasoning": {"effort": "enormous"}}, "reasoning.effort"),
        ({"model": "simulated", "reasoning": {"effort": "high"}}, "reasoning.effort"),
        ({"background": True, "store": False}, "store"),
        ({"extra_body": {"k2think": {"policy": {"n": 65}}}}, "k2think.policy.n"),
        ({"extra_body": {"surprise": 1}}, "surprise"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(client: OpenAI, fields: dict[str, Any], param: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(**{"model": "k2think", "input": ASK, **fields})
    assert (caught.value.param or "").startswith(param)
    assert caught.value.code == "invalid_request"


# ---- streams


def test_a_stream_is_what_the_response_says_later(client: OpenAI, live_gateway: LiveGateway) -> None:
    mark = live_gateway.replies.to_mark(planner=Reply('{"plan": "Add ones, then tens."}'))
    events = list(client.responses.create(model="k2think", input=f"{ASK} {mark}", stream=True))

    assert [event.sequence_number for event in events] == list(range(len(events)))
    kinds = [event.type for event in events]
    assert kinds[:2] == ["response.created", "response.in_progress"]
    assert kinds[-1] == "response.completed"
    last: Any = events[-1]
    assert last.response == client.responses.retrieve(last.response.id)
    deltas = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert deltas == last.response.output_text
    summary = [event.text for event in events if event.type == "response.reasoning_summary_text.done"]
    assert summary == [part.text for part in last.response.output[0].summary]
    assert "Plan:\nAdd ones, then tens." in summary
    items = [event.item for event in events if event.type == "response.output_item.done"]
    assert items == last.response.output
    text = "".join(event.delta for event in events if event.type == "response.reasoning_text.delta")
    assert text == last.response.output[0].content[0].text


@pytest.mark.parametrize("model", ["k2think", "simulated"])
def test_the_clients_own_accumulator_understands_the_stream(client: OpenAI, model: str) -> None:
    with client.responses.stream(model=model, input=ASK) as stream:
        final = stream.get_final_response()
    assert final.status == "completed"
    assert final.output_text


def test_a_stream_goes_on_anywhere_after_any_event(client: OpenAI) -> None:
    events = [plain(event) for event in client.responses.create(model="k2think", input=ASK, stream=True)]
    response_id = events[0]["response"]["id"]

    for seen in (-1, 0, 1, len(events) // 2, len(events) - 2, len(events) - 1, len(events) + 7):
        rest = client.responses.retrieve(response_id, stream=True, starting_after=seen)
        assert [plain(event) for event in rest] == [event for event in events if event["sequence_number"] > seen]
    with client.responses.stream(response_id=response_id, starting_after=3) as stream:
        assert [event.sequence_number for event in stream] == list(range(4, len(events)))


async def test_a_broken_background_stream_is_taken_up_while_it_is_worked_on(
    async_client: AsyncOpenAI, live_gateway: LiveGateway
) -> None:
    mark = live_gateway.replies.to_mark(generator=Reply("<answer>405</answer>", first_token_s=1.5))
    seen: list[dict[str, Any]] = []
    stream = await async_client.responses.create(model="k2think", input=f"{ASK} {mark}", background=True, stream=True)
    async for event in stream:
        seen.append(plain(event))
        if event.type == "response.output_item.added":
            break
    await stream.close()
    assert [event["type"] for event in seen[:3]] == ["response.created", "response.queued", "response.in_progress"]
    response_id = seen[0]["response"]["id"]

    rest = await async_client.responses.retrieve(response_id, stream=True, starting_after=seen[-1]["sequence_number"])
    seen += [plain(event) async for event in rest]

    again = await async_client.responses.retrieve(response_id, stream=True)
    assert seen == [plain(event) async for event in again]
    assert seen[-1]["response"]["status"] == "completed"
    assert len([call for call in live_gateway.calls(mark) if call.role == "generator"]) == 3


# ---- in the background


def test_a_background_response_is_fetched_later(client: OpenAI, live_gateway: LiveGateway) -> None:
    mark = live_gateway.replies.to_mark(generator=Reply("<answer>405</answer>", first_token_s=0.5))
    asked = client.responses.create(model="k2think", input=f"{ASK} {mark}", background=True)
    assert asked.status in ("queued", "in_progress")
    assert (asked.background, asked.output_text, asked.usage) == (True, "", None)

    done = ended(client, asked.id)

    assert (done.status, done.output_text, done.created_at) == ("completed", "405", asked.created_at)


def test_a_background_response_is_cancelled(client: OpenAI, live_gateway: LiveGateway) -> None:
    mark = live_gateway.replies.to_mark(generator=ENDLESS)
    asked = client.responses.create(model="k2think", input=f"{ASK} {mark}", background=True)
    deadline = time.monotonic() + TIMEOUT_S
    while sum(call.outcome is CallOutcome.open for call in live_gateway.calls(mark)) < 3:
        assert time.monotonic() < deadline
        time.sleep(POLL_S)

    cancelled = client.responses.cancel(asked.id)

    began = time.monotonic()
    while any(call.outcome is CallOutcome.open for call in live_gateway.calls(mark)):
        assert time.monotonic() < began + STOPS_WITHIN_S
        time.sleep(POLL_S)
    assert (cancelled.status, cancelled.id, cancelled.output_text) == ("cancelled", asked.id, "")
    assert client.responses.cancel(asked.id) == cancelled == client.responses.retrieve(asked.id)
    last: Any = list(client.responses.retrieve(asked.id, stream=True))[-1]
    assert (last.type, last.response.status) == ("response.failed", "cancelled")


async def test_a_response_that_is_waited_for_ends_with_its_client(
    async_client: AsyncOpenAI, live_gateway: LiveGateway
) -> None:
    for stream in (False, True):
        mark = live_gateway.replies.to_mark(generator=ENDLESS)
        request = asyncio.ensure_future(
            async_client.responses.create(model="simulated", input=f"{ASK} {mark}", stream=stream)
        )
        deadline = time.monotonic() + TIMEOUT_S
        while not any(call.outcome is CallOutcome.open for call in live_gateway.calls(mark)):
            assert time.monotonic() < deadline
            await asyncio.sleep(POLL_S)
        if stream:
            answer: Any = await request
            await answer.close()
        else:
            request.cancel()
        began = time.monotonic()
        while any(call.outcome is CallOutcome.open for call in live_gateway.calls(mark)):
            assert time.monotonic() < began + STOPS_WITHIN_S
            await asyncio.sleep(POLL_S)


def test_the_same_key_brings_the_same_response(client: OpenAI, live_gateway: LiveGateway) -> None:
    for background in (False, True):
        mark, headers = live_gateway.replies.to_mark(), {"Idempotency-Key": uuid.uuid4().hex}
        fields: dict[str, Any] = {"model": "simulated", "input": f"{ASK} {mark}", "background": background}
        first = client.responses.create(**fields, extra_headers=headers)
        ended(client, first.id)
        again = client.responses.create(**fields, extra_headers=headers)
        assert again.id == first.id
        assert again == client.responses.retrieve(first.id)
        assert len(live_gateway.calls(mark)) == 1
        with pytest.raises(openai.ConflictError):
            client.responses.create(**fields, user="another", extra_headers=headers)
        message: list[Any] = [{"role": "user", "content": f"{ASK} {mark}"}]
        with pytest.raises(openai.ConflictError):
            client.chat.completions.create(model="simulated", messages=message, extra_headers=headers)


# ---- fetching


def test_what_is_not_there_is_not_found(client: OpenAI, live_gateway: LiveGateway) -> None:
    unstored = client.responses.create(model="simulated", input=ASK, store=False)
    assert unstored.status == "completed"
    deleted = client.responses.create(model="simulated", input=ASK)
    client.responses.delete(deleted.id)
    chat = client.chat.completions.create(model="simulated", messages=[{"role": "user", "content": ASK}])
    of_a_chat = f"resp_{chat.id.removeprefix('chatcmpl-').replace('-', '')}"

    for response_id in (unstored.id, deleted.id, of_a_chat, f"resp_{uuid.uuid4().hex}", "resp_", "nonsense"):
        for ask in (
            lambda one=response_id: client.responses.retrieve(one),
            lambda one=response_id: list(client.responses.retrieve(one, stream=True)),
            lambda one=response_id: client.responses.cancel(one),
            lambda one=response_id: client.responses.delete(one),
            lambda one=response_id: client.responses.input_items.list(one),
        ):
            with pytest.raises(openai.NotFoundError) as caught:
                ask()
            assert caught.value.code == "not_found"
    job = httpx.get(f"{live_gateway.url}/v1/jobs/{deleted.id.removeprefix('resp_')}")
    assert job.json()["status"] == "succeeded", "the ledger keeps the job"


def test_deleting_ends_what_is_worked_on(client: OpenAI, live_gateway: LiveGateway) -> None:
    mark = live_gateway.replies.to_mark(generator=ENDLESS)
    asked = client.responses.create(model="simulated", input=f"{ASK} {mark}", background=True)
    client.responses.delete(asked.id)
    job = httpx.get(f"{live_gateway.url}/v1/jobs/{asked.id.removeprefix('resp_')}")
    assert job.json()["status"] == "cancelled"


def test_only_background_responses_can_be_cancelled(client: OpenAI) -> None:
    response = client.responses.create(model="simulated", input=ASK)
    with pytest.raises(openai.BadRequestError):
        client.responses.cancel(response.id)


def test_a_place_in_a_stream_needs_a_stream(client: OpenAI) -> None:
    response = client.responses.create(model="simulated", input=ASK)
    for query in ({"starting_after": 3}, {"include[]": "x"}, {"stream": "true", "starting_after": "x"}):
        answer = httpx.get(f"{client.base_url}responses/{response.id}", params=query)
        assert answer.status_code == 400, query


def test_the_turns_of_a_response_are_listed(client: OpenAI) -> None:
    given: list[Any] = [
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi."},
        {"role": "user", "content": ASK},
    ]
    response = client.responses.create(model="simulated", input=given, instructions="Be short.")

    listed = [item.to_dict() for item in client.responses.input_items.list(response.id, limit=2, order="asc")]

    assert [(item["role"], item["content"][0]["text"]) for item in listed] == [
        (turn["role"], turn["content"]) for turn in given
    ]
    newest = client.responses.input_items.list(response.id).data
    assert [item.to_dict() for item in newest] == listed[::-1]
