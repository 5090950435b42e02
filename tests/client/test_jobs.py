"""The client's methods about jobs, on a whole stack."""

from __future__ import annotations

import asyncio
import time
import uuid
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import k2think.client.jobs
import pytest
from k2think import AsyncClient
from k2think.agents.backends.simulator import Reply
from k2think.schemas.checks import AnswerForm, Checks
from k2think.schemas.completion import ChatMessage
from k2think.schemas.errors import IdempotencyConflict, InvalidRequest, NotFound, WaitTimedOut
from k2think.schemas.job_objects import JobObject
from k2think.schemas.jobs import JobStatus, SolveResult
from k2think.schemas.policy import Policy
from k2think.schemas.trace import EventKind, JobEvent, JobTrace

if TYPE_CHECKING:
    from harness.live import LiveGateway

PROBLEM = "What is 347 + 58?"
MANY = 120
"""More than the connections that httpx opens by default."""


@pytest.fixture
def stuck(live_gateway: LiveGateway) -> str:
    """A problem that the model does not answer before the test is over."""
    return PROBLEM + live_gateway.replies.to_mark(generator=Reply(text="<answer>405</answer>", first_token_s=100.0))


@pytest.mark.parametrize(
    "problem",
    [
        PROBLEM,
        [{"role": "system", "content": "Be brief."}, {"role": "user", "content": PROBLEM}],
        (ChatMessage(role="user", content=PROBLEM),),
    ],
    ids=["words", "dicts", "messages"],
)
def test_solve_returns_the_result(client: Any, problem: Any) -> None:
    result = client.solve(problem, metadata={"who": "me"}, timeout_s=100)

    assert isinstance(result, SolveResult)
    assert (result.status, result.metadata) == (JobStatus.succeeded, {"who": "me"})
    assert result.answer is not None
    assert result.usage.total.total > 0


@pytest.mark.parametrize(
    ("policy", "samples"),
    [("paper", 3), (Policy(n=1), 1), ({"n": 2, "plan": "off"}, 2)],
    ids=["name", "policy", "dict"],
)
def test_a_policy_is_a_name_an_object_or_fields(client: Any, policy: Any, samples: int) -> None:
    job = client.submit(PROBLEM, policy=policy, checks=Checks(answer_form=AnswerForm.number))

    assert isinstance(job, JobObject)
    trace = client.trace(job.id)
    client.cancel(job.id)

    assert isinstance(trace, JobTrace)
    assert trace.request.policy.n == samples
    assert trace.request.policy.preset == ("paper" if policy == "paper" else "default")
    assert trace.request.checks.answer_form is AnswerForm.number


def test_wait_returns_what_get_shows_later(client: Any) -> None:
    job = client.submit(PROBLEM)

    result = client.wait(job.id)

    seen = client.get(job.id)
    assert (seen.id, seen.result) == (job.id, result)
    assert client.wait(job.id, timeout_s=0) == result, "no time is needed for what has ended"
    assert client.trace(job.id).result == result


