"""/v1/jobs over HTTP: submit, look, list, follow, cancel, trace, on a whole stack."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from k2think.schemas.job_objects import JobList, JobObject
from k2think.schemas.jobs import JobStatus
from k2think.schemas.trace import JobEvent, JobTrace

if TYPE_CHECKING:
    from .conftest import LiveGateway

SOLVABLE: dict[str, Any] = {"problem": "What is 347 + 58?"}
SLOW: dict[str, Any] = {"problem": "What is 347 + 58?", "policy": {"backend": None, "deadline_s": 60, "n": 64}}
TIMEOUT_S = 30.0


@pytest.fixture
def http(live_gateway: LiveGateway) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=live_gateway.url, timeout=TIMEOUT_S) as client:
        yield client


def submitted(http: httpx.Client, body: dict[str, Any] = SOLVABLE, **headers: str) -> JobObject:
    answer = http.post("/v1/jobs", json=body, headers=headers)
    assert answer.status_code == 202, answer.text
    job = JobObject.model_validate_json(answer.content)
    assert answer.headers["location"] == f"/v1/jobs/{job.id}"
    return job


def events_of(http: httpx.Client, job_id: str, headers: dict[str, str] | None = None, **params: Any) -> list[JobEvent]:
    """Read the stream to its end; check that each id is the event's seq and each name its kind."""
    found: list[JobEvent] = []
    with http.stream("GET", f"/v1/jobs/{job_id}/events", params=params, headers=headers) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        fields: dict[str, str] = {}
        for line in answer.iter_lines():
            if line:
                name, _, value = line.partition(": ")
                fields[name] = value
                continue
            event = JobEvent.model_validate_json(fields["data"])
            assert (fields["id"], fields["event"]) == (str(event.seq), event.kind.value)
            found.append(event)
            fields = {}
    return found


def finished(http: httpx.Client, job_id: str) -> JobObject:
    assert events_of(http, job_id)[-1].kind == "finished"
    return JobObject.model_validate_json(http.get(f"/v1/jobs/{job_id}").content)


