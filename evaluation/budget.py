"""What a run may spend: it stops before the question that would go beyond."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from ..schemas.evaluation import Outcome, Spent

GRADER = "grader"
"""Role under which a judge's calls are counted."""


@dataclass(frozen=True, slots=True)
class Amount:
    """What was spent, or may be."""

    calls: float = 0
    """Model calls."""
    tokens: float = 0
    """Of prompts and completions."""
    cost: float = 0.0
    """In the currency of the prices."""

    def __add__(self, other: Amount) -> Amount:
        return Amount(self.calls + other.calls, self.tokens + other.tokens, self.cost + other.cost)


def amount_of(outcome: Outcome) -> Amount:
    """Return what an outcome was paid with; what has no price costs nothing here."""
    return _total(outcome.spent.values())


def paid_since(outcome: Outcome, began: float) -> Amount:
    """Return what a run that began then paid of an outcome: all, the judge alone, or nothing, since another run did."""
    if outcome.at >= began:
        return amount_of(outcome)
    judged = outcome.judged_at is not None and outcome.judged_at >= began
    return _total(part for role, part in outcome.spent.items() if judged and role == GRADER)


def _total(parts: Iterable[Spent]) -> Amount:
    total = Amount()
    for part in parts:
        total += Amount(part.calls, part.usage.total, part.cost or 0.0)
    return total


@dataclass(slots=True)
class Budget:
    """Limits of a run in all, and what it has spent so far."""

    calls: int | None = None
    """Model calls; None = no limit."""
    tokens: int | None = None
    """Tokens; None = no limit."""
    cost: float | None = None
    """Cost; None = no limit."""
    spent: Amount = field(default_factory=Amount)
    """So far."""
    _in_flight: dict[str, int] = field(default_factory=dict[str, int])
    _dearest: dict[str, Amount] = field(default_factory=dict[str, Amount])
    exhausted: str = ""
    """Which limit was met, in words; empty = none."""

    def admits(self, target: str) -> bool:
        """Whether one more question fits, taking those in flight to cost as much as the dearest of their target so far, or one call."""
        expected = self.spent
        for name, count in (*self._in_flight.items(), (target, 1)):
            dearest = self._dearest.get(name, Amount(calls=1))
            expected += Amount(dearest.calls * count, dearest.tokens * count, dearest.cost * count)
        for name, limit in (("calls", self.calls), ("tokens", self.tokens), ("cost", self.cost)):
            if limit is not None and getattr(expected, name) > limit:
                self.exhausted = f"{limit:,g} {'' if name == 'cost' else name}".strip() + (
                    " of cost" if name == "cost" else ""
                )
                return False
        return True

    def begin(self, target: str) -> None:
        """Note that a question is asked."""
        self._in_flight[target] = self._in_flight.get(target, 0) + 1

    def end(self, target: str, outcome: Outcome | None) -> None:
        """Note that it is over; None = it came to nothing."""
        self._in_flight[target] -= 1
        if outcome is None:
            return
        paid = amount_of(outcome)
        self.spent += paid
        known = self._dearest.get(target, Amount(calls=1))
        self._dearest[target] = Amount(
            max(known.calls, paid.calls), max(known.tokens, paid.tokens), max(known.cost, paid.cost)
        )
