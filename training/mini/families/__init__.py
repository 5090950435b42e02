"""The eight problem families. Their ranges were fixed before training and are repeated in the model card."""

from __future__ import annotations

import random
import zlib

from . import arithmetic, divisors, equations, logic, ordering, robot, table, words
from .problem import Family, Problem

FAMILIES: dict[str, Family] = {
    module.FAMILY.name: module.FAMILY
    for module in (arithmetic, equations, words, divisors, ordering, logic, table, robot)
}
TEST_SHARE = 20
"""One underlying problem in so many is kept for testing."""


def is_held_out(problem: Problem) -> bool:
    """True when the underlying problem (not its wording) belongs to the test half of the split."""
    return zlib.crc32(repr((problem.family, problem.key)).encode()) % TEST_SHARE == 0


def verify(problem: Problem) -> None:
    """Checks the trace against an independent computation; raises ``ValueError`` when they differ."""
    family = FAMILIES[problem.family]
    recomputed, concluded = family.recompute(problem.key), family.conclusion(problem.trace)
    if not recomputed == concluded == problem.answer:
        raise ValueError(f"{problem}: recomputed {recomputed!r}, the trace ends in {concluded!r}")


def draw_problem(rng: random.Random, family: str, *, held_out: bool) -> Problem:
    """A verified problem of ``family`` from the asked half of the split."""
    while True:
        problem = FAMILIES[family].draw(rng)
        if is_held_out(problem) == held_out:
            verify(problem)
            return problem


__all__ = ["FAMILIES", "TEST_SHARE", "Family", "Problem", "draw_problem", "is_held_out", "verify"]
