"""What every target does: it is asked an item and says what came back, with all that was paid for it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Protocol

from ...schemas.completion import TokenUsage
from ...schemas.errors import (
    AccessDenied,
    BackendError,
    ConfigurationError,
    ModelNotFound,
    PaymentRequired,
    Unauthorized,
)
from ...schemas.evaluation import Comparison, Item, Spent, Status, TargetSpec
from .definition import Definition, Price

HOPELESS = (AccessDenied, Unauthorized, PaymentRequired, ModelNotFound, ConfigurationError)
"""Errors that every other item would meet, too: the run stops at the first."""
SEED_SPAN = 2**31
MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class Sample:
    """One text of the model."""

    text: str
    """All that it wrote, reasoning included where it came in the same text; graded as it is."""
    visible: str
    """What follows the reasoning."""
    finish_reason: str | None = None
    """As the server told; None = it did not."""
    seed: int | None = None
    """Of its sampler."""
    usage: TokenUsage = field(default_factory=TokenUsage)
    """Its tokens."""
    status: Status | None = None
    """What became of it, where that needs no grading (`errored`, `refused`); None = it is to be graded."""
    reason: str = ""
    """Code of the error."""


@dataclass(frozen=True, slots=True)
class Answered:
    """What a target made of an item."""

    samples: tuple[Sample, ...]
    """In order; empty where none was made."""
    chosen: int | None
    """Index of the sample that is the answer; None = none is."""
    status: Status | None = None
    """What became of the whole, where no sample was chosen."""
    reason: str = ""
    """Code of that."""
    comparisons: tuple[Comparison, ...] = ()
    """The verifier's."""
    planned: bool = False
    """Whether a plan was given to the generator."""
    stopped_early: bool = False
    """Whether samples were cancelled or never begun since the vote was decided."""
    spent: dict[str, Spent] = field(default_factory=dict[str, Spent])
    """By role."""


class Target(Protocol):
    """A target that is open."""

    spec: TargetSpec
    """As the manifest shows it."""
    interruptible: bool
    """Whether what is broken off is found again later, so that nothing is lost when the run is stopped."""

    async def ask(self, item: Item, repeat: int, *, key: str) -> Answered:
        """Ask once. `key` stands for this very question: asked again with it, a job is found again.

        Raises only what every other item would meet, too (HOPELESS); other errors are in what is returned.
        """
        ...


class Opens(Protocol):
    """A target as it is defined: checked, and not opened yet."""

    name: str
    """Its name in the targets file."""
    definition: Definition
    """Its table."""

    async def describe(self) -> TargetSpec:
        """Return what the manifest says of it; asks a server for its version. Raises ConfigurationError, BackendError, GatewayError."""
        ...

    def open(self, spec: TargetSpec) -> AbstractAsyncContextManager[Target]:
        """Make it ready to be asked."""
        ...

    def tidy_up(self) -> None:
        """Remove what was kept to go on with: every question has its outcome."""
        ...


def item_seed(base: int | None, item: Item, repeat: int) -> int | None:
    """Return the seed of an item's sampler: the same for all targets, so that rows are paired, and far from other items' seeds."""
    if base is None:
        return None
    digest = hashlib.sha256(f"{base}/{item.task.id}/{repeat}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % SEED_SPAN


def priced(spent: Mapping[str, Spent], price: Price | None, role_prices: Mapping[str, Price]) -> dict[str, Spent]:
    """Return what was spent with its cost, where a price is known."""

    def cost(role: str, usage: TokenUsage) -> float | None:
        applied = role_prices.get(role, price)
        if applied is None:
            return None
        return (usage.prompt * applied.prompt + usage.completion * applied.completion) / MILLION

    return {role: one.model_copy(update={"cost": cost(role, one.usage)}) for role, one in spent.items()}


def error_code(exc: Exception) -> str:
    """Return the stable code of an error of the tree, with the HTTP status where there is one."""
    code = str(getattr(exc, "code", type(exc).__name__))
    status = exc.status if isinstance(exc, BackendError) else None
    return code if status is None else f"{code}:{status}"
