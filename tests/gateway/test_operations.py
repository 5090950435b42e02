"""/health/ready and /metrics: one question at a time, and what they tell of a whole stack."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import httpx
import pytest
from harness.operations import bad, samples_of, total
from k2think.gateway.operations.once import AskedOnce
from k2think.store.workers import ROLES_NEEDED
from prometheus_client.samples import Sample

if TYPE_CHECKING:
    from .conftest import LiveGateway


async def test_one_question_is_under_way_and_its_answer_kept_for_a_moment() -> None:
    asked = 0
    gate = asyncio.Event()

    async def ask() -> int:
        nonlocal asked
        asked += 1
        await gate.wait()
        if asked == 2:
            raise ValueError("no")
        return asked

    once = AskedOnce(ask, max_age_s=0.2)
    with pytest.raises(TimeoutError):
        await once.get(timeout_s=0.05)
    waiting = [asyncio.ensure_future(once.get(timeout_s=5)) for _ in range(20)]
    gate.set()

    assert await asyncio.gather(*waiting) == [1] * 20
    await asyncio.sleep(0.3)
    for _ in range(2):
        with pytest.raises(ValueError, match="no"):
            await once.get(timeout_s=5)
    await asyncio.sleep(0.3)
    assert await once.get(timeout_s=5) == 3


# ---- On the whole stack


def until(condition: Callable[[], bool], what: str, *, timeout_s: float = 60.0) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.2)


def scraped(live_gateway: LiveGateway) -> list[Sample]:
    return samples_of(httpx.get(f"{live_gateway.url}/metrics", timeout=30))


def test_a_stack_that_has_started_becomes_ready(live_gateway: LiveGateway) -> None:
    until(lambda: not bad(httpx.get(f"{live_gateway.url}/health/ready", timeout=30)), "the stack is ready")


def test_the_values_move_when_a_job_runs(live_gateway: LiveGateway) -> None:
    before = scraped(live_gateway)

    with httpx.Client(base_url=live_gateway.url, timeout=60) as http:
        job = http.post("/v1/jobs", json={"problem": "What is 347 + 58?"}).json()
        with http.stream("GET", f"/v1/jobs/{job['id']}/events") as events:
            events.read()
        usage = http.get(f"/v1/jobs/{job['id']}").json()["result"]["usage"]
    paid = usage["planner"]["completion"]
    assert paid > 0

    def moved(name: str, /, **labels: str) -> float:
        return total(scraped(live_gateway), name, **labels) - total(before, name, **labels)

    until(lambda: moved("k2think_jobs_finished_total", status="succeeded") >= 1, "the job is counted")
    until(lambda: moved("celery_task_succeeded_total", name="k2think.plan", queue_name="planner") >= 1, "the plan is")
    until(lambda: moved("celery_task_runtime_count", queue_name="safety") >= 2, "both screenings are")
    until(lambda: moved("k2think_step_wait_seconds_count", role="generator") >= 3, "the candidates are")
    until(lambda: moved("k2think_time_to_first_token_seconds_count", backend="openai") >= 3, "first tokens are")
    until(lambda: moved("k2think_model_calls_total", agent="planner", outcome="ok") >= 1, "the planner's call is")
    until(lambda: moved("k2think_screenings_total", kind="screen_input", verdict="safe") >= 1, "the verdict is")
    until(lambda: moved("k2think_tokens_total", agent="planner", kind="completion") >= paid, "its tokens are")


def test_every_process_of_the_stack_is_there(live_gateway: LiveGateway) -> None:
    def there() -> bool:
        samples = scraped(live_gateway)
        return all(total(samples, "k2think_workers", role=role) for role in (*ROLES_NEEDED, "intake", "gateway"))

    until(there, "every process is seen")
    assert total(scraped(live_gateway), "k2think_capacity", role="generator") > 0
