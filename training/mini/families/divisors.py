"""Greatest common divisor by repeated subtraction."""

from __future__ import annotations

import math
import random

from ..digits import subtract
from .problem import Family, Key, Problem, courtesy, pick

RANGES = "two different numbers in 2..99, at most 6 subtractions until they are equal"
PLAN = "subtract smaller from larger until equal"
MAX_STEPS = 6


def draw(rng: random.Random) -> Problem:
    while True:
        g = pick(rng, (1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12))
        a, b = g * rng.randint(1, 99 // g), g * rng.randint(1, 99 // g)
        x, y = max(a, b), min(a, b)
        if x == y or y < 2:
            continue
        steps: list[str] = []
        while x != y and len(steps) <= MAX_STEPS:
            steps.append(subtract(x, y))
            x, y = max(x - y, y), min(x - y, y)
        if x == y and len(steps) <= MAX_STEPS:
            break
    form = pick(rng, ("gcd of {a} and {b}", "gcd({a},{b})", "what is gcd({a},{b})", "what is the gcd of {a} and {b}", "find gcd({a},{b})",
                      "greatest common divisor of {a} and {b}", "what is the greatest common divisor of {a} and {b}",
                      "find the greatest common divisor of {a} and {b}", "greatest common factor of {a} and {b}", "gcd {a} {b}",
                      "highest common factor of {a} and {b}", "find the gcd of {a},{b}", "compute gcd({a},{b})", "gcf of {a} and {b}", "hcf of {a} and {b}",
                      "largest number that divides both {a} and {b}", "what is the greatest common factor of {a} and {b}"))  # fmt: skip
    text = courtesy(rng, form.format(a=a, b=b))
    trace = ";".join(steps) + f";{x}={y}>{x}"
    return Problem("divisors", (min(a, b), max(a, b)), text, PLAN, trace, str(x))


def recompute(key: Key) -> str:
    match key:
        case (int(a), int(b)):
            return str(math.gcd(a, b))
        case _:
            raise ValueError(f"not a gcd key: {key!r}")


def conclusion(trace: str) -> str:
    return trace[trace.rfind(">") + 1 :]


FAMILY = Family("divisors", RANGES, (PLAN,), draw, recompute, conclusion)
