"""What the safety filter withheld is withheld from those who look at the trace, too."""

from typing import Any

from ..schemas.completion import ChatMessage
from ..schemas.jobs import JobStatus, SolveRequest, SolveResult
from ..schemas.outcomes import ScreenVerdict, StepStatus
from ..schemas.trace import AttemptTrace, CallTrace, JobTrace, StepTrace

WITHHELD = "[withheld]"
_TEXT_FIELDS = ("content", "answer", "reasoning", "plan", "reason", "check_detail", "topics", "difficulty")
"""Fields of the steps' results that hold text of a model."""
_SCREENINGS = ("screen_input", "screen_output")


def withhold(trace: JobTrace) -> JobTrace:
    """Return the trace without the models' text where a screening did not let it pass, else the trace itself.

    A refused request is withheld as well. A job that succeeded has passed.
    """
    if trace.status is JobStatus.succeeded or not (trace.status is JobStatus.refused or _stopped(trace)):
        return trace
    request_refused = any(step.kind == "screen_input" and not _passed(step) for step in trace.steps)
    return trace.model_copy(
        update={
            "steps": tuple(_step(step) for step in trace.steps),
            "request": _request(trace.request) if request_refused else trace.request,
            "result": None if trace.result is None else _result(trace.result),
        }
    )


def _stopped(trace: JobTrace) -> bool:
    return any(step.kind in _SCREENINGS and step.status.final and not _passed(step) for step in trace.steps)


def _passed(step: StepTrace) -> bool:
    if step.status is StepStatus.cancelled:
        return True
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


def _step(step: StepTrace) -> StepTrace:
    result = step.result
    if result is not None:
        hidden: dict[str, Any] = {name: WITHHELD for name in _TEXT_FIELDS if result.get(name)}
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