def test_events_come_in_order_to_the_end(client: Any) -> None:
    job = client.submit(PROBLEM)

    events = list(client.stream(job.id))

    assert all(isinstance(event, JobEvent) and event.job_id == job.id for event in events)
    assert all(first.seq < second.seq for first, second in pairwise(events))
    assert (events[0].kind, events[-1].kind) == (EventKind.accepted, EventKind.finished)
    middle = events[len(events) // 2].seq
    assert list(client.stream(job.id, after=middle)) == [event for event in events if event.seq > middle]
    assert list(client.stream(job.id, after=events[-1].seq)) == []
    assert list(client.stream(job.id, after=2**62)) == []


def test_a_stream_may_be_left_early(client: Any) -> None:
    job = client.submit(PROBLEM)
    events = client.stream(job.id)
    first = next(events)
    events.close()

    assert first.kind is EventKind.accepted
    assert client.wait(job.id).status is JobStatus.succeeded


async def test_many_may_follow_at_once(live_gateway: LiveGateway, stuck: str) -> None:
    async with AsyncClient(live_gateway.url) as client:
        job = await client.submit(stuck)
        streams = [client.stream(job.id) for _ in range(MANY)]

        firsts = await asyncio.gather(*(anext(stream) for stream in streams))

        assert [event.kind for event in firsts] == [EventKind.accepted] * MANY
        for stream in streams:
            await stream.aclose()
        await client.cancel(job.id)


def test_a_cancelled_job_ends_the_wait_of_others(client: Any, stuck: str) -> None:
    job = client.submit(stuck)

    cancelled = client.cancel(job.id)

    assert (cancelled.status, client.wait(job.id).status) == (JobStatus.cancelled, JobStatus.cancelled)
    assert client.cancel(job.id) == cancelled


@pytest.mark.parametrize("timeout_s", [0.0, 0.3, 2.0])
def test_a_wait_ends_in_time_and_the_job_goes_on(client: Any, stuck: str, timeout_s: float) -> None:
    job = client.submit(stuck)

    start = time.monotonic()
    with pytest.raises(WaitTimedOut, match=job.id) as caught:
        client.wait(job.id, timeout_s=timeout_s)
    waited_s = time.monotonic() - start

    assert isinstance(caught.value, TimeoutError)
    assert waited_s >= timeout_s
    assert not client.get(job.id).status.final
    client.cancel(job.id)


def test_solve_has_one_time_out_for_both_of_its_parts(client: Any, stuck: str) -> None:
    mine = uuid.uuid4().hex
    with pytest.raises(WaitTimedOut):
        client.solve(stuck, timeout_s=0.5, idempotency_key=mine)

    job = client.submit(stuck, idempotency_key=mine)
    assert not job.status.final, "the first one went on"
    client.cancel(job.id)
    assert client.solve(stuck, idempotency_key=mine).status is JobStatus.cancelled


def test_the_list_goes_over_all_pages(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(k2think.client.jobs, "PAGE", 2)
    start = time.time()
    mine = [client.submit(PROBLEM).id for _ in range(5)]
    for job_id in mine:
        client.wait(job_id)
    window = {"created_after": start, "created_before": time.time()}

    found = list(client.list(**window, door="jobs"))

    assert [job.id for job in found if job.id in mine] == mine[::-1]
    assert all(isinstance(job, JobObject) and job.result is None for job in found)
    assert set(mine) <= {job.id for job in client.list(**window, status=JobStatus.succeeded)}
    assert not [job for job in client.list(**window, status="expired") if job.id in mine]
    assert [job.id for job in client.list(**window, after=mine[2]) if job.id in mine] == mine[:2][::-1]


def test_one_key_is_one_job(client: Any) -> None:
    key = uuid.uuid4().hex
    first = client.submit(PROBLEM, idempotency_key=key)

    assert client.submit(PROBLEM, idempotency_key=key).id == first.id
    assert client.submit(PROBLEM).id != first.id
    with pytest.raises(IdempotencyConflict):
        client.submit("What is 1 + 1?", idempotency_key=key)


@pytest.mark.parametrize(
    "job_id", ["00000000-0000-4000-8000-000000000000", "nonsense", "..", "a/../b", "%00", "\N{SNOWMAN}", "a?b#c"]
)
def test_a_job_that_nobody_has_is_not_found(client: Any, job_id: str) -> None:
    for method in (client.get, client.cancel, client.trace, client.wait):
        with pytest.raises(NotFound):
            method(job_id)
    with pytest.raises(NotFound):
        list(client.stream(job_id))


@pytest.mark.parametrize(
    ("problem", "options", "word"),
    [
        (" ", {}, "empty"),
        ([], {}, "not neither"),
        ([{"role": "assistant", "content": "405"}], {}, "user turn"),
        (PROBLEM, {"policy": "hasty"}, "hasty"),
        (PROBLEM, {"policy": {"n": 0}}, "policy.n"),
        (PROBLEM, {"policy": {"backend": "nowhere"}}, "nowhere"),
        (PROBLEM, {"metadata": {"note": "x" * 513}}, "note"),
    ],
)
def test_what_is_wrong_is_named(client: Any, problem: Any, options: dict[str, Any], word: str) -> None:
    with pytest.raises(InvalidRequest, match=word):
        client.submit(problem, **options)


def test_an_empty_id_and_a_wrong_filter_are_refused(client: Any) -> None:
    with pytest.raises(InvalidRequest, match="empty"):
        client.get("")
    with pytest.raises(InvalidRequest) as caught:
        list(client.list(status="done"))
    assert caught.value.param == "status"
