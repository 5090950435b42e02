"""The eight problem families. Their ranges were fixed before training and are repeated in the model card."""

from __future__ import annotations

import random
import zlib
from enum import StrEnum

from . import arithmetic, divisors, equations, logic, ordering, robot, table, words
from .problem import Family, Key, Problem

FAMILIES: dict[str, Family] = {
    module.FAMILY.name: module.FAMILY
    for module in (arithmetic, equations, words, divisors, ordering, logic, table, robot)
}
HELD_OUT_SHARE = 20
"""One underlying problem in so many is kept from training."""
DEVELOPMENT_SHARE = 3
"""Of those, one in so many may be looked at while something is tuned; the rest is for figures that are reported."""


class Side(StrEnum):
    """To what end an underlying problem may be used. The three sides share no problem."""

    training = "training"
    """To learn from."""
    development = "development"
    """To choose by: formats, rates, budgets, prompts."""
    report = "report"
    """To measure what is published, never to choose by."""


def side_of(problem: Problem) -> Side | None:
    """The side of the underlying problem; its wording plays no part. None = held out, but its twin is not: asked nowhere."""
    side = _side(problem.family, problem.key)
    twin = _side(problem.family, FAMILIES[problem.family].twin(problem.key))
    return side if side is Side.training or side is twin else None


def _side(family: str, key: Key) -> Side:
    digest = zlib.crc32(repr((family, key)).encode())
    if digest % HELD_OUT_SHARE:
        return Side.training
    return Side.report if digest // HELD_OUT_SHARE % DEVELOPMENT_SHARE else Side.development


def verify(problem: Problem) -> None:
    """Checks the trace against an independent computation; raises ``ValueError`` when they differ."""
    family = FAMILIES[problem.family]
    recomputed, concluded = family.recompute(problem.key), family.conclusion(problem.trace)
    if not recomputed == concluded == problem.answer:
        raise ValueError(f"{problem}: recomputed {recomputed!r}, the trace ends in {concluded!r}")


def draw_problem(rng: random.Random, family: str, side: Side) -> Problem:
    """A verified problem of ``family`` from the asked side of the split."""
    while True:
        problem = FAMILIES[family].draw(rng)
        if side_of(problem) is side:
            verify(problem)
            return problem


__all__ = [
    "DEVELOPMENT_SHARE",
    "FAMILIES",
    "HELD_OUT_SHARE",
    "Family",
    "Problem",
    "Side",
    "draw_problem",
    "side_of",
    "verify",
]
