"""What the agents return: one typed result per kind of message, a closed union tagged by `kind`."""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from .base import Frozen
from .completion import FinishReason, TokenUsage


class ScreenVerdict(StrEnum):
    """Outcome of a screening."""

    safe = "safe"
    unsafe = "unsafe"
    error = "error"
    """The screening itself failed; treated as unsafe unless set otherwise (fails closed)."""


class Screened(Frozen):
    """The safety agent's result."""

    kind: Literal["screened"] = "screened"
    """Tag of this result in the union."""
    verdict: ScreenVerdict
    """safe, unsafe, or error."""
    category: str | None = None
    """Category of the refusal in general words, never the rule that fired; None when safe."""
    layer: str = "rules"
    """Which layer decided: `rules`, or the name of the guard model's backend."""


class Planned(Frozen):
    """The planner's result."""

    kind: Literal["planned"] = "planned"
    """Tag of this result in the union."""
    plan: str | None
    """The plan; None = the planner had none to give (the job goes on without)."""
    topics: tuple[str, ...] = ()
    """Topics of the problem in the planner's words."""
    difficulty: str | None = None
    """Difficulty in the planner's words; None = not told."""


class CheckStatus(StrEnum):
    """Outcome of the task's own checks on one candidate."""

    none = "none"
    """The task brought no checks."""
    passed = "passed"
    failed = "failed"
    error = "error"
    """The checks could not be run; says nothing about the candidate."""


class Candidate(Frozen):
    """The generator's result."""

    kind: Literal["candidate"] = "candidate"
    """Tag of this result in the union."""
    index: int
    """Index of the candidate, 0..n-1."""
    content: str
    """Answer text: what follows the reasoning, `<answer>` tags removed."""
    answer: str | None
    """The extracted final answer; None = none could be parsed."""
    reasoning: str = ""
    """The reasoning before the answer."""
    finish_reason: FinishReason = FinishReason.stop
    """Why the completion ended; `length` = cut off."""
    check: CheckStatus = CheckStatus.none
    """Outcome of the task's own checks."""
    check_detail: str | None = None
    """What a failed or broken check said; None otherwise."""


class Preference(StrEnum):
    """Which answer a judge preferred, by position."""

    first = "first"
    second = "second"
    tie = "tie"


class Compared(Frozen):
    """The verifier's result for one pair in one order."""

    kind: Literal["compared"] = "compared"
    """Tag of this result in the union."""
    first: int
    """Index of the candidate shown first."""
    second: int
    """Index of the candidate shown second."""
    preference: Preference
    """The verdict; an unusable one is a tie."""
    usable: bool = True
    """False when the judge's words could not be read as a verdict."""
    reason: str = ""
    """The judge's reason."""


StepResult = Annotated[Screened | Planned | Candidate | Compared, Field(discriminator="kind")]
"""The closed union of the agents' results."""


class StepFailure(Frozen):
    """Why a step ended without a result."""

    code: str
    """Machine-readable name from the error tree, or `dead_letter`."""
    message: str
    """What happened, why, and what to do."""


class StepStatus(StrEnum):
    """State of a step."""

    ready = "ready"
    """Waits to be claimed (at its due time)."""
    running = "running"
    """Claimed under a lease."""
    done = "done"
    failed = "failed"
    """Ended without a result: a final error, or the dead letters."""
    cancelled = "cancelled"
    """No longer wanted."""

    @property
    def final(self) -> bool:
        """Whether nothing can follow."""
        return self in (StepStatus.done, StepStatus.failed, StepStatus.cancelled)


class StepView(Frozen):
    """A step as the state machine sees it."""

    name: str
    """Name, unique in the job."""
    status: StepStatus
    """State."""
    result: StepResult | None = None
    """The result of a done step; None otherwise."""
    failure: StepFailure | None = None
    """Why a failed step failed; None otherwise."""
    usage: TokenUsage = TokenUsage()
    """Tokens of all attempts of this step."""
