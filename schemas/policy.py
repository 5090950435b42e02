"""How one job is solved: samples, plan, selection, limits. Every field has a unit and a default."""

from enum import IntEnum, StrEnum
from typing import Any, Literal, cast

from pydantic import Field, field_validator, model_validator

from .base import Frozen

ANSWER_STOP = "</answer>"


class Plan(StrEnum):
    """Whether the planner is asked, and how often."""

    shared = "shared"
    """One plan for all samples (the paper's way)."""
    per_sample = "per_sample"
    """A plan of its own for each sample: more diverse, n planner calls."""
    off = "off"
    """No plan."""


class Selection(StrEnum):
    """How the winner is chosen among the candidates."""

    consensus_then_pairwise = "consensus_then_pairwise"
    """Cluster equal answers; a strict majority wins without a judge, otherwise clusters are compared in pairs."""
    pairwise = "pairwise"
    """Compare all candidates in pairs, always (the paper's best-of-N)."""
    vote = "vote"
    """The largest cluster of equal answers wins; no judge."""
    first = "first"
    """The first usable candidate wins."""


class Priority(IntEnum):
    """Order in which queues are served; 0 goes first (as on a Redis broker)."""

    interactive = 0
    normal = 1
    batch = 2


class Sampling(Frozen):
    """Decoding parameters of the candidates."""

    temperature: float = Field(default=1.0, ge=0.0, le=2.0)
    """Softmax temperature; 0 = greedy."""
    top_p: float = Field(default=0.95, gt=0.0, le=1.0)
    """Nucleus mass."""
    max_tokens: int | None = Field(default=None, ge=1, le=1_000_000)
    """Completion tokens at most; None = the backend's own limit."""
    stop: tuple[str, ...] = Field(default=(ANSWER_STOP,), max_length=8)
    """Strings that end a completion; they are not part of the text."""
    seed: int | None = Field(default=None, ge=0, lt=2**31)
    """Base seed; candidate i uses seed + i. None = not reproducible."""


_PAPER: dict[str, Any] = {
    "n": 3,
    "plan": "shared",
    "selection": "pairwise",
    "early_stop": False,
    "swap_order": False,
    "templates": "paper",
}
_PRESETS: dict[str, dict[str, Any]] = {"default": {}, "paper": _PAPER}


class Policy(Frozen):
    """The way a job goes. `Policy.model_validate("paper")` is the paper's own (arXiv 2509.07604, section 2)."""

    preset: Literal["default", "paper"] = "default"
    """Named set of defaults that the other fields start from."""
    n: int = Field(default=3, ge=1, le=64)
    """Candidates to sample."""
    plan: Plan = Plan.shared
    """Plan before thinking."""
    selection: Selection | None = None
    """Choice among candidates. None = consensus_then_pairwise where the verifier's model can judge, else vote."""
    early_stop: bool = True
    """Cancel what still runs once a strict majority of n agrees (or, with unit tests, once one candidate passes)."""
    swap_order: bool = True
    """Judge each pair in both orders; a verdict that flips with the order is a tie."""
    sampling: Sampling = Sampling()
    """Decoding parameters."""
    templates: str | None = Field(default=None, pattern=r"^[a-z0-9_-]{1,40}$")
    """Prompt template set; None = the backend's own. A backend bound to a set of its own keeps it."""
    soft_timeout_s: float | None = Field(default=None, gt=0, le=86_400)
    """Seconds after the job's start at which selection goes on with what has finished. None = wait for all."""
    deadline_s: float = Field(default=600.0, gt=0, le=604_800)
    """Seconds after acceptance at which the job expires."""
    token_budget: int | None = Field(default=None, ge=1)
    """Tokens (prompt + completion, all agents) after which nothing more is sampled or judged. None = no limit."""
    priority: Priority = Priority.interactive
    """Queue priority."""
    backend: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_-]{1,60}$")
    """Named generator backend that must serve this job; None = any worker of the pool."""
    as_is: bool = False
    """Take candidates as they came: one that is cut off or empty may win, too. Off = it loses."""
    show_plan: bool = False
    """Screen the shared plan while the candidates are sampled, so that it may be shown before the answer is there."""

    @model_validator(mode="before")
    @classmethod
    def _from_preset(cls, value: Any) -> Any:
        if isinstance(value, str):
            value = {"preset": value}
        if not isinstance(value, dict):
            return value
        given = cast(dict[str, Any], value)
        preset = given.get("preset", "default")
        if not isinstance(preset, str) or preset not in _PRESETS:
            raise ValueError(
                f"preset: unknown policy {str(preset)[:40]!r}; choose one of {', '.join(sorted(_PRESETS))}"
            )
        return {**_PRESETS[preset], **given}

    @field_validator("priority", mode="before")
    @classmethod
    def _priority_by_name(cls, value: Any) -> Any:
        if isinstance(value, str) and value in Priority.__members__:
            return Priority[value]
        if isinstance(value, str) and not value.isdecimal():
            raise ValueError(f"unknown priority {value[:40]!r}; choose one of {', '.join(Priority.__members__)}")
        return value
