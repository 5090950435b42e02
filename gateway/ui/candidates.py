"""The candidates side by side, the groups of equal answers, and what the judge said of each pair."""

from dataclasses import dataclass

from ...schemas.completion import ChatMessage
from ...schemas.outcomes import Candidate, CheckStatus, Compared, Preference
from ...schemas.trace import CallTrace, JobTrace, StepTrace
from .naming import letter, numbers_in

_UNFINISHED = ("ready", "running")


@dataclass(frozen=True, slots=True)
class Speed:
    """How a model call went."""

    model: str
    """Model name."""
    first_s: float | None
    """Seconds to the first token; None = none came."""
    rate: float | None
    """Completion tokens per second of decoding; None = not known."""
    prompt: int
    """Tokens of the prompt."""
    completion: int
    """Tokens generated, reasoning included."""
    reasoning: int
    """Of these, the reasoning's."""
    engine: str
    """The engine's own times and what it had cached, in words; empty = not told."""


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
class Group:
    """Candidates whose answers are equal."""

    letter: str
    """A for the largest, and so on."""
    answer: str
    """The answer of its first member; empty = a free text."""
    members: tuple[int, ...]
    """Indices."""
    won: bool
    """Whether the winner is in it."""


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
    """decided, tie, unusable, or the status of the step that has no result."""
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
    return Speed(
        model=call.model,
        first_s=call.time_to_first_token_s,
        rate=call.tokens_per_s,
        prompt=usage.prompt,
        completion=usage.completion,
        reasoning=usage.reasoning,
        engine=", ".join(filter(None, (_left_words(call), _limit_words(call), _engine_words(call)))),
    )


def _left_words(call: CallTrace) -> str:
    """Return which other backends were asked in vain, in words; empty = none."""
    names = ", ".join(f"{left.backend} ({left.reason}, {left.duration_s:.1f} s)" for left in call.left_calls)
    return f"in vain from {names}" if names else ""


def _limit_words(call: CallTrace) -> str:
    """Return how long the call waited for limits, in words; empty = it did not."""
    return f"waited {call.limit_wait_s:.3f} s for the backend's limits" if call.limit_wait_s else ""


def _engine_words(call: CallTrace) -> str:
    """Return what the engine tells of its own time, in words; empty = nothing."""
    parts = (
        ("queue", call.engine_queue_s),
        ("prompt", call.engine_prompt_s),
        ("decoding", call.engine_completion_s),
    )
    words = [f"{name} {seconds:.3f} s" for name, seconds in parts if seconds is not None]
    if call.cached_prompt_tokens:
        words.append(f"{call.cached_prompt_tokens:,} prompt tokens from its cache")
    if call.draft_acceptance is not None:
        words.append(f"{call.draft_acceptance:.0%} of its drafts accepted")
    if call.accepted_length is not None:
        words.append(f"{call.accepted_length:.2f} tokens a verification")
    return ", ".join(words)


def candidates(trace: JobTrace) -> tuple[CandidateView, ...]:
    """Return all candidates that were begun, by index."""
    selection = None if trace.result is None else trace.result.selection
    clusters = () if selection is None else selection.clusters
    letters = {index: letter(place) for place, members in enumerate(clusters) for index in members}
    out = {} if selection is None else selection.disqualified
    winner = None if selection is None else selection.winner
    views = [
        _candidate(step, index, letters.get(index, ""), out.get(index, ""), won=index == winner)
        for step in trace.steps
        for index in numbers_in(step.name, "generate-")
    ]
    return tuple(sorted(views, key=lambda view: view.index))


def groups(trace: JobTrace, views: tuple[CandidateView, ...]) -> tuple[Group, ...]:
    """Return the groups of equal answers, the largest first; none before the selection."""
    selection = None if trace.result is None else trace.result.selection
    winner = None if selection is None else selection.winner
    answers = {view.index: view.answer or "" for view in views}
    return tuple(
        Group(letter(place), answers.get(members[0], ""), members, winner in members)
        for place, members in enumerate(() if selection is None else selection.clusters)
    )


def pairs(trace: JobTrace) -> tuple[Pair, ...]:
    """Return all pairs that were given to the judge, by index."""
    found: dict[tuple[int, int], list[Verdict]] = {}
    for step in trace.steps:
        if len(shown := numbers_in(step.name, "compare-")) == 2:
            verdict = _verdict(step, *shown)
            found.setdefault((min(shown), max(shown)), []).append(verdict)
    return tuple(_pair(left, right, verdicts) for (left, right), verdicts in sorted(found.items()))


def _candidate(step: StepTrace, index: int, group: str, out: str, *, won: bool) -> CandidateView:
    result = None if step.result is None else Candidate.model_validate(step.result)
    call = next((attempt.call for attempt in reversed(step.attempts) if attempt.call is not None), None)
    checked = result is not None and result.check is not CheckStatus.none
    return CandidateView(
        index=index,
        status=step.status.value,
        winner=won,
        group=group,
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


def _verdict(step: StepTrace, first: int, second: int) -> Verdict:
    if step.result is None:
        reason = "" if step.failure is None else step.failure.message
        return Verdict(first, second, None, step.status.value, reason)
    result = Compared.model_validate(step.result)
    winner = {Preference.first: first, Preference.second: second, Preference.tie: None}[result.preference]
    state = "unusable" if not result.usable else "tie" if winner is None else "decided"
    return Verdict(first, second, winner if result.usable else None, state, result.reason)


def _pair(left: int, right: int, verdicts: list[Verdict]) -> Pair:
    shown = tuple(sorted(verdicts, key=lambda verdict: verdict.first))
    winners = {verdict.winner for verdict in shown}
    flipped = winners == {left, right}
    if any(verdict.state in _UNFINISHED for verdict in shown):
        return Pair(left, right, shown, "being judged", False, None)
    if len(winners) == 1 and (winner := next(iter(winners))) is not None:
        orders = " in both orders" if len(shown) == 2 else ""
        return Pair(left, right, shown, f"candidate {winner} is better{orders}", False, winner)
    if all(verdict.state == "cancelled" for verdict in shown):
        return Pair(left, right, shown, "no longer needed", False, None)
    if flipped:
        return Pair(left, right, shown, "tie: the verdict flipped with the order", True, None)
    if winners != {None}:
        return Pair(left, right, shown, "tie: preferred in one order only", False, None)
    unusable = any(verdict.state not in ("tie", "decided") for verdict in shown)
    return Pair(left, right, shown, "tie: no usable verdict" if unusable else "tie", False, None)
