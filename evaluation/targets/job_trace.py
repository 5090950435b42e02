"""A job of our own system, as its trace tells it: all candidates, the verdicts, and everything that was paid for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ...schemas.completion import TokenUsage
from ...schemas.errors import ConfigurationError
from ...schemas.evaluation import Comparison, Spent, Status, TargetSpec
from ...schemas.jobs import CUT_OFF, JobStatus
from ...schemas.outcomes import Preference, StepStatus
from ...schemas.trace import AttemptOutcome, AttemptTrace, CallTrace, JobTrace, StepTrace
from ...schemas.withheld import WITHHELD
from ..samples import CANCELLED
from .base import Answered, Sample

ROLES = {
    "make_plan": "planner",
    "generate_candidate": "generator",
    "compare_pair": "verifier",
    "screen_input": "safety",
    "screen_plan": "safety",
    "screen_output": "safety",
}
NO_ANSWER = "no_answer"


def answered(trace: JobTrace) -> Answered:
    """Return what a job that has ended came to."""
    generated = [step for step in trace.steps if step.kind == "generate_candidate"]
    generated.sort(key=lambda step: int(step.name.rpartition("-")[2]))
    samples = tuple(_sample(step) for step in generated)
    result = trace.result
    selection = result.selection if result is not None else None
    winner = selection.winner if selection is not None else None
    chosen = winner if trace.status is JobStatus.succeeded and winner is not None and winner < len(samples) else None
    code = result.error.code if result is not None and result.error is not None else trace.status.value
    status, reason = (None, "") if chosen is not None else _ending(trace.status, code)
    return Answered(
        samples=samples,
        chosen=chosen,
        status=status,
        reason=reason,
        comparisons=tuple(_comparisons(trace)),
        planned=any(step.kind == "make_plan" and _has_plan(step) for step in trace.steps),
        stopped_early=trace.status is JobStatus.succeeded
        and (len(samples) < trace.request.policy.n or any(sample.finish_reason == CANCELLED for sample in samples)),
        spent=spent(trace),
    )


def still_running(trace: JobTrace) -> bool:
    """Whether an attempt goes on, as a cancelled one does for a moment: what it cost is not written down yet."""
    return any(attempt.outcome is AttemptOutcome.running for attempt in _attempts(trace))


def spent(trace: JobTrace) -> dict[str, Spent]:
    """Return what each role cost: losers, cancelled and failed attempts included."""
    by_role: dict[str, Spent] = {}
    for step in trace.steps:
        role = ROLES.get(step.kind, step.kind)
        for attempt in step.attempts:
            call = attempt.call
            if call is None or not call.called:
                continue
            known = by_role.get(role, Spent())
            by_role[role] = Spent(
                calls=known.calls + 1 + len(call.left_calls),
                usage=known.usage + call.usage + call.wasted,
                seconds=known.seconds + call.duration_s + sum(left.duration_s for left in call.left_calls),
            )
    return by_role


def check_models(trace: JobTrace, spec: TargetSpec) -> None:
    """Refuse a trace in which a model planned or judged that is neither the model itself nor declared. Raises ConfigurationError."""
    declared = {spec.model, *spec.outside_models}
    for step in trace.steps:
        role = ROLES.get(step.kind)
        if role not in ("planner", "verifier"):
            continue
        for attempt in step.attempts:
            called = attempt.call.model if attempt.call is not None and attempt.call.called else None
            if called is not None and called not in declared:
                raise ConfigurationError(
                    f"target {spec.name!r}: the {role} was {called!r}, which is neither the model itself ({spec.model!r}) nor "
                    "named in outside_models: name it there, and call the row outside_scaffold"
                )


def _sample(step: StepTrace) -> Sample:
    attempt = _last(step)
    call = attempt.call if attempt is not None and attempt.call is not None else CallTrace()
    seed: Any = call.parameters.get("seed")
    text = "" if call.raw_text == WITHHELD else call.raw_text
    finished = step.status is StepStatus.done
    told = (step.result or {}).get("finish_reason")
    failed = step.status is StepStatus.failed
    return Sample(
        text=text,
        visible=_visible(text, call.reasoning),
        finish_reason=str(told) if finished and told is not None else (None if failed else CANCELLED),
        seed=seed if isinstance(seed, int) else None,
        usage=sum((one.call.usage + one.call.wasted for one in step.attempts if one.call is not None), TokenUsage()),
        status=_status(step, withheld=call.raw_text == WITHHELD),
        reason=(step.failure.code if step.failure is not None else "failed")
        if failed
        else ""
        if finished
        else CANCELLED,
    )


def _status(step: StepTrace, *, withheld: bool) -> Status | None:
    """What became of a sample, where its text cannot tell."""
    if step.status is not StepStatus.done:
        return Status.errored
    if not withheld:
        return None
    # A gateway shows no text of a job that did not succeed; that none had an answer is why it did not.
    return Status.truncated if (step.result or {}).get("finish_reason") == "length" else Status.unparsed


def _visible(text: str, reasoning: str) -> str:
    """The raw text without inline reasoning; where the server kept the reasoning apart, that is all of it."""
    if reasoning and reasoning != WITHHELD and reasoning in text:
        return text.partition(reasoning)[2].removeprefix("</think>")
    return text


def _last(step: StepTrace) -> AttemptTrace | None:
    done = [attempt for attempt in step.attempts if attempt.outcome is AttemptOutcome.done]
    return (done or list(step.attempts) or [None])[-1]


def _has_plan(step: StepTrace) -> bool:
    return step.status is StepStatus.done and bool((step.result or {}).get("plan"))


def _comparisons(trace: JobTrace) -> Iterator[Comparison]:
    for step in trace.steps:
        if step.kind != "compare_pair" or step.status is not StepStatus.done or step.result is None:
            continue
        first, second = int(step.result["first"]), int(step.result["second"])
        choice = {Preference.first: first, Preference.second: second}.get(Preference(step.result["preference"]))
        yield Comparison(first=first, second=second, choice=choice, usable=bool(step.result.get("usable", True)))


def _ending(status: JobStatus, code: str) -> tuple[Status, str]:
    if status is JobStatus.refused:
        return Status.refused, code
    if status is JobStatus.failed and code == CUT_OFF:
        return Status.truncated, code
    if status is JobStatus.failed and code == NO_ANSWER:
        return Status.unparsed, code
    return Status.errored, code


def _attempts(trace: JobTrace) -> Iterator[AttemptTrace]:
    return (attempt for step in trace.steps for attempt in step.attempts)
