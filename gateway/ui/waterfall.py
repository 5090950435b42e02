"""When each step waited and ran, in per cent of the whole, so that the picture is as wide as the page."""

from dataclasses import dataclass

from ...schemas.messages import AGENT_OF_KIND
from ...schemas.trace import AttemptOutcome, AttemptTrace, JobTrace, StepTrace

SPAN_S_MIN = 0.001
BAR_MIN = 0.25
"""Width below which a bar would not be seen, in per cent."""
_TICKS_MAX = 6
_LOST = (AttemptOutcome.lost, AttemptOutcome.stale, AttemptOutcome.released)
_TROUBLE = (AttemptOutcome.failed, *_LOST)


@dataclass(frozen=True, slots=True)
class Bar:
    """One stretch of time in a row."""

    x: float
    """Begin, in per cent of the whole span."""
    width: float
    """In per cent."""
    kind: str
    """wait, first (until the first token), run, failed, lost, cancelled."""


@dataclass(frozen=True, slots=True)
class Row:
    """One step."""

    name: str
    """Name of the step."""
    agent: str
    """The agent that did it."""
    status: str
    """State of the step."""
    bars: tuple[Bar, ...]
    """In order of time."""
    waited_s: float
    """Seconds in the queue, all attempts together."""
    ran_s: float | None
    """Seconds at work, all attempts together; None = never began."""
    attempts: int
    """How often it was begun."""
    trouble: tuple[str, ...]
    """How attempts ended that came to nothing."""


@dataclass(frozen=True, slots=True)
class Waterfall:
    """All steps over one span of time."""

    rows: tuple[Row, ...]
    """In order of creation."""
    ticks: tuple[tuple[float, float], ...]
    """(place in per cent, seconds since acceptance)."""
    span_s: float
    """Seconds from acceptance to the end, or to now."""


def waterfall(trace: JobTrace, *, now: float) -> Waterfall:
    """Return the picture; what still runs reaches to `now`, a Unix time in seconds."""
    begin = trace.created_at
    ends = [attempt.finished_at or 0.0 for step in trace.steps for attempt in step.attempts]
    end = now if trace.finished_at is None else max(trace.finished_at, *ends, begin)
    scale = _Scale(begin, max(end - begin, SPAN_S_MIN))
    return Waterfall(
        rows=tuple(_row(step, trace, scale) for step in trace.steps), ticks=_ticks(scale.span), span_s=scale.span
    )


@dataclass(frozen=True, slots=True)
class _Scale:
    begin: float
    span: float

    def bar(self, start: float, end: float, kind: str) -> Bar:
        x = min(100.0, max(0.0, (start - self.begin) / self.span * 100))
        width = max(BAR_MIN, (end - start) / self.span * 100)
        return Bar(round(min(x, 100 - BAR_MIN), 3), round(min(width, 100 - min(x, 100 - BAR_MIN)), 3), kind)


def _row(step: StepTrace, trace: JobTrace, scale: _Scale) -> Row:
    end = scale.begin + scale.span
    bars: list[Bar] = []
    waited, ran = 0.0, 0.0
    for attempt in step.attempts:
        waited += max(0.0, attempt.claimed_at - attempt.queued_at)
        ended = end if attempt.finished_at is None else attempt.finished_at
        ran += max(0.0, ended - attempt.claimed_at)
        if attempt.claimed_at > attempt.queued_at:
            bars.append(scale.bar(attempt.queued_at, attempt.claimed_at, "wait"))
        bars += _work(attempt, ended, scale)
    if not step.status.final and not _running(step):
        since = step.attempts[-1].finished_at if step.attempts else None
        since = since or step.created_at
        waited += max(0.0, end - since)
        bars.append(scale.bar(since, end, "wait"))
    return Row(
        name=step.name,
        agent=str(AGENT_OF_KIND.get(step.kind, "safety")),
        status=step.status.value,
        bars=tuple(bars),
        waited_s=waited,
        ran_s=ran if step.attempts else None,
        attempts=len(step.attempts),
        trouble=tuple(attempt.outcome.value for attempt in step.attempts if attempt.outcome in _TROUBLE),
    )


def _work(attempt: AttemptTrace, ended: float, scale: _Scale) -> list[Bar]:
    if attempt.outcome in _LOST:
        return [scale.bar(attempt.claimed_at, ended, "lost")]
    if attempt.outcome is AttemptOutcome.failed:
        return [scale.bar(attempt.claimed_at, ended, "failed")]
    if attempt.outcome is AttemptOutcome.cancelled:
        return [scale.bar(attempt.claimed_at, ended, "cancelled")]
    first = attempt.call.time_to_first_token_s if attempt.call is not None else None
    if not first:
        return [scale.bar(attempt.claimed_at, ended, "run")]
    middle = min(attempt.claimed_at + first, ended)
    return [scale.bar(attempt.claimed_at, middle, "first"), scale.bar(middle, ended, "run")]


def _running(step: StepTrace) -> bool:
    return bool(step.attempts) and step.attempts[-1].outcome is AttemptOutcome.running


def _ticks(span: float) -> tuple[tuple[float, float], ...]:
    size = 10.0**-3
    factors = (2.0, 2.5, 2.0)
    turn = 0
    while span / size > _TICKS_MAX - 1:
        size *= factors[turn % 3]
        turn += 1
    count = int(span / size)
    return tuple((round(i * size / span * 100, 3), i * size) for i in range(count + 1))
