"""Text of a model is seen only after a screening has let it pass."""

from typing import Any

import pytest
from k2think.schemas.completion import ChatMessage
from k2think.schemas.jobs import Comparison, JobStatus, SelectionReport, SolveRequest, SolveResult
from k2think.schemas.outcomes import StepStatus
from k2think.schemas.policy import Selection
from k2think.schemas.trace import AttemptOutcome, AttemptTrace, CallTrace, JobTrace, StepTrace
from k2think.schemas.withheld import WITHHELD, withhold, withhold_refused

SECRET = "unscreened words"


def step(name: str, kind: str, result: dict[str, Any] | None, status: StepStatus = StepStatus.done) -> StepTrace:
    call = CallTrace(
        backend="b", prompt=[ChatMessage(role="user", content=SECRET)], raw_text=SECRET, reasoning=SECRET, answer=SECRET
    )
    attempt = AttemptTrace(
        step=name,
        attempt=1,
        worker="w",
        outcome=AttemptOutcome.done,
        queued_at=0,
        claimed_at=0,
        finished_at=1,
        error=None,
        call=call,
    )
    return StepTrace(
        name=name,
        kind=kind,
        status=status,
        created_at=0,
        finished_at=1,
        result=result,
        failure=None,
        attempts=(attempt,),
    )


def trace(status: JobStatus, *more: StepTrace) -> JobTrace:
    comparison = Comparison(first=0, second=1, winner=0, usable=True, reason=SECRET)
    selection = SelectionReport(
        method=Selection.pairwise, comparisons=(comparison,), disqualified={1: f"a check failed: {SECRET}"}
    )
    return JobTrace(
        job_id="j",
        tenant="t",
        status=status,
        created_at=0,
        started_at=0,
        finished_at=None,
        request=SolveRequest(problem="the question"),
        result=SolveResult(job_id="j", status=status, selection=selection) if status.final else None,
        steps=(
            step("screen_input", "screen_input", {"kind": "screened", "verdict": "safe"}),
            step("plan", "make_plan", {"kind": "planned", "plan": f"plan of {SECRET}", "topics": [SECRET]}),
            step("generate-0", "generate_candidate", {"kind": "candidate", "content": SECRET, "reasoning": SECRET}),
            step("compare-0-1", "compare_pair", {"kind": "compared", "reason": SECRET}),
            *more,
        ),
        events=(),
    )


@pytest.mark.parametrize("status", [status for status in JobStatus if status is not JobStatus.succeeded])
def test_only_a_job_that_succeeded_shows_text_of_models(status: JobStatus) -> None:
    # Given a job that was cancelled, failed or ended otherwise before its answer was screened, or has not ended
    seen = withhold(trace(status))
    # Then nothing of the models is in it, but the question is
    assert SECRET not in seen.model_dump_json()
    assert WITHHELD in seen.model_dump_json()
    assert seen.request.problem == "the question"


def test_a_job_that_succeeded_shows_all() -> None:
    whole = trace(JobStatus.succeeded)
    assert withhold(whole) is whole


def test_a_plan_that_was_screened_is_shown_while_the_job_runs() -> None:
    screening = step("screen_plan", "screen_plan", {"kind": "screened", "verdict": "safe"})
    seen = withhold(trace(JobStatus.running, screening))
    (plan,) = [step for step in seen.steps if step.name == "plan"]
    assert plan.result == {"kind": "planned", "plan": f"plan of {SECRET}", "topics": WITHHELD}
    assert seen.model_dump_json().count(SECRET) == 1


@pytest.mark.parametrize("verdict", ["unsafe", "error"])
def test_a_plan_that_did_not_pass_is_not(verdict: str) -> None:
    screening = step("screen_plan", "screen_plan", {"kind": "screened", "verdict": verdict})
    assert SECRET not in withhold(trace(JobStatus.running, screening)).model_dump_json()


def test_a_refused_request_is_withheld_and_one_that_waits_is_not() -> None:
    refused = trace(JobStatus.refused)
    unsafe = step("screen_input", "screen_input", {"kind": "screened", "verdict": "unsafe"})
    assert withhold(refused.model_copy(update={"steps": (unsafe,)})).request.problem == WITHHELD
    waiting = step("screen_input", "screen_input", None, StepStatus.ready)
    queued = trace(JobStatus.queued).model_copy(update={"steps": (waiting,)})
    assert withhold(queued).request.problem == "the question"


def test_an_operator_sees_what_was_never_screened_but_not_what_was_refused() -> None:
    assert SECRET in withhold_refused(trace(JobStatus.cancelled)).model_dump_json()
    assert SECRET not in withhold_refused(trace(JobStatus.refused)).model_dump_json()
