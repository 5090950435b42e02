"""A target's outcomes beside the problems: one value a problem, NaN where there is none, so that targets line up."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import nan

import numpy as np

from ...schemas.evaluation import Item, Outcome, Row, Status, TargetSpec
from ..records import Run
from ..samples import CANCELLED
from ..statistics import Floats, Subsets

UNKNOWN_SUBSET = "unknown"
"""Subset of problems of which only the id is known, because `items.jsonl` is missing."""
OUTSIDE_UNNAMED = "an outside model that is NOT NAMED"


@dataclass(frozen=True, slots=True)
class Problems:
    """The problems of a part, in one order for all its targets."""

    ids: tuple[str, ...]
    """Ids of the tasks."""
    subsets: Subsets
    """Which is in which subset."""
    items: Mapping[str, Item]
    """By id; empty = `items.jsonl` is missing."""

    @classmethod
    def of(cls, runs: Sequence[Run]) -> Problems:
        """Take the problems from the first run that has them, else from the outcomes."""
        items: Sequence[Item] = next((run.items for run in runs if run.items), ())
        if items:
            return cls(
                tuple(item.task.id for item in items),
                Subsets.of([item.subset for item in items]),
                {item.task.id: item for item in items},
            )
        ids = sorted({outcome.item for run in runs for outcome in run.outcomes})
        return cls(tuple(ids), Subsets.of([UNKNOWN_SUBSET] * len(ids)), {})


@dataclass(frozen=True, slots=True)
class Sheet:
    """One target of a run, as a report sees it."""

    name: str
    """Unique in its part."""
    run: Run
    """Where it is from."""
    spec: TargetSpec | None
    """None = the manifest is missing or does not name it."""
    problems: Problems
    """In the order of all vectors."""
    answers: tuple[tuple[Outcome, ...], ...]
    """Outcomes of each problem, by repeat."""
    replaced: tuple[Outcome, ...]
    """Outcomes that others stand for: tried again, or too late."""
    strangers: int
    """Outcomes about problems that the suite does not have: left out."""
    repeats: int
    """How often each problem was to be asked."""

    @property
    def row(self) -> Row | None:
        """Row of the report; None = unknown."""
        return None if self.spec is None else self.spec.row

    @property
    def model(self) -> str:
        """Model that writes the answers."""
        return "unknown" if self.spec is None else self.spec.model

    @property
    def outcomes(self) -> tuple[Outcome, ...]:
        """All that stand, problem by problem."""
        return tuple(outcome for answers in self.answers for outcome in answers)

    @property
    def expected(self) -> int:
        """Questions to be asked."""
        return len(self.problems.ids) * self.repeats

    @property
    def values(self) -> Floats:
        """Share of right answers of each problem: over the repeats with a verdict."""
        return self.column(_share)

    @property
    def once(self) -> bool:
        """Whether no problem has two answers with a verdict."""
        return all(sum(map(has_verdict, answers)) <= 1 for answers in self.answers)

    def bound(self, *, right: bool) -> Floats:
        """Return the shares if all that is ungraded or missing were right, or wrong."""

        def share(answers: tuple[Outcome, ...]) -> float:
            known = [outcome for outcome in answers if has_verdict(outcome)]
            open_ones = max(self.repeats, len(answers)) - len(known)
            return (sum(o.final.correct for o in known) + right * open_ones) / (len(known) + open_ones)

        return self.column(share)

    def column(self, of: Callable[[tuple[Outcome, ...]], float | None]) -> Floats:
        """Return one value a problem, made of its outcomes; None becomes NaN."""
        found = (of(answers) for answers in self.answers)
        return np.array([nan if value is None else value for value in found], dtype=np.float64)

    @property
    def samples(self) -> int:
        """N of best-of-N: as the policy has it, else the most samples that any outcome has."""
        policy = self.spec.policy if self.spec is not None and self.spec.policy else {}
        told = policy.get("n")
        seen = max((len(outcome.candidates) for outcome in self.outcomes), default=1)
        return max(told, seen, 1) if isinstance(told, int) else max(seen, 1)


def sheets_of(run: Run, problems: Problems) -> list[Sheet]:
    """Return a sheet for each target that the manifest names or an outcome is of."""
    specs = {} if run.manifest is None else {spec.name: spec for spec in run.manifest.targets}
    by_target: defaultdict[str, defaultdict[str, list[Outcome]]] = defaultdict(lambda: defaultdict(list))
    for outcome in run.outcomes:
        by_target[outcome.target][outcome.item].append(outcome)
    known = set(problems.ids)
    found: list[Sheet] = []
    for name in [*specs, *sorted(by_target.keys() - specs.keys())]:
        by_item = by_target.get(name, {})
        seen = max((outcome.repeat + 1 for outcomes in by_item.values() for outcome in outcomes), default=1)
        found.append(
            Sheet(
                name=name,
                run=run,
                spec=specs.get(name),
                problems=problems,
                answers=tuple(tuple(sorted(by_item.get(i, ()), key=lambda o: o.repeat)) for i in problems.ids),
                replaced=tuple(one for one in (*run.replaced, *run.ignored) if one.target == name),
                strangers=sum(len(outcomes) for item, outcomes in by_item.items() if item not in known),
                repeats=seen if run.manifest is None else max(seen, run.manifest.repeats),
            )
        )
    return found


def has_verdict(outcome: Outcome) -> bool:
    """Return whether it counts: all do, but those whose check crashed."""
    return outcome.final.status is not Status.ungraded


def finished_samples(outcome: Outcome) -> int:
    """Return how many samples were not cancelled."""
    return sum(1 for sample in outcome.candidates if sample.finish_reason != CANCELLED)


def label_of(spec: TargetSpec | None) -> str:
    """Return the row in words: who judges is part of its name."""
    if spec is None:
        return "row unknown"
    outside = ", ".join(spec.outside_models)
    match spec.row:
        case Row.single:
            return "single sample" + (f" (but names {outside})" if outside else "")
        case Row.self_scaffold:
            return "scaffold, the model itself plans and judges" + (f" (but names {outside})" if outside else "")
        case Row.outside_scaffold:
            return f"scaffold with {outside or OUTSIDE_UNNAMED}"


def _share(answers: tuple[Outcome, ...]) -> float | None:
    known = [outcome.final.correct for outcome in answers if has_verdict(outcome)]
    return sum(known) / len(known) if known else None
