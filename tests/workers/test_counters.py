"""What is counted, under which names and labels, and that the snapshot holds all of it."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from k2think.schemas.backend_settings import BackendSettings
from k2think.schemas.completion import ChatMessage, TokenUsage
from k2think.schemas.jobs import JobStatus, SolveResult
from k2think.schemas.messages import AgentKind, ComparePair, Envelope, GenerateCandidate, ScreenInput
from k2think.schemas.outcomes import Compared, Preference, Screened, ScreenVerdict, StepResult
from k2think.schemas.trace import CallTrace
from k2think.workers.counters import Counters
from k2think.workers.queues import role_queues

MESSAGES = (ChatMessage(role="user", content="What is 1 + 1?"),)
PLACE = {"name": "k2think.generate", "queue_name": "generator.fast"}


@pytest.fixture
def counters() -> Counters:
    return Counters()


def values(counters: Counters) -> dict[str, list[tuple[dict[str, str], float]]]:
    """The snapshot as it is read again: values by name of the sample."""
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for samples in json.loads(counters.snapshot()).values():
        for name, labels, value in samples:
            found.setdefault(name, []).append((labels, value))
    return found


def value(counters: Counters, sample: str, /, **labels: str) -> float:
    (found,) = [number for given, number in values(counters)[sample] if given == labels]
    return found


def envelope(body: Any) -> Envelope:
    return Envelope(job_id="j", step="s", attempt=1, body=body)


def candidate(backend: str | None = "fast") -> Envelope:
    return envelope(GenerateCandidate(messages=MESSAGES, candidate=0, backend=backend))


def test_a_steps_way_is_counted_under_its_task_and_queue(counters: Counters) -> None:
    counters.received(candidate())
    counters.started(candidate(), waited_s=0.3)
    counters.retried(candidate())
    counters.failed(candidate(), code="backend_stalled")
    counters.revoked(candidate())

    for name in ("received", "started", "retried", "revoked"):
        assert value(counters, f"celery_task_{name}_total", **PLACE) == 1
    assert value(counters, "celery_task_failed_total", **PLACE, exception="backend_stalled") == 1
    assert value(counters, "k2think_step_wait_seconds_sum", role="generator") == pytest.approx(0.3)
    assert value(counters, "k2think_step_wait_seconds_bucket", role="generator", le="0.1") == 0
    assert value(counters, "k2think_step_wait_seconds_bucket", role="generator", le="0.5") == 1


def test_a_clock_that_was_set_back_makes_no_negative_wait(counters: Counters) -> None:
    counters.started(candidate(), waited_s=-5)

    assert value(counters, "k2think_step_wait_seconds_sum", role="generator") == 0


VERDICTS: list[tuple[StepResult, str, dict[str, str]]] = [
    (
        Screened(verdict=ScreenVerdict.unsafe, category="weapons"),
        "k2think_screenings_total",
        {"kind": "screen_input", "verdict": "unsafe"},
    ),
    (Compared(first=0, second=1, preference=Preference.first), "k2think_comparisons_total", {"outcome": "decided"}),
    (Compared(first=0, second=1, preference=Preference.tie), "k2think_comparisons_total", {"outcome": "tie"}),
    (
        Compared(first=0, second=1, preference=Preference.tie, usable=False),
        "k2think_comparisons_total",
        {"outcome": "unusable"},
    ),
]


@pytest.mark.parametrize(("result", "sample", "labels"), VERDICTS)
def test_verdicts_are_counted_with_the_steps_end(
    counters: Counters, result: StepResult, sample: str, labels: dict[str, str]
) -> None:
    pair = ComparePair(messages=MESSAGES, first=0, second=1, first_answer="1", second_answer="2")
    body = ScreenInput(messages=MESSAGES) if isinstance(result, Screened) else pair

    counters.succeeded(envelope(body), result, seconds=0.2)

    assert value(counters, sample, **labels) == 1
    (runtime,) = [number for _labels, number in values(counters)["celery_task_runtime_sum"]]
    assert runtime == pytest.approx(0.2)


def test_a_call_is_counted_with_its_tokens_and_its_price(counters: Counters) -> None:
    record = CallTrace(
        backend="fast",
        usage=TokenUsage(prompt=1_000, completion=500, reasoning=400),
        time_to_first_token_s=0.2,
    )
    priced = BackendSettings(price_prompt=2.0, price_completion=10.0)

    counters.called("generator", record, priced, outcome="ok")
    counters.called("generator", record, priced, outcome="cancelled")

    for outcome in ("ok", "cancelled"):
        assert value(counters, "k2think_model_calls_total", agent="generator", backend="fast", outcome=outcome) == 1
    for kind, count in (("prompt", 2_000), ("completion", 1_000), ("reasoning", 800)):
        assert value(counters, "k2think_tokens_total", agent="generator", backend="fast", kind=kind) == count
    assert value(counters, "k2think_spend_dollars_total", backend="fast") == pytest.approx(2 * (0.002 + 0.005))
    assert value(counters, "k2think_time_to_first_token_seconds_count", backend="fast") == 2


def test_a_call_without_a_first_token_has_no_time_to_it(counters: Counters) -> None:
    counters.called("planner", CallTrace(backend="fast"), BackendSettings(), outcome="backend_unreachable")

    assert "k2think_time_to_first_token_seconds_count" not in values(counters)


def test_what_speculation_brought_is_counted_where_it_is_told(counters: Counters) -> None:
    for acceptance, length in ((0.25, 1.5), (0.75, 4.0), (None, None)):
        record = CallTrace(backend="fast", draft_acceptance=acceptance, accepted_length=length)
        counters.called("generator", record, BackendSettings(), outcome="ok")

    for name, total in (("k2think_draft_acceptance", 1.0), ("k2think_accepted_tokens_per_verification", 5.5)):
        assert value(counters, f"{name}_count", backend="fast") == 2
        assert value(counters, f"{name}_sum", backend="fast") == pytest.approx(total)
    assert value(counters, "k2think_draft_acceptance_bucket", backend="fast", le="0.3") == 1


def test_waits_for_limits_and_refusals_are_counted(counters: Counters) -> None:
    counters.called("planner", CallTrace(backend="fast", limit_wait_s=0.2), BackendSettings(), outcome="ok")
    counters.called("planner", CallTrace(backend="free"), BackendSettings(), outcome="ok")
    counters.throttled("fast")
    counters.streams_allowed("fast", 12)
    counters.streams_allowed("free", None)

    assert value(counters, "k2think_limit_wait_seconds_sum", backend="fast") == pytest.approx(0.2)
    assert value(counters, "k2think_rate_refusals_total", backend="fast") == 1
    for sample in ("k2think_limit_wait_seconds_count", "k2think_streams_allowed"):
        assert [labels for labels, _ in values(counters)[sample]] == [{"backend": "fast"}]


def test_jobs_are_counted_by_their_end(counters: Counters) -> None:
    counters.job_ended(SolveResult(job_id="j", status=JobStatus.refused))
    counters.job_ended(SolveResult(job_id="j", status=JobStatus.succeeded))

    assert value(counters, "k2think_refusals_total") == 1
    found = {labels["status"]: number for labels, number in values(counters)["k2think_jobs_finished_total"]}
    assert found == {"succeeded": 1, "refused": 1, "failed": 0, "cancelled": 0, "expired": 0}


def test_lost_attempts_and_dead_letters(counters: Counters) -> None:
    counters.lost(dead=False)
    counters.lost(dead=True)

    assert value(counters, "k2think_attempts_lost_total") == 2
    assert value(counters, "k2think_dead_letters_total") == 1


def test_requests_are_counted_by_route_and_status(counters: Counters) -> None:
    counters.request_answered("GET", "/v1/jobs/{job_id}", 404, seconds=0.01)

    where = {"method": "GET", "route": "/v1/jobs/{job_id}"}
    assert value(counters, "k2think_http_requests_total", **where, code="404") == 1
    assert value(counters, "k2think_http_request_seconds_count", **where) == 1


def test_what_a_process_will_count_begins_at_zero(counters: Counters) -> None:
    counters.expect(AgentKind, queues=role_queues("all", names=("fast",)), backends=[("generator", "fast")])
    before = values(counters)

    counters.received(candidate())
    counters.started(candidate(), waited_s=0.1)
    counters.retried(candidate())
    counters.revoked(candidate())
    counters.succeeded(envelope(ScreenInput(messages=MESSAGES)), Screened(verdict=ScreenVerdict.error), seconds=0.1)
    counters.called("generator", CallTrace(backend="fast", time_to_first_token_s=0.1), BackendSettings(), outcome="ok")
    counters.job_ended(SolveResult(job_id="j", status=JobStatus.expired))

    assert all(number == 0 for samples in before.values() for _labels, number in samples)
    after = values(counters)
    assert {name: [labels for labels, _ in samples] for name, samples in before.items()} == {
        name: [labels for labels, _ in samples] for name, samples in after.items()
    }, "no series appears that was not there from the start"


def test_threads_lose_nothing(counters: Counters) -> None:
    def count(_number: int) -> None:
        for _ in range(500):
            counters.received(candidate())

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(count, range(4)))

    assert value(counters, "celery_task_received_total", **PLACE) == 2_000
