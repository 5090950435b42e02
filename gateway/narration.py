"""What is told of a job before its answer is there: the screened plan, and its progress in short lines.

A pure function of the job's stored events and screened text. Every process tells the same, at any time, as often as it
is asked: a stream that broke off goes on anywhere.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from ..schemas.jobs import SolveRequest, SolveResult
from ..schemas.policy import Policy
from ..schemas.trace import EventKind, JobEvent
from ..store.door_jobs import PLAN_STEP, screened_plan
from .jobs.events import follow
from .services import Services


@dataclass(frozen=True, slots=True)
class Told:
    """An event, and what is told on its occasion."""

    event: JobEvent
    """What happened."""
    lines: tuple[str, ...] = ()
    """The plan or a line of progress, each by itself, without an end of line."""
    result: SolveResult | None = None
    """What the job came to; set with the last event."""


class Narrator:
    """Turns a job's events into lines, in order. Holds no text of a model but the plan that it is given."""

    def __init__(self, policy: Policy) -> None:
        # A single sample of a model is told like that model's own: no word that it did not say.
        self._silent = policy.as_is
        self._show_plan = policy.show_plan
        self._candidates = policy.n
        self._done = 0
        self._begun: set[str] = set()
        self._plan_told = False

    def wants_plan(self, event: JobEvent) -> bool:
        """Whether the plan may have become one to show by this event."""
        return self._show_plan and event.kind is EventKind.step_finished and event.step == f"screen_{PLAN_STEP}"

    def lines(self, event: JobEvent, *, plan: str | None = None, result: SolveResult | None = None) -> tuple[str, ...]:
        """Return what is told. `plan` is the screened plan, with the event that lets it be shown; `result` the end."""
        if event.kind is EventKind.finished and result is not None:
            plan = result.plan  # it has passed with the answer, if not before
        if plan is not None and not self._plan_told:
            self._plan_told = True
            return (f"Plan:\n{plan}",)
        line = None if self._silent or event.step is None else self._progress(event.kind, event.step)
        return () if line is None else (line,)

    def _progress(self, kind: EventKind, step: str) -> str | None:
        agent, _, rest = step.partition("-")
        match kind, agent:
            case EventKind.step_started, _:
                return self._started(agent, rest)
            case EventKind.step_finished, "generate":
                self._done += 1
                return f"{self._done} of {self._candidates} candidates done." if self._candidates > 1 else None
            case EventKind.step_failed, "generate":
                return f"Candidate {_number(rest)} failed."
            case EventKind.step_failed, "plan":
                return "No plan came about."
            case EventKind.step_retried, "generate":
                return f"Candidate {_number(rest)} is tried again."
            case EventKind.step_retried, _:
                return "A step is tried again."
            case _:
                return None

    def _started(self, agent: str, rest: str) -> str | None:
        known = agent if agent in ("plan", "generate") else f"{agent}-{rest}"
        if known in self._begun:
            return None
        self._begun.add(known)
        match agent:
            case "plan":
                return "Planning."
            case "generate":
                return f"Sampling {self._candidates} candidates." if self._candidates > 1 else "Sampling a candidate."
            case "compare":
                return f"Comparing candidates {' and '.join(_number(index) for index in rest.split('-'))}."
            case "screen_output":
                return "Screening the answer."
            case _:
                return None


async def narrate(services: Services, job_id: str, request: SolveRequest) -> AsyncGenerator[Told]:
    """Yield all events of a job from its first to its last, as they happen, with what is told. The job must exist."""
    narrator = Narrator(request.policy)
    async with aclosing(follow(services, job_id)) as events:
        async for event in events:
            plan, result = None, None
            if narrator.wants_plan(event):
                plan = await services.database.read(lambda connection: screened_plan(connection, job_id))
            if event.kind is EventKind.finished:
                _status, result = await services.submitter.result(job_id)
            yield Told(event, narrator.lines(event, plan=plan, result=result), result)


def _number(index: str) -> str:
    """People count from 1."""
    return str(int(index) + 1) if index.isdecimal() else index
