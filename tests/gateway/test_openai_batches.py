"""Files and batches as the stock `openai` client does them, sync and async, on a whole stack."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any

import openai
import pytest
from openai.types import Batch

if TYPE_CHECKING:
    from .conftest import LiveGateway

ENDPOINT = "/v1/chat/completions"
END_TIMEOUT_S = 90.0
FINAL = ("completed", "failed", "expired", "cancelled")
QUICK: dict[str, Any] = {"model": "k2think", "reasoning_effort": "minimal"}


def line(custom_id: str, **body: Any) -> dict[str, Any]:
    """A request; without anything else, one that is answered."""
    problem = {"messages": [{"role": "user", "content": f"What is 347 + 58? ({custom_id})"}]}
    return {"custom_id": custom_id, "method": "POST", "url": ENDPOINT, "body": {**QUICK, **problem, **body}}


def failing(custom_id: str) -> dict[str, Any]:
    """A well-formed request whose job comes to no answer: no candidate has the form that its own checks ask for."""
    return line(custom_id, k2think={"checks": {"answer_form": "interval"}})


def jsonl(*lines: dict[str, Any]) -> bytes:
    return b"".join(json.dumps(item).encode() + b"\n" for item in lines)


def lines_of(content: bytes) -> list[dict[str, Any]]:
    return [json.loads(item) for item in content.splitlines()]


@pytest.fixture
def client(live_gateway: LiveGateway) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{live_gateway.url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture
async def async_client(live_gateway: LiveGateway) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{live_gateway.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def upload(client: openai.OpenAI, content: bytes, **options: Any) -> str:
    return client.files.create(file=("input.jsonl", content), purpose="batch", **options).id


def start(client: openai.OpenAI, content: bytes, **options: Any) -> Batch:
    file_id = upload(client, content)
    return client.batches.create(
        input_file_id=file_id,
        endpoint=ENDPOINT,
        completion_window=options.pop("window", "24h"),
        **options,
    )


def ended(client: openai.OpenAI, batch: Batch) -> Batch:
    deadline = time.monotonic() + END_TIMEOUT_S
    counts = -1
    while batch.status not in FINAL:
        assert time.monotonic() < deadline, batch
        time.sleep(0.1)
        batch = client.batches.retrieve(batch.id)
        assert batch.request_counts is not None
        now = batch.request_counts.completed + batch.request_counts.failed
        assert now >= counts, "counts only grow"
        counts = now
    return batch


def test_a_batch_with_a_failing_line_from_upload_to_download(client: openai.OpenAI) -> None:
    names = [f"request-{number}" for number in range(12)]
    content = jsonl(*(failing(name) if name == "request-5" else line(name) for name in names))

    batch = start(client, content, metadata={"who": "me"})
    assert (batch.object, batch.status, batch.endpoint, batch.metadata) == (
        "batch",
        "validating",
        ENDPOINT,
        {"who": "me"},
    )
    assert batch.expires_at is not None
    assert batch.expires_at - batch.created_at == 86_400
    batch = ended(client, batch)

    assert batch.status == "completed"
    assert batch.request_counts is not None
    assert batch.request_counts.model_dump() == {"total": 12, "completed": 11, "failed": 1}
    assert batch.model == "k2think"
    times = [batch.created_at, batch.in_progress_at, batch.finalizing_at, batch.completed_at]
    assert None not in times
    assert times == sorted(at for at in times if at is not None)
    assert (batch.errors, batch.cancelled_at, batch.expired_at) == (None, None, None)
    assert batch.output_file_id is not None
    assert batch.error_file_id is not None

    answers = lines_of(client.files.content(batch.output_file_id).content)
    assert [answer["custom_id"] for answer in answers] == [name for name in names if name != "request-5"]
    assert len({answer["id"] for answer in answers}) == 11
    for answer in answers:
        assert set(answer) == {"id", "custom_id", "response", "error"}
        assert answer["id"].startswith("batch_req_")
        assert answer["error"] is None
        assert answer["response"]["status_code"] == 200
        body = openai.types.chat.ChatCompletion.model_validate(answer["response"]["body"])
        assert body.choices[0].message.content
        assert body.usage is not None
        assert body.id == f"chatcmpl-{answer['response']['request_id']}"
    assert batch.usage is not None
    used = sum(answer["response"]["body"]["usage"]["total_tokens"] for answer in answers)
    assert batch.usage.total_tokens == batch.usage.input_tokens + batch.usage.output_tokens == used > 0

    (error,) = lines_of(client.files.content(batch.error_file_id).content)
    assert (error["custom_id"], error["error"], error["response"]["status_code"]) == ("request-5", None, 422)
    assert error["response"]["body"]["error"]["type"] == "invalid_request_error"
    output = client.files.retrieve(batch.output_file_id)
    assert (output.purpose, output.filename) == ("batch_output", f"{batch.id}_output.jsonl")
    assert output.expires_at is None


async def test_a_cancelled_batch_keeps_what_is_done_and_tells_of_the_rest(async_client: openai.AsyncOpenAI) -> None:
    names = [f"{number}" for number in range(300)]
    file = await async_client.files.create(file=("input.jsonl", jsonl(*map(line, names))), purpose="batch")
    batch = await async_client.batches.create(input_file_id=file.id, endpoint=ENDPOINT, completion_window="24h")
    deadline = time.monotonic() + END_TIMEOUT_S
    while not (batch.request_counts and batch.request_counts.completed):
        assert time.monotonic() < deadline, batch
        await asyncio.sleep(0.1)
        batch = await async_client.batches.retrieve(batch.id)
    with pytest.raises(openai.BadRequestError, match="cancel the batch first"):
        await async_client.files.delete(file.id)

    cancelling = await async_client.batches.cancel(batch.id)
    assert cancelling.status == "cancelling"
    assert cancelling.cancelling_at is not None
    assert (await async_client.batches.cancel(batch.id)).status in ("cancelling", "cancelled")
    while batch.status not in FINAL:
        assert time.monotonic() < deadline, batch
        await asyncio.sleep(0.1)
        batch = await async_client.batches.retrieve(batch.id)

    assert batch.status == "cancelled"
    assert batch.request_counts is not None
    assert batch.output_file_id is not None
    assert batch.error_file_id is not None
    answers = lines_of((await async_client.files.content(batch.output_file_id)).content)
    errors = lines_of((await async_client.files.content(batch.error_file_id)).content)
    assert sorted([item["custom_id"] for item in [*answers, *errors]], key=int) == names
    assert [len(answers), len(errors)] == [batch.request_counts.completed, batch.request_counts.failed]
    assert errors
    assert {item["error"]["code"] for item in errors} == {"batch_cancelled"}
    assert {item["response"] for item in errors} == {None}
    assert (await async_client.files.delete(file.id)).deleted
    assert (await async_client.batches.cancel(batch.id)).status == "cancelled"


def test_what_is_not_done_when_the_window_closes_is_told_as_expired(client: openai.OpenAI) -> None:
    slow = {"k2think": {"policy": {"n": 16}}}
    batch = ended(client, start(client, jsonl(*(line(str(number), **slow) for number in range(400))), window="4s"))

    assert batch.status == "expired"
    assert batch.expired_at is not None
    assert batch.request_counts is not None
    assert batch.request_counts.completed + batch.request_counts.failed == batch.request_counts.total == 400
    assert batch.error_file_id is not None
    errors = lines_of(client.files.content(batch.error_file_id).content)
    assert {item["error"]["code"] for item in errors} == {"batch_expired"}
    answers = lines_of(client.files.content(batch.output_file_id).content) if batch.output_file_id else []
    assert {item["custom_id"] for item in [*answers, *errors]} == {str(number) for number in range(400)}
    with pytest.raises(openai.BadRequestError, match="cannot be cancelled"):
        client.batches.cancel(batch.id)


def test_faults_of_the_input_are_told_by_line(client: openai.OpenAI) -> None:
    content = jsonl(line("a"), line("a")) + b"no json\n" + jsonl({**line("b"), "url": "/v1/embeddings"})

    batch = ended(client, start(client, content))

    assert batch.status == "failed"
    assert batch.failed_at is not None
    assert batch.errors is not None
    assert batch.errors.data is not None
    assert [(problem.line, problem.code) for problem in batch.errors.data] == [
        (2, "duplicate_custom_id"),
        (3, "invalid_json_line"),
        (4, "invalid_url"),
    ]
    assert batch.request_counts is not None
    assert batch.request_counts.total == 0
    assert (batch.output_file_id, batch.error_file_id) == (None, None)


def test_a_retried_creation_brings_the_same_file_and_batch(client: openai.OpenAI) -> None:
    headers = {"Idempotency-Key": uuid.uuid4().hex}
    content = jsonl(line("a"))
    first = upload(client, content, extra_headers=headers)
    assert upload(client, content, extra_headers=headers) == first
    with pytest.raises(openai.ConflictError):
        upload(client, content * 2, extra_headers=headers)

    options: dict[str, Any] = {"input_file_id": first, "endpoint": ENDPOINT, "completion_window": "24h"}
    batch = client.batches.create(**options, extra_headers=headers)
    assert client.batches.create(**options, extra_headers=headers).id == batch.id
    assert client.batches.create(**options).id != batch.id
    with pytest.raises(openai.ConflictError):
        client.batches.create(**options, metadata={"other": "one"}, extra_headers=headers)


def test_lists_are_paged(client: openai.OpenAI) -> None:
    mine = [upload(client, jsonl(line("a"))) for _ in range(5)]
    found = [file.id for file in client.files.list(limit=2, order="desc", purpose="batch")]
    assert [file_id for file_id in found if file_id in mine] == mine[::-1]
    newer = [file.id for file in client.files.list(limit=2, order="asc", after=mine[2])]
    assert [file_id for file_id in newer if file_id in mine] == mine[3:]

    batches = [
        client.batches.create(input_file_id=file_id, endpoint=ENDPOINT, completion_window="24h").id for file_id in mine
    ]
    page = client.batches.list(limit=2)
    assert len(page.data) == 2
    assert page.has_more
    listed = [batch.id for batch in client.batches.list(limit=2)]
    assert [batch_id for batch_id in listed if batch_id in batches] == batches[::-1]
    with pytest.raises(openai.BadRequestError, match="after"):
        client.files.list(after="nonsense")


def test_a_file_with_an_expiry_and_a_strange_name(client: openai.OpenAI) -> None:
    content = jsonl(line("a"))
    name = '../../etc/pass"wd\r\nX: y\N{RIGHT-TO-LEFT OVERRIDE}ü.jsonl'
    file = client.files.create(
        file=(name, content), purpose="batch", expires_after={"anchor": "created_at", "seconds": 3600}
    )

    assert (file.object, file.purpose, file.bytes, file.status) == ("file", "batch", len(content), "processed")
    assert file.expires_at == file.created_at + 3600
    assert "/" not in file.filename
    assert file.filename.isprintable()
    assert file.filename.endswith("ü.jsonl")
    answer = client.files.content(file.id).response
    assert answer.content == content
    assert answer.headers["content-disposition"].startswith("attachment; ")
    assert answer.headers["content-disposition"].endswith("%C3%BC.jsonl")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert client.files.retrieve(file.id) == file

    deleted = client.files.delete(file.id)
    assert (deleted.id, deleted.deleted) == (file.id, True)
    for call in (client.files.retrieve, client.files.content, client.files.delete):
        with pytest.raises(openai.NotFoundError):
            call(file.id)
    with pytest.raises(openai.NotFoundError):
        client.batches.create(input_file_id=file.id, endpoint=ENDPOINT, completion_window="24h")


def test_the_output_expires_as_asked_for(client: openai.OpenAI) -> None:
    batch = ended(
        client, start(client, jsonl(line("a")), output_expires_after={"anchor": "created_at", "seconds": 7200})
    )
    assert batch.output_file_id is not None
    output = client.files.retrieve(batch.output_file_id)
    assert output.expires_at == output.created_at + 7200
