"""One run as its page shows it."""

from dataclasses import dataclass
from statistics import median
from typing import Any

from ...schemas.doors import DoorNote
from ...schemas.jobs import JobStatus
from ...schemas.messages import AGENT_OF_KIND, AgentKind
from ...schemas.policy import Policy
from ...schemas.trace import AttemptOutcome, CallTrace, JobTrace
from .candidates import Speed, candidates, groups, pairs, speed_of
from .naming import step_title
from .waterfall import waterfall

EVENTS_SHOWN = 500


@dataclass(frozen=True, slots=True)
class Screening:
    """One screening."""

    what: str
    """What was screened."""
    verdict: str
    """safe, unsafe, error, or the state of a step without a result."""
    category: str
    """Category of a refusal in general words; empty when there is none."""
    layer: str
    """Which layer decided; empty = none yet."""
    ran_s: float | None
    """Seconds from the step's creation to its end; None = not ended."""


@dataclass(frozen=True, slots=True)
class PlanView:
    """A plan."""

    title: str
    """Whose plan it is."""
    text: str | None
    """The plan; None = none came."""
    topics: tuple[str, ...]
    """In the planner's words."""
    difficulty: str
    """In the planner's words; empty = not told."""
    failure: str
    """Why there is none; empty = there is, or not yet."""


@dataclass(frozen=True, slots=True)
class AgentRow:
    """What one agent cost."""

    agent: str
    """The agent."""
    calls: int
    """Model calls, cancelled and repeated ones included."""
    prompt: int
    """Prompt tokens."""
    completion: int
    """Tokens generated."""
    reasoning: int
    """Of these, the reasoning's."""
    rate: float | None
    """Median of tokens per second over the calls."""
    first_s: float | None
    """Median of seconds to the first token."""
    busy_s: float
    """Seconds of all calls together."""


@dataclass(frozen=True, slots=True)
class AttemptRow:
    """One start of a step."""

    step: str
    """Name of the step in words."""
    number: int
    """From 1."""
    outcome: str
    """AttemptOutcome."""
    bad: bool
    """Whether it came to nothing."""
    worker: str
    """Who did it."""
    waited_s: float
    """Seconds in the queue."""
    ran_s: float | None
    """Seconds at work; None = still running."""
    retries: int
    """Calls refused before their first token that were made again."""
    speed: Speed | None
    """The model call; None = none."""
    error: str
    """What went wrong; empty = nothing."""


def run_values(trace: JobTrace, door: DoorNote | None, *, now: float) -> dict[str, Any]:
    """Return what the template of a run needs. The trace must have been withheld already."""
    result = trace.result
    agents, shown = agent_rows(trace), candidates(trace)
    return {
        "now": now,
        "trace": trace,
        "door": door,
        "result": result,
        "live": not trace.status.final,
        "withheld": trace.status is not JobStatus.succeeded,
        "duration_s": (trace.finished_at or now) - trace.created_at,
        "queue_s": None if trace.started_at is None else trace.started_at - trace.created_at,
        "stages": [] if result is None else [(name, value) for name, value in stage_seconds(trace).items() if value],
        "waterfall": waterfall(trace, now=now),
        "plans": _plans(trace),
        "candidates": shown,
        "groups": groups(trace, shown),
        "pairs": pairs(trace),
        "screenings": _screenings(trace),
        "agents": agents,
        "attempts": _attempts(trace),
        "events": trace.events[-EVENTS_SHOWN:],
        "events_left_out": max(0, len(trace.events) - EVENTS_SHOWN),
        "tokens": sum(row.prompt + row.completion for row in agents),
        "calls": sum(row.calls for row in agents),
        "policy": policy_rows(trace.request.policy),
        "progress": (sum(step.status.final for step in trace.steps), len(trace.steps)),
    }


def stage_seconds(trace: JobTrace) -> dict[str, float]:
    """Return seconds by stage, without the total; empty before the end."""
    if trace.result is None:
        return {}
    return {name: value for name, value in trace.result.timings.model_dump().items() if name != "total"}


