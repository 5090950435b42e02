"""The candidates side by side, the groups of equal answers, and what the judge said of each pair."""

import string
from collections.abc import Iterable
from dataclasses import dataclass

from ...schemas.completion import ChatMessage
from ...schemas.outcomes import Candidate, CheckStatus, Compared, Preference
from ...schemas.trace import CallTrace, JobTrace, StepTrace

_GENERATE, _COMPARE = "generate-", "compare-"


@dataclass(frozen=True, slots=True)
class Speed:
    """How a model call went."""

    model: str
    """Model name."""
    first_s: float | None
    """Seconds to the first token; None = none came."""
    rate: float | None
    """Completion tokens per second after the first; None = not known."""
    prompt: int
    """Tokens of the prompt."""
    completion: int
    """Tokens generated, reasoning included."""
    reasoning: int
    """Of these, the reasoning's."""


@dataclass(frozen=True, slots=True)
class CandidateView:
    """One candidate, finished or not."""

    index: int
    """0..n-1."""
    status: str
    """State of its step."""
    winner: bool
    """Whether it was chosen."""
    group: str
    """Letter of its group of equal answers; empty = in none."""
    votes: int
    """Candidates in that group."""
    out: str
    """Why it lost before any judging; empty = it did not."""
    answer: str | None
    """The extracted answer; None = none, or not finished."""
    content: str
    """The answer text."""
    reasoning: str
    """The reasoning before it."""
    finish_reason: str
    """Why the completion ended; empty = it did not."""
    check: str
    """What the task's own checks came to; empty = there are none."""
    check_detail: str
    """What a failed check said."""
    failure: str
    """Why there is no candidate; empty = there is, or not yet."""
    prompt: tuple[ChatMessage, ...]
    """The messages as sent."""
    speed: Speed | None
    """The last call; None = no model was called."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The judge on one pair in one order."""

    first: int
    """Shown first."""
    second: int
    """Shown second."""
    winner: int | None
    """None = tie, unusable, or not judged yet."""
    state: str
    """decided, tie, unusable, or the state of the step that has no result."""
    reason: str
    """The judge's words."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two candidates, judged in one order or both."""

    left: int
    """The lower index."""
    right: int
    """The higher index."""
    verdicts: tuple[Verdict, ...]
    """One per order."""
    outcome: str
    """In words."""
    flipped: bool
    """Whether the verdict turned with the order, which makes it a tie."""
    winner: int | None
    """None = a tie, or not decided yet."""


def speed_of(call: CallTrace | None) -> Speed | None:
    """Return the figures of a model call; None = there was none."""
    if call is None:
        return None
    usage = call.usage
    decoding = call.duration_s - (call.time_to_first_token_s or 0.0)
    rate = usage.completion / decoding if usage.completion and decoding > 0 else None
    return Speed(call.model, call.time_to_first_token_s, rate, usage.prompt, usage.completion, usage.reasoning)


def candidates(trace: JobTrace) -> tuple[CandidateView, ...]:
    """Return all candidates that were begun, by index."""
    selection = None if trace.result is None else trace.result.selection
    groups = selection.clusters if selection is not None else ()
    letters = {index: (_letter(place), len(group)) for place, group in enumerate(groups) for index in group}
    out = selection.disqualified if selection is not None else {}
    winner = selection.winner if selection is not None else None
    views = [
        _candidate(step, index, letters.get(index, ("", 0)), out.get(index, ""), won=index == winner)
        for step in trace.steps
        if step.kind == "generate_candidate" and (index := _number(step.name)) is not None
    ]
    return tuple(sorted(views, key=lambda view: view.index))


def pairs(trace: JobTrace) -> tuple[Pair, ...]:
    """Return all pairs that were given to the judge, by index."""
    found: dict[tuple[int, int], list[Verdict]] = {}
    for step in trace.steps:
        if step.kind == "compare_pair" and (verdict := _verdict(step)) is not None:
            key = (min(verdict.first, verdict.second), max(verdict.first, verdict.second))
            found.setdefault(key, []).append(verdict)
    return tuple(_pair(left, right, verdicts) for (left, right), verdicts in sorted(found.items()))


def _candidate(step: StepTrace, index: int, group: tuple[str, int], out: str, *, won: bool) -> CandidateView:
    result = None if step.result is None else Candidate.model_validate(step.result)
    call = next((attempt.call for attempt in reversed(step.attempts) if attempt.call is not None), None)
    checked = result is not None and result.check is not CheckStatus.none
    return CandidateView(
        index=index,
        status=step.status.value,
        winner=won,
        group=group[0],
        votes=group[1],
        out=out,
        answer=None if result is None else result.answer,
        content="" if result is None else result.content,
        reasoning="" if result is None else result.reasoning,
        finish_reason="" if result is None else result.finish_reason.value,
        check=result.check.value if result is not None and checked else "",
        check_detail=(result.check_detail or "") if result is not None and checked else "",
        failure="" if step.failure is None else step.failure.message,
        prompt=() if call is None else tuple(call.prompt),
        speed=speed_of(call),
    )


def _verdict(step: StepTrace) -> Verdict | None:
    if step.result is None:
        numbers = step.name.removeprefix(_COMPARE).split("-")
        if len(numbers) != 2 or not all(number.isdecimal() for number in numbers):
            return None
        reason = "" if step.failure is None else step.failure.message
        return Verdict(int(numbers[0]), int(numbers[1]), None, step.status.value, reason)
    result = Compared.model_validate(step.result)
    winner = {Preference.first: result.first, Preference.second: result.second, Preference.tie: None}[result.preference]
    state = "unusable" if not result.usable else "tie" if winner is None else "decided"
    return Verdict(result.first, result.second, winner if result.usable else None, state, result.reason)


def _pair(left: int, right: int, verdicts: list[Verdict]) -> Pair:
    verdicts = sorted(verdicts, key=lambda verdict: verdict.first)
    judged = [verdict for verdict in verdicts if verdict.state in ("decided", "tie", "unusable", "failed", "cancelled")]
    winners = {verdict.winner for verdict in judged}
    flipped = len(judged) == 2 and winners == {left, right}
    if len(judged) < len(verdicts):
        return Pair(left, right, tuple(verdicts), "being judged", False, None)
    if len(winners) == 1 and (winner := next(iter(winners))) is not None:
        return Pair(left, right, tuple(verdicts), f"candidate {winner} is better", False, winner)
    why = "the verdict flipped with the order" if flipped else "no preference in both orders" if judged[1:] else ""
    return Pair(left, right, tuple(verdicts), f"tie: {why}" if why else "tie", flipped, None)


def _letter(place: int) -> str:
    letters = string.ascii_uppercase
    return (
        letters[place]
        if place < len(letters)
        else f"{letters[place // len(letters) - 1]}{letters[place % len(letters)]}"
    )


def _number(name: str) -> int | None:
    number = name.removeprefix(_GENERATE)
    return int(number) if number.isdecimal() else None


def median(values: Iterable[float]) -> float | None:
    """Return the middle value; None of none."""
    ordered = sorted(values)
    if not ordered:
        return None
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
