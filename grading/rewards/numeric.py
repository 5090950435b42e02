"""Numbers beside a reference number: to the precision that the coarser one states, or within a tolerance.

Exact fractions throughout. An answer that only one side gives a unit or a percent sign is compared without it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from ..normal import normalise
from ..notation import parse_answer
from ..number import Number, same_number
from ..units import CURRENCY_SIGNS, Unit
from ..values import Expression, Named, Quantity, Value

_CURRENCY = re.compile(rf"^[{CURRENCY_SIGNS}]\s*")


@dataclass(frozen=True, slots=True)
class Measure:
    """A number and its unit."""

    number: Number
    """In the unit as written."""
    unit: Unit | None
    """None = none is given."""


def measure(text: str) -> Measure | None:
    """Return the finished number that `text` writes, or None when it writes anything else (arithmetic left undone, too)."""
    value: Value = parse_answer(text)
    if isinstance(value, Expression):  # $94.5 million
        value = parse_answer(_CURRENCY.sub("", normalise(text), count=1))
    while isinstance(value, Named):
        value = value.value
    unit = None
    if isinstance(value, Quantity):
        unit, value = value.unit, value.magnitude
    return Measure(value, unit) if isinstance(value, Number) and value.literal else None


def near(answer: str, truth: str, tolerance: float = 0.0) -> bool | None:
    """Whether two numbers agree; None when one is no number, or a unit of one kind stands against another.

    `tolerance` is relative to the truth. Without it: equal, or the decimal with fewer places, which must have three
    significant digits, is what the other rounds to (12.3 for 12.345, but not 12 for 12.3).
    """
    verdict = _near(measure(answer), measure(truth), tolerance)
    bare, reference = normalise(answer), normalise(truth)
    if not verdict and bare.endswith("%") != reference.endswith("%"):
        return _near(measure(bare.rstrip("% ")), measure(reference.rstrip("% ")), tolerance)
    return verdict


def far(answer: str, truth: str, share: Fraction) -> bool:
    """Whether both are numbers of one kind that differ by more than `share` of the truth, so that no judge need be asked."""
    given, reference = measure(answer), measure(truth)
    if given is None or reference is None or (given.unit is None) != (reference.unit is None):
        return False
    if normalise(answer).endswith("%") != normalise(truth).endswith("%"):
        return False
    pair = _in_one_unit(given, reference)
    return pair is not None and abs(pair[0].value - pair[1].value) > share * abs(pair[1].value)


def _near(given: Measure | None, reference: Measure | None, tolerance: float) -> bool | None:
    if given is None or reference is None:
        return None
    pair = _in_one_unit(given, reference)
    if pair is None:
        return None
    a, b = pair
    distance = abs(a.value - b.value)
    return same_number(a, b) or _rounds(a, b, distance) or distance <= Fraction(tolerance) * abs(b.value)


def _in_one_unit(given: Measure, reference: Measure) -> tuple[Number, Number] | None:
    """Return both numbers in one unit; None when their units measure different things."""
    first, second = given.unit, reference.unit
    if first is None or second is None or first == second:
        return given.number, reference.number
    if first.dimensions != second.dimensions:
        return None
    return _scaled(given.number, first.scale), _scaled(reference.number, second.scale)


def _scaled(number: Number, scale: Fraction) -> Number:
    return Number(number.value * scale, number.under * scale, number.over * scale, step=number.step * abs(scale))


def _rounds(a: Number, b: Number, distance: Fraction) -> bool:
    """Whether the coarser decimal is what the other rounds to. A whole number claims to be exact."""
    steps = [number.step for number in (a, b) if number.step]
    if not steps:
        return False
    coarser = max(steps)
    whole = (a.step == 0 and a.value.denominator == 1) or (b.step == 0 and b.value.denominator == 1)
    return not whole and distance <= coarser / 2