def agent_rows(trace: JobTrace) -> list[AgentRow]:
    """Return costs and speed of each agent that called a model."""
    calls: dict[AgentKind, list[CallTrace]] = {}
    for step in trace.steps:
        agent = AGENT_OF_KIND.get(step.kind, AgentKind.safety)
        calls.setdefault(agent, []).extend(attempt.call for attempt in step.attempts if attempt.call is not None)
    return [_agent(agent, calls[agent]) for agent in AgentKind if calls.get(agent)]


def policy_rows(policy: Policy) -> list[tuple[str, str, bool]]:
    """Return (name, value, whether it differs from the default) of all fields, those within sampling too."""
    default, given = flat(Policy().model_dump(mode="json")), flat(policy.model_dump(mode="json"))
    return [(name, value, value != default.get(name)) for name, value in given.items()]


def flat(values: dict[str, Any], *, before: str = "") -> dict[str, str]:
    """Return nested values by dotted name, in words."""
    found: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            found |= flat(value, before=f"{before}{name}.")
        elif isinstance(value, bool):
            found[before + name] = "yes" if value else "no"
        elif isinstance(value, list | tuple):
            found[before + name] = ", ".join(str(item) for item in value) or "none"
        else:
            found[before + name] = "default" if value is None else str(value)
    return found


def _agent(agent: AgentKind, calls: list[CallTrace]) -> AgentRow:
    speeds = [speed for call in calls if (speed := speed_of(call)) is not None]
    rates = [speed.rate for speed in speeds if speed.rate is not None]
    firsts = [speed.first_s for speed in speeds if speed.first_s is not None]
    return AgentRow(
        agent=str(agent),
        calls=len(calls),
        prompt=sum(speed.prompt for speed in speeds),
        completion=sum(speed.completion for speed in speeds),
        reasoning=sum(speed.reasoning for speed in speeds),
        rate=median(rates) if rates else None,
        first_s=median(firsts) if firsts else None,
        busy_s=sum(call.duration_s for call in calls),
    )


def _plans(trace: JobTrace) -> list[PlanView]:
    views: list[PlanView] = []
    for step in trace.steps:
        if step.kind != "make_plan":
            continue
        result = step.result or {}
        candidate = step.name.removeprefix("plan-")
        # Withheld, the topics are a text rather than a list.
        topics: Any = result.get("topics") or ()
        views.append(
            PlanView(
                title=f"Plan for candidate {candidate}" if candidate.isdecimal() else "Plan shared by all candidates",
                text=result.get("plan"),
                topics=(topics,) if isinstance(topics, str) else tuple(str(topic) for topic in topics),
                difficulty=str(result.get("difficulty") or ""),
                failure="" if step.failure is None else step.failure.message,
            )
        )
    return views


def _screenings(trace: JobTrace) -> list[Screening]:
    views: list[Screening] = []
    for step in trace.steps:
        if AGENT_OF_KIND.get(step.kind) is not AgentKind.safety:
            continue
        result = step.result or {}
        views.append(
            Screening(
                what=step_title(step.name).removeprefix("Screen ").capitalize(),
                verdict=str(result.get("verdict") or step.status.value),
                category=str(result.get("category") or ""),
                layer=str(result.get("layer") or ""),
                ran_s=None if step.finished_at is None else step.finished_at - step.created_at,
            )
        )
    return views


def _attempts(trace: JobTrace) -> list[AttemptRow]:
    return [
        AttemptRow(
            step=step_title(step.name),
            number=attempt.attempt,
            outcome=attempt.outcome.value,
            bad=attempt.outcome not in (AttemptOutcome.done, AttemptOutcome.running, AttemptOutcome.cancelled),
            worker=attempt.worker,
            waited_s=max(0.0, attempt.claimed_at - attempt.queued_at),
            ran_s=None if attempt.finished_at is None else attempt.finished_at - attempt.claimed_at,
            retries=0 if attempt.call is None else attempt.call.retries,
            speed=speed_of(attempt.call),
            error="" if attempt.error is None else f"{attempt.error.message} ({attempt.error.code})",
        )
        for step in trace.steps
        for attempt in step.attempts
    ]
