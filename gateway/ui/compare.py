"""Two runs side by side: what was asked of them, and what they came to."""

from dataclasses import dataclass
from typing import Any

from ...schemas.trace import JobTrace
from .candidates import candidates
from .rendering import seconds
from .run_view import agent_rows, flat, stage_seconds
from .waterfall import span_of, waterfall

_NONE = "–"


@dataclass(frozen=True, slots=True)
class Line:
    """One fact of both runs."""

    name: str
    """What it is."""
    left: str
    """Of the first run."""
    right: str
    """Of the second."""

    @property
    def differs(self) -> bool:
        """Whether the runs differ in it."""
        return self.left != self.right


@dataclass(frozen=True, slots=True)
class Section:
    """Facts of one kind."""

    title: str
    """Heading."""
    lines: tuple[Line, ...]
    """In order."""
    measured: bool = False
    """Whether the facts are measurements, which never agree: a difference is nothing to point at."""


def compare_values(left: JobTrace, right: JobTrace, *, now: float) -> dict[str, Any]:
    """Return what the template of a comparison needs. Both traces must have been withheld already."""
    span_s = max(span_of(left, now=now), span_of(right, now=now))
    sides = [
        {
            "name": name,
            "trace": trace,
            "waterfall": waterfall(trace, now=now, span_s=span_s),
            "candidates": candidates(trace),
        }
        for name, trace in (("A", left), ("B", right))
    ]
    return {"now": now, "sides": sides, "sections": compare(left, right)}


def compare(left: JobTrace, right: JobTrace) -> tuple[Section, ...]:
    """Return all facts of both. Both traces must have been withheld already."""
    return (
        Section("Outcome", _lines(_outcome(left), _outcome(right))),
        Section("Time", _lines(_times(left), _times(right)), measured=True),
        Section("Tokens", _lines(_tokens(left), _tokens(right)), measured=True),
        Section("Policy", _lines(_policy(left), _policy(right))),
    )


def _lines(left: dict[str, str], right: dict[str, str]) -> tuple[Line, ...]:
    names = [*left, *(name for name in right if name not in left)]
    return tuple(Line(name, left.get(name, _NONE), right.get(name, _NONE)) for name in names)


def _outcome(trace: JobTrace) -> dict[str, str]:
    result = trace.result
    selection = None if result is None else result.selection
    return {
        "Problem": trace.request.conversation[-1].content,
        "Status": trace.status.value,
        "Answer": _NONE if result is None else (result.answer or result.content or _NONE),
        "Error": _NONE if result is None or result.error is None else result.error.message,
        "Chosen by": _NONE if selection is None else selection.method.value,
        "Votes for the answer": _NONE if selection is None else str(selection.votes),
        "Groups of equal answers": _NONE if selection is None else str(len(selection.clusters)),
        "Comparisons": _NONE if selection is None else str(len(selection.comparisons)),
        "Candidates": str(sum(step.kind == "generate_candidate" for step in trace.steps)),
        "Attempts": str(sum(len(step.attempts) for step in trace.steps)),
    }


def _policy(trace: JobTrace) -> dict[str, str]:
    return flat(trace.request.policy.model_dump(mode="json"))


def _times(trace: JobTrace) -> dict[str, str]:
    whole = None if trace.finished_at is None else trace.finished_at - trace.created_at
    stages = {name.capitalize(): seconds(value) for name, value in stage_seconds(trace).items()}
    return {"Total": seconds(whole)} | stages


def _tokens(trace: JobTrace) -> dict[str, str]:
    rows = agent_rows(trace)
    whole = sum(row.prompt + row.completion for row in rows)
    return {"Total": f"{whole:,}"} | {
        row.agent.capitalize(): f"{row.prompt + row.completion:,} in {row.calls} call{'s' if row.calls != 1 else ''}"
        for row in rows
    }
