"""What a job's trace comes to as an evaluation's record: every sample, every verdict, every token."""

from __future__ import annotations

from typing import Any

import pytest
from k2think.evaluation.targets.job_trace import answered, check_models, still_running
from k2think.schemas.completion import TokenUsage
from k2think.schemas.errors import ConfigurationError
from k2think.schemas.evaluation import Row, Status, TargetSpec
from k2think.schemas.jobs import JobError, JobStatus, SelectionReport, SolveRequest, SolveResult
from k2think.schemas.outcomes import StepFailure, StepStatus
from k2think.schemas.policy import Policy, Selection
from k2think.schemas.trace import AttemptOutcome, AttemptTrace, CallTrace, JobTrace, LeftCall, StepTrace
from k2think.schemas.withheld import withhold

DONE, CANCELLED, FAILED = StepStatus.done, StepStatus.cancelled, StepStatus.failed


def call(*, tokens: int = 10, model: str = "m", text: str = "", **more: Any) -> CallTrace:
    usage = TokenUsage(prompt=5, completion=tokens)
    return CallTrace(backend="b", model=model, raw_text=text, usage=usage, duration_s=1.0, **more)


def step(name: str, kind: str, *calls: CallTrace | None, status: StepStatus = DONE, **result: Any) -> StepTrace:
    last = {DONE: AttemptOutcome.done, CANCELLED: AttemptOutcome.cancelled, FAILED: AttemptOutcome.failed}[status]
    outcomes = [AttemptOutcome.lost] * (len(calls) - 1) + [last]
    attempts = tuple(
        AttemptTrace(step=name, attempt=number, worker="w", outcome=outcome, queued_at=0, claimed_at=0, finished_at=1, error=None, call=one)
        for number, (one, outcome) in enumerate(zip(calls, outcomes, strict=True), 1)
    )  # fmt: skip
    return StepTrace(
        name=name,
        kind=kind,
        status=status,
        created_at=0,
        finished_at=1,
        result=result if status is DONE else None,
        failure=StepFailure(code="backend_stalled", message="x") if status is FAILED else None,
        attempts=attempts,
    )


def trace(
    *steps: StepTrace,
    status: JobStatus = JobStatus.succeeded,
    winner: int | None = 0,
    code: str | None = None,
    n: int = 3,
) -> JobTrace:
    selection = SelectionReport(method=Selection.vote, winner=winner)
    error = None if code is None else JobError(code=code, message="why")
    result = SolveResult(job_id="j", status=status, selection=selection, error=error)
    request = SolveRequest(problem="p", policy=Policy(n=n))
    return JobTrace(
        job_id="j", tenant="t", status=status, created_at=0, started_at=0, finished_at=9, request=request, result=result, steps=steps, events=()
    )  # fmt: skip


SPEC = TargetSpec(name="t", row=Row.self_scaffold, model="m", policy={})


def candidate(index: int, *calls: CallTrace | None, status: StepStatus = DONE, finish: str = "stop") -> StepTrace:
    return step(f"generate-{index}", "generate_candidate", *calls, status=status, index=index, finish_reason=finish)


def test_samples_keep_their_numbers_the_cancelled_one_too() -> None:
    inline = call(text="<think>so</think><answer>7", reasoning="so")
    found = answered(
        trace(
            step("screen_input", "screen_input", None),
            candidate(0, call(text="<answer>6", parameters={"seed": 11})),
            candidate(1, call(text="half of", tokens=3), status=CANCELLED),
            candidate(2, inline),
            winner=2,
        )
    )
    assert [sample.finish_reason for sample in found.samples] == ["stop", "cancelled", "stop"]
    assert [sample.status for sample in found.samples] == [None, Status.errored, None]
    assert (found.samples[2].text, found.samples[2].visible) == ("<think>so</think><answer>7", "<answer>7")
    assert found.samples[0].seed == 11
    assert (found.chosen, found.stopped_early, found.planned) == (2, True, False)


def test_everything_that_was_paid_is_counted_by_role() -> None:
    left = LeftCall(
        backend="b", model="m", reason="hedge_lost", usage=TokenUsage(prompt=5, completion=4), duration_s=0.5
    )
    found = answered(
        trace(
            step("plan", "make_plan", call(tokens=7), plan="first this"),
            candidate(0, call(tokens=2), call(tokens=30, left_calls=[left])),
            candidate(1, call(tokens=9), status=CANCELLED),
            candidate(2, call(tokens=1), status=FAILED),
            step("compare-0-1", "compare_pair", call(tokens=3), first=0, second=1, preference="first"),
            step("screen_output", "screen_output", call(tokens=1)),
        )
    )
    assert {role: (one.calls, one.usage.completion) for role, one in found.spent.items()} == {
        "planner": (1, 7),
        "generator": (5, 2 + 30 + 4 + 9 + 1),
        "verifier": (1, 3),
        "safety": (1, 1),
    }
    assert found.planned
    assert found.samples[2].reason == "backend_stalled"


def test_verdicts_are_kept_with_their_order() -> None:
    found = answered(
        trace(
            candidate(0, call()),
            candidate(1, call()),
            step("compare-0-1", "compare_pair", call(), first=0, second=1, preference="second", usable=True),
            step("compare-1-0", "compare_pair", call(), first=1, second=0, preference="tie", usable=False),
        )
    )
    assert [(one.first, one.second, one.choice, one.usable) for one in found.comparisons] == [
        (0, 1, 1, True),
        (1, 0, None, False),
    ]


@pytest.mark.parametrize(
    ("status", "code", "became"),
    [
        pytest.param(JobStatus.refused, "refused", Status.refused, id="refused"),
        pytest.param(JobStatus.failed, "cut_off", Status.truncated, id="cut"),
        pytest.param(JobStatus.failed, "no_answer", Status.unparsed, id="silent"),
        pytest.param(JobStatus.failed, "backend_stalled", Status.errored, id="failed"),
        pytest.param(JobStatus.expired, "expired", Status.errored, id="expired"),
    ],
)
def test_a_job_without_an_answer_says_what_became_of_it(status: JobStatus, code: str, became: Status) -> None:
    cut = candidate(0, call(text="never ending"), finish="length")
    for told in (
        trace(cut, status=status, winner=None, code=code),
        withhold(trace(cut, status=status, winner=None, code=code)),
    ):
        found = answered(told)
        assert (found.chosen, found.status, found.reason) == (None, became, code)
        assert found.spent["generator"].usage.completion == 10
        assert "[withheld]" not in found.samples[0].text
    assert found.samples[0].status is Status.truncated


def test_a_judge_that_nobody_named_is_found_out() -> None:
    told = trace(
        candidate(0, call()),
        step("compare-0-1", "compare_pair", call(model="outsider"), first=0, second=1, preference="first"),
    )
    with pytest.raises(ConfigurationError, match="the verifier was 'outsider'"):
        check_models(told, SPEC)
    check_models(told, SPEC.model_copy(update={"outside_models": ("outsider",)}))


def test_an_attempt_that_goes_on_is_seen() -> None:
    going = candidate(0, call())
    running = going.attempts[0].model_copy(update={"outcome": AttemptOutcome.running})
    assert still_running(trace(going.model_copy(update={"attempts": (running,)})))
    assert not still_running(trace(going))
