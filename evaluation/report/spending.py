"""All that was paid for, by role."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from ...schemas.completion import TokenUsage
from ...schemas.evaluation import Outcome, Spent
from ..records import Key, key_of
from .model import RoleSpent, Spending
from .sheet import Sheet

ROLES = ("planner", "generator", "verifier", "safety", "grader")
"""In the order of a job; others follow by name."""


def spending_of(sheet: Sheet) -> Spending:
    """Add up what all outcomes cost, those that others stand for too."""
    outcomes = sheet.outcomes
    by_role: defaultdict[str, list[Spent]] = defaultdict(list)
    for outcome in (*outcomes, *sheet.replaced):
        for role, spent in outcome.spent.items():
            by_role[role].append(spent)
    roles = sorted(by_role, key=lambda role: (ROLES.index(role) if role in ROLES else len(ROLES), role))
    everything = [spent for role in roles for spent in by_role[role]]
    total = _added("all", everything)
    asked = max(len(outcomes), 1)
    return Spending(
        roles=tuple(_added(role, by_role[role]) for role in roles),
        total=total,
        questions=len(outcomes),
        tokens_per_question=(total.prompt + total.completion) / asked,
        wall_s_per_question=sum(outcome.seconds for outcome in outcomes) / asked,
        discarded=sum(map(_discarded, outcomes)),
        known_cost=sum(spent.cost or 0.0 for spent in everything),
    )


def tokens_per_question(sheet: Sheet) -> float:
    """Return prompt and completion tokens of all roles for each question with an outcome."""
    paid = (*sheet.outcomes, *sheet.replaced)
    tokens = sum(spent.usage.total for outcome in paid for spent in outcome.spent.values())
    return tokens / max(len(paid) - len(sheet.replaced), 1)


def unaccounted(sheet: Sheet) -> int:
    """Return how many outcomes show work that the ledger of their question, with all that they replaced, does not."""
    ledgers: defaultdict[Key, list[dict[str, Spent]]] = defaultdict(list)
    for outcome in (*sheet.outcomes, *sheet.replaced):
        ledgers[key_of(outcome)].append(outcome.spent)
    return sum(_shows_more(outcome, ledgers[key_of(outcome)]) for outcome in sheet.outcomes)


def _shows_more(outcome: Outcome, ledgers: Sequence[Mapping[str, Spent]]) -> bool:
    def calls(role: str) -> int:
        return sum(ledger[role].calls for ledger in ledgers if role in ledger)

    shown = sum(sample.usage.completion for sample in outcome.candidates or (outcome.final,))
    paid = sum(ledger["generator"].usage.completion for ledger in ledgers if "generator" in ledger)
    return (
        shown > paid
        or (bool(outcome.comparisons) and not calls("verifier"))
        or (outcome.planned and not calls("planner"))
    )


def _added(role: str, all_spent: list[Spent]) -> RoleSpent:
    # Not by adding usages: that would make and check a model for each of a hundred thousand.
    usage = TokenUsage(
        prompt=sum(spent.usage.prompt for spent in all_spent),
        completion=sum(spent.usage.completion for spent in all_spent),
        reasoning=sum(spent.usage.reasoning for spent in all_spent),
    )
    costs = [spent.cost for spent in all_spent if spent.calls or spent.cost is not None]
    known = [cost for cost in costs if cost is not None]
    return RoleSpent(
        role=role,
        calls=sum(spent.calls for spent in all_spent),
        prompt=usage.prompt,
        completion=usage.completion,
        reasoning=usage.reasoning,
        seconds=sum(spent.seconds for spent in all_spent),
        cost=sum(known) if known and len(known) == len(costs) else None,
    )


def _discarded(outcome: Outcome) -> int:
    if len(outcome.candidates) < 2:
        return 0
    return sum(sample.usage.completion for index, sample in enumerate(outcome.candidates) if index != outcome.chosen)
