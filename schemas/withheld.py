"""Of a job whose answer the safety filter has not let pass, those who look at the trace see no model text, either."""

from typing import Any

from .completion import ChatMessage
from .jobs import JobStatus, SolveRequest, SolveResult
from .outcomes import ScreenVerdict, StepStatus
from .trace import AttemptTrace, CallTrace, JobTrace, StepTrace

WITHHELD = "[withheld]"
_TEXT_FIELDS = ("content", "answer", "reasoning", "plan", "reason", "check_detail", "topics", "difficulty")
"""Fields of the steps' results that hold text of a model."""
_SCREENINGS = ("screen_input", "screen_output")
_PLAN_SCREENING = "screen_"
"""A plan's screening is named after the plan's step with this before it."""


def withhold(trace: JobTrace) -> JobTrace:
    """Return the trace as the users of the doors may see it: with the models' text only once the job has succeeded.

    Then the winner's answer, reasoning and plan were let pass; the other candidates and the judge's reasons are shown
    with them, and were screened by nobody. Of all other jobs (still running, cancelled on the way, failed before the
    screening, refused) a plan that was screened by itself is shown, and no other text of a model. A refused request is
    withheld as well.
    """
    return trace if trace.status is JobStatus.succeeded else _without_text(trace)


def withhold_result(result: SolveResult) -> SolveResult:
    """Return the result as the users of the doors may see it: nothing a model wrote, unless the job has succeeded."""
    return result if result.status is JobStatus.succeeded else _result(result)


def withhold_refused(trace: JobTrace) -> JobTrace:
    """Return the trace as an operator may see it: unscreened text is shown, what a screening did not let pass is not."""
    if trace.status is JobStatus.succeeded or not (trace.status is JobStatus.refused or _stopped(trace)):
        return trace
    return _without_text(trace)


def _without_text(trace: JobTrace) -> JobTrace:
    request_refused = any(
        step.kind == "screen_input" and step.status.final and not _passed(step) for step in trace.steps
    )
    shown = {
        step.name.removeprefix(_PLAN_SCREENING) for step in trace.steps if step.kind == "screen_plan" and _safe(step)
    }
    return trace.model_copy(
        update={
            "steps": tuple(_step(step, plan_shown=step.name in shown) for step in trace.steps),
            "request": _request(trace.request) if request_refused else trace.request,
            "result": None if trace.result is None else _result(trace.result),
        }
    )


def _stopped(trace: JobTrace) -> bool:
    return any(step.kind in _SCREENINGS and step.status.final and not _passed(step) for step in trace.steps)


def _passed(step: StepTrace) -> bool:
    if step.status is StepStatus.cancelled:
        return True
    return _safe(step)


def _safe(step: StepTrace) -> bool:
    return step.result is not None and step.result.get("verdict") == ScreenVerdict.safe.value


def _request(request: SolveRequest) -> SolveRequest:
    if request.problem is not None:
        return request.model_copy(update={"problem": WITHHELD})
    return request.model_copy(update={"messages": tuple(_message(message) for message in request.messages)})


def _result(result: SolveResult) -> SolveResult:
    """Without the judge's reasons and what checks said of a candidate; answer and reasoning are not in it anyway."""
    selection = result.selection
    if selection is None:
        return result
    comparisons = tuple(item.model_copy(update={"reason": WITHHELD}) for item in selection.comparisons)
    disqualified = {index: reason.split(":", 1)[0] for index, reason in selection.disqualified.items()}
    withheld = selection.model_copy(update={"comparisons": comparisons, "disqualified": disqualified})
    return result.model_copy(update={"selection": withheld})


def _message(message: ChatMessage) -> ChatMessage:
    return message.model_copy(update={"content": WITHHELD})


def _step(step: StepTrace, *, plan_shown: bool) -> StepTrace:
    result = step.result
    if result is not None:
        shown = ("plan",) if plan_shown else ()
        hidden: dict[str, Any] = {name: WITHHELD for name in _TEXT_FIELDS if result.get(name) and name not in shown}
        result = {**result, **hidden}
    return step.model_copy(update={"result": result, "attempts": tuple(_attempt(attempt) for attempt in step.attempts)})


def _attempt(attempt: AttemptTrace) -> AttemptTrace:
    return attempt.model_copy(update={"call": None if attempt.call is None else _call(attempt.call)})


def _call(call: CallTrace) -> CallTrace:
    return call.model_copy(
        update={
            "prompt": [_message(message) for message in call.prompt],
            "raw_text": WITHHELD if call.raw_text else "",
            "reasoning": WITHHELD if call.reasoning else "",
            "answer": WITHHELD if call.answer else None,
        }
    )
