"""How far the judge and the answers can be trusted: order of the candidates, agreement with the truth, repeats."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from itertools import combinations

import numpy as np

from ...schemas.evaluation import Comparison, Graded, Outcome, Status
from ..statistics import Estimate, ratio
from .model import Stability, Verifier
from .sheet import Sheet, has_verdict

Tally = Counter[str]
"""Chances and cases of one problem: `NAME/of` and `NAME`."""


def verifier_of(sheet: Sheet) -> Verifier | None:
    """Return the figures of the judge; None when nothing was compared."""
    tallies = [_judged(answers) for answers in sheet.answers]
    asked = sum(tally["usable/of"] for tally in tallies)
    if not asked:
        return None
    return Verifier(
        comparisons=asked,
        alike=sum(_alike(o, comparison) for o in sheet.outcomes for comparison in o.comparisons),
        usable=_rate(tallies, "usable"),
        ties=_rate(tallies, "ties"),
        first_shown=_rate(tallies, "first_shown"),
        position_swap=_rate(tallies, "position_swap"),
        flip=_rate(tallies, "flip"),
        agreement=_rate(tallies, "agreement"),
        repeats=_rate(tallies, "repeats"),
    )


def stability_of(sheet: Sheet) -> Stability | None:
    """Return how often answers to the same problem differ; None when no problem has two."""
    tallies = [_repeated(answers) for answers in sheet.answers]
    pairs = sum(tally["verdict/of"] for tally in tallies)
    if not pairs:
        return None
    return Stability(pairs=pairs, answer_flip=_rate(tallies, "answer"), verdict_flip=_rate(tallies, "verdict"))


def _rate(tallies: list[Tally], name: str) -> Estimate | None:
    return ratio(
        np.array([tally[name] for tally in tallies], dtype=np.float64),
        np.array([tally[f"{name}/of"] for tally in tallies], dtype=np.float64),
    )


def _count(tally: Tally, name: str, case: bool) -> None:
    tally[f"{name}/of"] += 1
    tally[name] += case


def _judged(answers: tuple[Outcome, ...]) -> Tally:
    tally: Tally = Counter()
    preferred: defaultdict[frozenset[str], list[str | None]] = defaultdict(list)
    for outcome in answers:
        for comparison in outcome.comparisons:
            _count(tally, "usable", comparison.usable)
            if comparison.usable and not _alike(outcome, comparison):
                _count(tally, "ties", comparison.choice is None)
                _weigh(tally, comparison, outcome)
        # Between equal answers there is nothing to prefer, so that order may decide.
        telling = [comparison for comparison in outcome.comparisons if not _alike(outcome, comparison)]
        for forth, back in _both_orders(telling):
            _count(tally, "flip", forth.choice != back.choice)
            swapped = forth.choice is not None and back.choice is not None and forth.choice != back.choice
            _count(tally, "position_swap", swapped)
        for pair, choice in _preferences(outcome):
            preferred[pair].append(choice)
    for choices in preferred.values():
        for one, other in combinations(choices, 2):
            # Two ties agree on nothing: a judge that goes by the order alone would always be of its own opinion.
            if one is not None or other is not None:
                _count(tally, "repeats", one == other)
    return tally


def _weigh(tally: Tally, comparison: Comparison, outcome: Outcome) -> None:
    if comparison.choice is None:
        return
    _count(tally, "first_shown", comparison.choice == comparison.first)
    shown = [_candidate(outcome, index) for index in (comparison.first, comparison.second)]
    graded = [sample for sample in shown if sample is not None and sample.status is not Status.ungraded]
    if len(graded) == 2 and graded[0].correct != graded[1].correct:
        chosen = _candidate(outcome, comparison.choice)
        _count(tally, "agreement", chosen is not None and chosen.correct)


def _both_orders(comparisons: Sequence[Comparison]) -> Iterator[tuple[Comparison, Comparison]]:
    """Walk the pairs that were judged in both orders with usable verdicts."""
    by_order: dict[tuple[int, int], Comparison] = {}
    for comparison in comparisons:
        if comparison.usable:
            by_order.setdefault((comparison.first, comparison.second), comparison)
    for (first, second), forth in by_order.items():
        back = by_order.get((second, first))
        if first < second and back is not None:
            yield forth, back


def _preferences(outcome: Outcome) -> Iterator[tuple[frozenset[str], str | None]]:
    """Walk the pairs of different answers with the answer that the judge prefers; None = a tie, or it turned with the order."""
    choices: defaultdict[frozenset[str], set[str | None]] = defaultdict(set)
    for comparison in outcome.comparisons:
        shown = [_candidate(outcome, index) for index in (comparison.first, comparison.second)]
        answers = {sample.answer for sample in shown if sample is not None and sample.answer is not None}
        if comparison.usable and len(answers) == 2:
            chosen = None if comparison.choice is None else _candidate(outcome, comparison.choice)
            choices[frozenset(answers)].add(None if chosen is None else chosen.answer)
    for pair, chosen in choices.items():
        yield pair, next(iter(chosen)) if len(chosen) == 1 else None


def _alike(outcome: Outcome, comparison: Comparison) -> bool:
    shown = [_candidate(outcome, index) for index in (comparison.first, comparison.second)]
    answers = [None if sample is None else sample.answer for sample in shown]
    return answers[0] is not None and answers[0] == answers[1]


def _candidate(outcome: Outcome, index: int) -> Graded | None:
    return outcome.candidates[index] if index < len(outcome.candidates) else None


def _repeated(answers: tuple[Outcome, ...]) -> Tally:
    tally: Tally = Counter()
    for one, other in combinations([outcome.final for outcome in answers if has_verdict(outcome)], 2):
        _count(tally, "verdict", one.correct != other.correct)
        if not (_voiceless(one) or _voiceless(other)):
            _count(tally, "answer", _said(one) != _said(other))
    return tally


def _voiceless(final: Graded) -> bool:
    return final.status is Status.graded and final.answer is None


def _said(final: Graded) -> tuple[str, str | None]:
    """Return what tells answers apart; those without an answer by what became of them."""
    return ("", final.answer) if final.answer is not None else (final.status.value, None)
