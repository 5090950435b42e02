"""The gateway is killed under a client's hands, and started again by `up`: nothing is lost, nothing comes twice."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from harness.live import LiveGateway, live_stack
from k2think.agents.backends.simulator import Reply
from k2think.schemas.batches import BatchStatus
from k2think.schemas.jobs import JobStatus
from k2think.schemas.trace import EventKind

if TYPE_CHECKING:
    from .conftest import Clients

PROBLEM = "What is 347 + 58?"
TIMEOUT_S = 100.0


@pytest.fixture(scope="module")
def stack() -> Iterator[LiveGateway]:
    """A stack whose gateway may be killed."""
    with live_stack() as live:
        yield live


@pytest.fixture
def slow(stack: LiveGateway) -> str:
    """A problem whose candidates come after the gateway has been killed."""
    return PROBLEM + stack.replies.to_mark(generator=Reply(text="<answer>405</answer>", first_token_s=2.0))


def kill_gateway(stack: LiveGateway) -> None:
    starts = stack.up.count("started", child="gateway")
    stack.up.kill("gateway")
    stack.up.wait_for(lambda: stack.up.count("started", child="gateway") > starts, "the gateway's new start")


def test_events_come_exactly_once_over_two_deaths_of_the_gateway(
    clients: Clients, stack: LiveGateway, slow: str
) -> None:
    client = clients(stack.url, patience_s=TIMEOUT_S)
    job = client.submit(slow)

    events = []
    deaths = [EventKind.accepted, EventKind.step_started]
    for event in client.stream(job.id):
        events.append(event)
        if deaths and event.kind is deaths[0]:
            deaths.pop(0)
            kill_gateway(stack)

    assert not deaths
    assert events == list(client.trace(job.id).events)
    assert events[-1].detail["status"] == "succeeded"


def test_a_wait_goes_on_over_the_death_of_the_gateway(clients: Clients, stack: LiveGateway, slow: str) -> None:
    client = clients(stack.url, patience_s=TIMEOUT_S)
    job = client.submit(slow)
    death = threading.Timer(0.5, kill_gateway, [stack])
    death.start()
    try:
        result = client.wait(job.id, timeout_s=TIMEOUT_S)
    finally:
        death.join()

    assert result.status is JobStatus.succeeded
    assert result == client.get(job.id).result


def test_a_batch_is_solved_over_the_death_of_the_gateway(clients: Clients, stack: LiveGateway, slow: str) -> None:
    client = clients(stack.url, patience_s=TIMEOUT_S)
    deaths: list[BatchStatus] = []

    def die_once(batch: object) -> None:
        status = batch.status  # type: ignore[attr-defined]
        if status is BatchStatus.in_progress and not deaths:
            deaths.append(status)
            kill_gateway(stack)

    solved = client.solve_batch(
        [slow, PROBLEM, slow], policy={"n": 1, "plan": "off"}, on_progress=die_once, timeout_s=TIMEOUT_S
    )

    assert deaths
    assert list(solved.results) == ["0", "1", "2"]
    assert all(result.ok for result in solved.results.values())
