"""The Celery door, driven by a stock Celery app with a result backend, against a running stack."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery
from harness.stack import client_of
from k2think.store.jobs import list_jobs
from k2think.workers.redis_server import broker_url_of, socket_path

WAIT_S = 60


@pytest.fixture(scope="module")
def caller(simulated_up: Any) -> Iterator[Celery]:
    """Some other service's Celery app: it knows the broker and nothing of ours."""
    url = broker_url_of(socket_path(simulated_up.up.folder))
    app = Celery("other-service", broker=url, backend=url, set_as_current=False)
    yield app
    app.close()


@pytest.mark.parametrize("form", ["dict", "json"])
def test_get_returns_the_result(caller: Celery, form: str) -> None:
    request: Any = {"problem": "What is 347 + 58?", "metadata": {"ticket": "7"}}

    answer = caller.send_task(
        "k2think.solve", [json.dumps(request) if form == "json" else request], queue="intake"
    ).get(timeout=WAIT_S)

    assert answer["status"] == "succeeded"
    assert answer["metadata"] == {"ticket": "7"}
    assert answer["usage"]["calls"]["generator"] >= 2


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([{"problem": ""}], "empty"),
        ([{"problem": "x", "policy": {"n": 0}}], "policy.n"),
        ([{"problem": "x", "policy": "nonsense"}], "unknown policy"),
        ([{"problem": "x", "policy": {"backend": "nowhere"}}], "unknown backend"),
        ([{"problem": "x", "typo": 1}], "typo"),
        (["{broken"], "JSON"),
        ([], "one argument"),
        (["a", "b"], "one argument"),
        ([7], "object"),
    ],
)
def test_an_invalid_request_is_answered_with_a_typed_error(caller: Celery, arguments: list[Any], says: str) -> None:
    answer = caller.send_task("k2think.solve", arguments, queue="intake").get(timeout=WAIT_S)

    assert answer["status"] == "failed"
    assert answer["error"]["code"] in ("invalid_request", "configuration_error")
    assert says in answer["error"]["message"]


async def test_the_same_task_delivered_twice_is_one_job(caller: Celery, simulated_up: Any) -> None:
    request = {"problem": "What is 1 + 1, delivered twice?"}
    first = caller.send_task("k2think.solve", [request], queue="intake", task_id="the-same-task")
    second = caller.send_task("k2think.solve", [request], queue="intake", task_id="the-same-task")

    assert first.get(timeout=WAIT_S)["job_id"] == second.get(timeout=WAIT_S)["job_id"]
    async with client_of(simulated_up.up) as session:
        jobs = await session.database.read(lambda connection: list_jobs(connection, limit=500))
    assert sum(job.problem == request["problem"] for job in jobs) == 1


def test_two_callers_with_one_idempotency_key_get_one_job(caller: Celery) -> None:
    request = {"problem": "What is 2 + 2?", "idempotency_key": "order-17"}

    answers = [caller.send_task("k2think.solve", [request], queue="intake").get(timeout=WAIT_S) for _ in range(2)]

    assert answers[0]["job_id"] == answers[1]["job_id"]
    other = {**request, "problem": "What is 3 + 3?"}
    refused = caller.send_task("k2think.solve", [other], queue="intake").get(timeout=WAIT_S)
    assert refused["error"]["code"] == "idempotency_conflict"
    assert "order-17" in refused["error"]["message"]