def error_of(answer: httpx.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    return answer.json()["error"]


def test_a_job_is_solved_after_its_client_has_left(live_gateway: LiveGateway) -> None:
    with httpx.Client(base_url=live_gateway.url) as first:
        job = submitted(first, {**SOLVABLE, "metadata": {"who": "me"}})
    assert job.status in (JobStatus.queued, JobStatus.running)

    with httpx.Client(base_url=live_gateway.url, timeout=TIMEOUT_S) as second:
        done = finished(second, job.id)

    assert (done.status, done.door, done.metadata) == (JobStatus.succeeded, "jobs", {"who": "me"})
    assert done.result is not None
    assert done.result.job_id == job.id
    assert done.result.answer == done.answer is not None
    assert done.created_at <= (done.started_at or 0) <= (done.finished_at or 0)


def test_the_same_idempotency_key_brings_back_the_same_job(http: httpx.Client) -> None:
    key = uuid.uuid4().hex
    first = submitted(http, SOLVABLE, **{"Idempotency-Key": key})

    assert submitted(http, SOLVABLE, **{"Idempotency-Key": key}).id == first.id
    assert submitted(http, {**SOLVABLE, "idempotency_key": key}).id == first.id
    assert submitted(http, {**SOLVABLE, "idempotency_key": key}, **{"Idempotency-Key": key}).id == first.id

    other = http.post("/v1/jobs", json={"problem": "What is 1 + 1?"}, headers={"Idempotency-Key": key})
    assert error_of(other, 409)["code"] == "idempotency_conflict"
    chat = {"model": "k2think", "messages": [{"role": "user", "content": SOLVABLE["problem"]}]}
    elsewhere = http.post("/v1/chat/completions", json=chat, headers={"Idempotency-Key": key})
    assert error_of(elsewhere, 409)["code"] == "idempotency_conflict"
    both = http.post("/v1/jobs", json={**SOLVABLE, "idempotency_key": "a"}, headers={"Idempotency-Key": "b"})
    assert error_of(both, 400)["param"] == "idempotency_key"


def test_events_resume_after_the_last_that_was_seen(http: httpx.Client) -> None:
    job = submitted(http)
    every = events_of(http, job.id)
    assert [event.seq for event in every] == sorted({event.seq for event in every})
    assert (every[0].kind, every[-1].kind) == ("accepted", "finished")

    for seen in (every[0], every[len(every) // 2], every[-1]):
        rest = [event for event in every if event.seq > seen.seq]
        assert events_of(http, job.id, {"Last-Event-ID": str(seen.seq)}) == rest
        assert events_of(http, job.id, after=seen.seq) == rest
    assert events_of(http, job.id, {"Last-Event-ID": "0"}, after=every[-1].seq) == every
    assert events_of(http, job.id, after=2**63 - 1) == [], "nobody waits for what cannot come"


def test_a_cancelled_job_stays_cancelled(http: httpx.Client) -> None:
    job = submitted(http, SLOW)

    answer = http.post(f"/v1/jobs/{job.id}/cancel")

    assert answer.status_code == 200
    cancelled = JobObject.model_validate_json(answer.content)
    assert (cancelled.status, cancelled.error_code, cancelled.answer) == (JobStatus.cancelled, "cancelled", None)
    assert cancelled.result is not None
    assert http.post(f"/v1/jobs/{job.id}/cancel").json() == answer.json()
    assert events_of(http, job.id)[-1].detail["status"] == "cancelled"


def test_the_list_is_newest_first_and_paged(http: httpx.Client) -> None:
    # Of all tenants' jobs of this stack, those of this test lie in a stretch of time of their own.
    start = time.time()
    mine = [submitted(http).id for _ in range(5)]
    for job_id in mine:
        finished(http, job_id)
    window = {"created_after": start, "created_before": time.time(), "door": "jobs"}

    seen: list[str] = []
    page = JobList(data=(), has_more=True)
    while page.has_more:
        after = {"after": page.last_id} if page.last_id else {}
        page = JobList.model_validate_json(http.get("/v1/jobs", params={**window, "limit": 2, **after}).content)
        assert len(page.data) <= 2
        assert (page.first_id, page.last_id) == (page.data[0].id, page.data[-1].id)
        seen += [job.id for job in page.data]

    assert seen == sorted(seen, reverse=True)
    assert [job_id for job_id in seen if job_id in mine] == mine[::-1]
    assert http.get("/v1/jobs", params={**window, "door": "responses"}).json()["data"] == []
    succeeded = http.get("/v1/jobs", params={**window, "status": "succeeded", "limit": 100}).json()["data"]
    assert set(mine) <= {job["id"] for job in succeeded}
    refused = http.get("/v1/jobs", params={**window, "status": "expired"}).json()
    assert (refused["data"], refused["first_id"], refused["has_more"]) == ([], None, False)


def test_the_trace_shows_text_only_after_the_screening(http: httpx.Client) -> None:
    done = finished(http, submitted(http).id)
    trace = JobTrace.model_validate_json(http.get(f"/v1/jobs/{done.id}/trace").content)
    calls = [attempt.call for step in trace.steps for attempt in step.attempts if attempt.call is not None]
    assert trace.result == done.result
    assert calls
    assert all(call.raw_text != "[withheld]" for call in calls)

    cancelled = submitted(http, SLOW).id
    http.post(f"/v1/jobs/{cancelled}/cancel")
    unscreened = JobTrace.model_validate_json(http.get(f"/v1/jobs/{cancelled}/trace").content)
    calls = [attempt.call for step in unscreened.steps for attempt in step.attempts if attempt.call is not None]
    assert all(call.raw_text in ("", "[withheld]") for call in calls)


@pytest.mark.parametrize("job_id", ["00000000-0000-4000-8000-000000000000", "nonsense", "..", "%00", "\N{SNOWMAN}"])
def test_an_id_that_nobody_has_is_not_found(http: httpx.Client, job_id: str) -> None:
    quoted = "%2E%2E" if job_id == ".." else job_id
    paths = [f"/v1/jobs/{quoted}", f"/v1/jobs/{quoted}/events", f"/v1/jobs/{quoted}/trace"]
    answers = [*(http.get(path) for path in paths), http.post(f"/v1/jobs/{quoted}/cancel")]
    assert [answer.status_code for answer in answers] == [404] * 4
    if job_id != "..":
        assert {answer.json()["error"]["code"] for answer in answers} == {"not_found"}


@pytest.mark.parametrize(
    ("body", "word"),
    [
        ({}, "problem"),
        ({"problem": " "}, "empty"),
        ({"problem": "1+1", "surprise": 1}, "surprise"),
        ({"problem": "1+1", "policy": {"n": 0}}, "policy.n"),
        ({"problem": "1+1", "policy": {"backend": "nowhere"}}, "nowhere"),
    ],
)
def test_what_is_wrong_is_named(http: httpx.Client, body: dict[str, Any], word: str) -> None:
    error = error_of(http.post("/v1/jobs", json=body), 400)
    assert word in json.dumps(error)
    assert error["code"] == "invalid_request"


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=101", "after=x", "status=done", "created_after=nan", "door=x", "statuss=failed"]
)
def test_wrong_filters_are_refused(http: httpx.Client, query: str) -> None:
    assert error_of(http.get(f"/v1/jobs?{query}"), 400)["param"] == query.partition("=")[0]


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/chat/completions", "/v1/models", "/v1/files", "/v1/batches"])
def test_a_parameter_that_nobody_knows_is_refused_everywhere(http: httpx.Client, path: str) -> None:
    send = http.post if path.endswith("completions") else http.get
    assert error_of(send(f"{path}?nobody=1"), 400)["param"] == "nobody"


@pytest.mark.parametrize("param", ["endpoint", "completion_window"])
def test_what_a_batch_cannot_have_is_named(http: httpx.Client, param: str) -> None:
    body = {"input_file_id": "file-1", "endpoint": "/v1/chat/completions", "completion_window": "24h", param: "x"}
    error = error_of(http.post("/v1/batches", json=body), 400)
    assert error["param"] == param
    assert error["message"].startswith(f"{param}: 'x' ")
