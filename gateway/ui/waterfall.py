"""When each step waited and ran, in per cent of the whole, so that the picture is as wide as the page."""

from dataclasses import dataclass

from ...schemas.messages import AGENT_OF_KIND
from ...schemas.trace import AttemptOutcome, AttemptTrace, JobTrace, StepTrace
from .naming import step_title

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
    seconds: float
    """Length."""
    attempt: int
    """Which start of the step it belongs to, from 1."""


@dataclass(frozen=True, slots=True)
class Row:
    """One step."""

    name: str
    """Name of the step."""
    title: str
    """The same in words."""
    winner: bool
    """Whether the chosen candidate came out of it."""
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
    """Seconds that the picture is wide."""


def span_of(trace: JobTrace, *, now: float) -> float:
    """Return seconds from the acceptance to the end of all work, or to `now`, a Unix time in seconds."""
    ends = [attempt.finished_at or 0.0 for step in trace.steps for attempt in step.attempts]
    end = now if trace.finished_at is None else max(trace.finished_at, *ends)
    return max(end - trace.created_at, SPAN_S_MIN)


def waterfall(trace: JobTrace, *, now: float, span_s: float | None = None) -> Waterfall:
    """Return the picture; what still runs reaches to `now`. `span_s` makes two pictures equally wide; None = its own."""
    whole = span_of(trace, now=now)
    scale = _Scale(trace.created_at, span_s or whole, trace.created_at + whole)
    chosen = None if trace.result is None or trace.result.selection is None else trace.result.selection.winner
    winner = None if chosen is None else f"generate-{chosen}"
    rows = tuple(_row(step, scale, won=step.name == winner) for step in trace.steps)
    return Waterfall(rows, _ticks(scale.span), scale.span)


@dataclass(frozen=True, slots=True)
class _Scale:
    begin: float
    """Unix time at the left edge."""
    span: float
    """Seconds from the left to the right edge."""
    end: float
    """Unix time up to which there is something to show."""

    def bar(self, start: float, end: float, kind: str, attempt: int) -> Bar:
        x = min(100 - BAR_MIN, max(0.0, (start - self.begin) / self.span * 100))
        width = min(100 - x, max(BAR_MIN, (end - start) / self.span * 100))
        return Bar(round(x, 3), round(width, 3), kind, max(0.0, end - start), attempt)


def _row(step: StepTrace, scale: _Scale, *, won: bool) -> Row:
    end = scale.end
    bars: list[Bar] = []
    waited, ran = 0.0, 0.0
    for attempt in step.attempts:
        waited += max(0.0, attempt.claimed_at - attempt.queued_at)
        ended = end if attempt.finished_at is None else attempt.finished_at
        ran += max(0.0, ended - attempt.claimed_at)
        if attempt.claimed_at > attempt.queued_at:
            bars.append(scale.bar(attempt.queued_at, attempt.claimed_at, "wait", attempt.attempt))
        bars += _work(attempt, ended, scale)
    if not step.status.final and not _running(step):
        since = step.attempts[-1].finished_at if step.attempts else None
        since = since or step.created_at
        waited += max(0.0, end - since)
        bars.append(scale.bar(since, end, "wait", len(step.attempts) + 1))
    return Row(
        name=step.name,
        title=step_title(step.name),
        winner=won,
        agent=str(AGENT_OF_KIND.get(step.kind, "safety")),
        status=step.status.value,
        bars=tuple(bars),
        waited_s=waited,
        ran_s=ran if step.attempts else None,
        attempts=len(step.attempts),
        trouble=tuple(attempt.outcome.value for attempt in step.attempts if attempt.outcome in _TROUBLE),
    )


def _work(attempt: AttemptTrace, ended: float, scale: _Scale) -> list[Bar]:
    begin, number = attempt.claimed_at, attempt.attempt
    kind = "lost" if attempt.outcome in _LOST else attempt.outcome.value
    if kind in ("lost", "failed", "cancelled"):
        return [scale.bar(begin, ended, kind, number)]
    first = attempt.call.time_to_first_token_s if attempt.call is not None else None
    if not first:
        return [scale.bar(begin, ended, "run", number)]
    middle = min(begin + first, ended)
    return [scale.bar(begin, middle, "first", number), scale.bar(middle, ended, "run", number)]


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
