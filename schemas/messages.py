"""The messages between agents: one frozen envelope around a closed union of bodies tagged by `kind`.

A message is a doorbell that carries what the agent needs; the row in SQL stays the truth. Unknown kinds, fields and
versions are refused. `tests/schemas/golden/` pins the wire form.
"""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from .base import Frozen
from .checks import Checks
from .completion import ChatMessage
from .ids import uuid7
from .policy import Priority, Sampling

SCHEMA_VERSION = 1


class AgentKind(StrEnum):
    """The four agents; also the names of their queues."""

    planner = "planner"
    generator = "generator"
    verifier = "verifier"
    safety = "safety"


class ScreenInput(Frozen):
    """Ask the safety agent whether the request may be worked on."""

    kind: Literal["screen_input"] = "screen_input"
    """Tag of this body in the union."""
    messages: tuple[ChatMessage, ...]
    """The conversation to screen, oldest first."""


class MakePlan(Frozen):
    """Ask the planner for key concepts and a short plan that does not give the answer away."""

    kind: Literal["make_plan"] = "make_plan"
    """Tag of this body in the union."""
    messages: tuple[ChatMessage, ...]
    """The conversation; the last user turn is the problem."""
    candidate: int | None = None
    """Candidate that the plan is for; None = shared by all."""
    templates: str | None = None
    """Prompt template set of the policy; None = the backend's own."""
    seed: int | None = None
    """Seed of the sampler; None = not reproducible."""


class GenerateCandidate(Frozen):
    """Ask a generator for one candidate solution."""

    kind: Literal["generate_candidate"] = "generate_candidate"
    """Tag of this body in the union."""
    messages: tuple[ChatMessage, ...]
    """The conversation; the last user turn is the problem."""
    candidate: int = Field(ge=0)
    """Index of the candidate, 0..n-1."""
    plan: str | None = None
    """Plan to put before the problem; None = none was made."""
    sampling: Sampling = Sampling()
    """Decoding parameters; the seed is already the candidate's own."""
    checks: Checks = Checks()
    """The task's own checks, run on the finished candidate."""
    backend: str | None = None
    """Named backend that must serve this; None = any generator."""
    templates: str | None = None
    """Prompt template set of the policy; None = the backend's own."""


class ComparePair(Frozen):
    """Ask the verifier which of two answers is better. `first` is shown first."""

    kind: Literal["compare_pair"] = "compare_pair"
    """Tag of this body in the union."""
    messages: tuple[ChatMessage, ...]
    """The conversation; the last user turn is the problem."""
    first: int
    """Index of the candidate shown first."""
    second: int
    """Index of the candidate shown second."""
    first_answer: str
    """Answer text of the first, without reasoning."""
    second_answer: str
    """Answer text of the second, without reasoning."""
    templates: str | None = None
    """Prompt template set of the policy; None = the backend's own."""
    seed: int | None = None
    """Seed of the sampler; None = not reproducible."""


class ScreenPlan(Frozen):
    """Ask the safety agent whether the plan may be shown before the answer is there. The job does not wait for it."""

    kind: Literal["screen_plan"] = "screen_plan"
    """Tag of this body in the union."""
    messages: tuple[ChatMessage, ...]
    """The conversation that the plan belongs to."""
    plan: str
    """The plan."""


class ScreenOutput(Frozen):
    """Ask the safety agent whether the answer, the reasoning and the plan may be shown."""

    kind: Literal["screen_output"] = "screen_output"
    """Tag of this body in the union."""
    messages: tuple[ChatMessage, ...]
    """The conversation that the answer belongs to."""
    candidate: int
    """Index of the winner."""
    content: str
    """The answer text."""
    reasoning: str = ""
    """The winner's reasoning."""
    plan: str | None = None
    """The plan that the winner was given."""


Body = Annotated[
    ScreenInput | MakePlan | ScreenPlan | GenerateCandidate | ComparePair | ScreenOutput,
    Field(discriminator="kind"),
]
"""The closed union: adding a kind breaks the type checker where it is not handled."""


class Envelope(Frozen):
    """What travels through Redis."""

    version: Literal[1] = SCHEMA_VERSION
    """Version of the wire form; another one is refused."""
    message_id: str = Field(default_factory=uuid7)
    """UUIDv7 of this very message; a re-published step gets a new one."""
    job_id: str
    """UUIDv7 of the job."""
    step: str = Field(pattern=r"^[a-z0-9_.-]{1,80}$")
    """Name of the step, unique in its job (see agents/pipeline.py)."""
    attempt: int = Field(ge=1)
    """The fencing token that a worker gets when it claims the step by this message."""
    tenant: str = "default"
    """Owner of the job."""
    priority: Priority = Priority.interactive
    """Queue priority."""
    traceparent: str | None = None
    """W3C trace context of the submitter; None = not traced."""
    body: Body
    """What to do."""


AGENT_OF_KIND: dict[str, AgentKind] = {
    "screen_input": AgentKind.safety,
    "make_plan": AgentKind.planner,
    "screen_plan": AgentKind.safety,
    "generate_candidate": AgentKind.generator,
    "compare_pair": AgentKind.verifier,
    "screen_output": AgentKind.safety,
}
"""Which agent takes which kind of body."""


def queue_name(kind: str, *, backend: str | None = None) -> str:
    """Return the queue of a body kind; `backend` (generators only) picks the queue of a named backend."""
    agent = AGENT_OF_KIND[kind]
    return f"{agent}.{backend}" if backend and agent is AgentKind.generator else str(agent)


def queue_of(body: Body) -> str:
    """Return the queue that a body goes to."""
    return queue_name(body.kind, backend=body.backend if isinstance(body, GenerateCandidate) else None)
