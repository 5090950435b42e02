"""Whole-number arithmetic: two numbers and one operation, or three small numbers added and subtracted."""

from __future__ import annotations

import random

from ..digits import add, multiply, subtract, tail_number
from .problem import Family, Key, Problem, ask, chance, courtesy, pick

RANGES = (
    "a+b and a-b with 1 to 4 digits each (0 to 9999, results may be negative); a*b with 2..99 times 2..9; "
    "exact a/b with b and quotient in 2..9 and 2..12; a±b±c with 1..99 each and no negative step"
)
PLANS = {
    "+": "add digit by digit, carry",
    "-": "subtract digit by digit, borrow",
    "*": "multiply each digit, carry",
    "/": "find the factor",
    "chain": "go left to right",
}
_DIGITS = (1, 2, 2, 3, 3, 3, 4)


def _number(rng: random.Random, digits: int) -> int:
    return rng.randint(10 ** (digits - 1) if digits > 1 else 0, 10**digits - 1)


def _plus(rng: random.Random, a: int, b: int) -> str:
    form = pick(rng, ("{a}+{b}",) * 6 + ("{a} plus {b}",) * 3 + ("add {a} and {b}", "the sum of {a} and {b}", "add {b} to {a}",
                      "sum of {a} and {b}", "{a} and {b} together", "{a} added to {b}"))  # fmt: skip
    return form.format(a=a, b=b)


def _minus(rng: random.Random, a: int, b: int) -> str:
    forms = (
        ("{a}-{b}",) * 6
        + ("{a} minus {b}",) * 3
        + ("subtract {b} from {a}", "take {b} away from {a}", "{a} take away {b}")
    )
    if a >= b:
        forms += ("the difference between {a} and {b}",)
    return pick(rng, forms).format(a=a, b=b)


def _times(rng: random.Random, a: int, b: int) -> str:
    form = pick(rng, ("{a}*{b}",) * 5 + ("{a} times {b}",) * 3 + ("multiply {a} by {b}", "the product of {a} and {b}",
                      "{a} multiplied by {b}"))  # fmt: skip
    return form.format(a=a, b=b)


def _over(rng: random.Random, a: int, b: int) -> str:
    return pick(rng, ("{a}/{b}", "{a}/{b}", "{a} divided by {b}", "divide {a} by {b}")).format(a=a, b=b)


def _worded(rng: random.Random, form: str) -> str:
    if form.startswith(("add ", "subtract", "take", "multiply", "divide")):
        return courtesy(rng, form)
    if chance(rng, 0.04):
        return pick(
            rng, ("what does {} equal", "{} equals", "{} is", "how much does {} make", "{} equals what")
        ).format(form)
    return courtesy(rng, ask(rng) + form)


def _chain(rng: random.Random) -> Problem:
    a, b, c = (rng.randint(1, 99) for _ in range(3))
    first = "+" if chance(rng, 0.5) or a < b else "-"
    middle = a + b if first == "+" else a - b
    second = "+" if chance(rng, 0.5) or middle < c else "-"
    end = middle + c if second == "+" else middle - c
    steps = [add(a, b) if first == "+" else subtract(a, b), add(middle, c) if second == "+" else subtract(middle, c)]
    text = f"{a}{first}{b}{second}{c}"
    if chance(rng, 0.25):
        text = text.replace("+", " plus ").replace("-", " minus ")
    return Problem(
        "arithmetic", ("chain", a, first, b, second, c), _worded(rng, text), PLANS["chain"], ";".join(steps), str(end)
    )


def draw(rng: random.Random) -> Problem:
    kind = rng.random()
    if kind < 0.10:
        return _chain(rng)
    if kind < 0.22:
        a, b = rng.randint(2, 99), rng.randint(2, 9)
        shown = (a, b) if chance(rng, 0.6) else (b, a)
        return Problem(
            "arithmetic", ("*", a, b), _worded(rng, _times(rng, *shown)), PLANS["*"], multiply(a, b), str(a * b)
        )
    if kind < 0.28:
        b, quotient = rng.randint(2, 9), rng.randint(2, 12)
        a = b * quotient
        trace = f"{b}*{quotient}={a}>{quotient}"
        return Problem("arithmetic", ("/", a, b), _worded(rng, _over(rng, a, b)), PLANS["/"], trace, str(quotient))
    a, b = _number(rng, pick(rng, _DIGITS)), _number(rng, pick(rng, _DIGITS))
    if kind < 0.66:
        key: Key = ("+", min(a, b), max(a, b))
        return Problem("arithmetic", key, _worded(rng, _plus(rng, a, b)), PLANS["+"], add(a, b), str(a + b))
    return Problem("arithmetic", ("-", a, b), _worded(rng, _minus(rng, a, b)), PLANS["-"], subtract(a, b), str(a - b))


def recompute(key: Key) -> str:
    match key:
        case ("+", int(a), int(b)):
            return str(a + b)
        case ("-", int(a), int(b)):
            return str(a - b)
        case ("*", int(a), int(b)):
            return str(a * b)
        case ("/", int(a), int(b)):
            return str(a // b)
        case ("chain", int(a), first, int(b), second, int(c)):
            return str(a + (b if first == "+" else -b) + (c if second == "+" else -c))
        case _:
            raise ValueError(f"not an arithmetic key: {key!r}")


def twin(key: Key) -> Key:
    """A product of two digits the other way round."""
    match key:
        case ("*", int(a), int(b)) if a < 10:
            return ("*", b, a)
        case _:
            return key


FAMILY = Family("arithmetic", RANGES, tuple(PLANS.values()), draw, recompute, tail_number, twin)
