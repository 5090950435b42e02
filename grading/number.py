"""Exact numbers out of normalised text: integers, decimals, fractions, mixed numbers, percentages, powers of ten.

Everything is a `Fraction`; no float takes part. Digits, exponents and nesting are bounded, so `9**9**9` is turned
away here (None) instead of being computed.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, replace
from fractions import Fraction

MAX_DIGITS = 400
"""Longest run of digits that is read as a number."""
MAX_POWER_BITS = 8_192
"""Size in bits of the largest power that is computed."""
MAX_BITS = 14_000
"""Size in bits of the largest number, numerator and denominator together: fewer digits than Python writes out (4,300)."""
MAX_FACTORIAL = 200
MAX_DEPTH = 40
APPROXIMATE_DIGITS = 6
"""A decimal with at least this many significant digits, four of them behind the point, may stand for a rounded value."""
APPROXIMATE_DECIMALS = 4
ROUNDED_DIGITS = 3
"""A decimal with at least this many significant digits may stand for an irrational number where rounding is allowed."""
FLOAT_NOISE_DIGITS = 10
"""A decimal with at least this many significant digits may also carry the noise of floating point arithmetic."""
FLOAT_NOISE_RELATIVE = Fraction(1, 10**9)


@dataclass(frozen=True, slots=True)
class Number:
    """One exact number, with the precision that its notation claims."""

    value: Fraction
    under: Fraction = Fraction(0)
    """How far the magnitude of a value that this decimal stands for may lie below its own (rounded up); 0 = exact."""
    over: Fraction = Fraction(0)
    """How far it may lie above (rounded down or cut off)."""
    groups: tuple[Fraction, ...] = field(default=(), compare=False)
    """The other reading of digits grouped by commas: `123,456` may be a list. Empty = no such reading."""
    step: Fraction = field(default=Fraction(0), compare=False)
    """Worth of the last written digit of a decimal with at least ROUNDED_DIGITS significant ones; 0 = anything else."""
    literal: bool = field(default=True, compare=False)
    """False for arithmetic that was left undone, such as `347 + 58`."""


_GROUPED = re.compile(r"[+-]?\d{1,3}(?:,\d{3})+(?:\.\d+)?")
_LITERAL = re.compile(
    r"(?P<sign>[+-]?)\s*(?P<digits>\d+(?:\.\d*)?|\.\d+)"
    r"(?:\s*[eE]\s*(?P<e>[+-]?\d{1,4})|\s*\*\s*10\s*\^\s*\{?\s*(?P<ten>[+-]?\d{1,4})\s*\}?)?"
)
_POWER_OF_TEN = re.compile(r"(?P<sign>[+-]?)\s*10\s*\^\s*\{?\s*(?P<ten>[+-]?\d{1,4})\s*\}?")
_REPEATING = re.compile(r"(?P<sign>[+-]?)(?P<int>\d*)\.(?P<fixed>\d*)\\(?:overline|bar|dot)\s*\{?(?P<rep>\d+)\}?")
_MIXED = re.compile(
    r"(?P<sign>[+-]?)\s*(?P<int>\d+)\s*(?:\s(?P<a>\d+)\s*/\s*(?P<b>\d+)|\\frac\s*\{\s*(?P<c>\d+)\s*\}\s*\{\s*(?P<d>\d+)\s*\})"
)
_SIMPLE_FRACTION = re.compile(
    r"[+-]?\s*(?:\(?\s*[+-]?[\d.]+\s*\)?\s*/\s*\(?[+-]?[\d.]+\s*\)?|\\frac\s*\{\s*[+-]?[\d.]+\s*\}\s*\{\s*[+-]?[\d.]+\s*\})"
)
_LONE_IN_BRACKETS = re.compile(r"\{\s*\(\s*([+-]?[\d.]+)\s*\)\s*\}")
_TOKEN = re.compile(r"\s*(?:(\d+(?:\.\d*)?(?:[eE][+-]?\d{1,4})?|\.\d+)|(\\frac(?![a-zA-Z]))|([-+*/^!%(){}]))")


def parse_number(text: str) -> Number | None:
    """The number that all of `text` (normalised) writes, or None when it is anything else or too large to hold."""
    text = text.strip()
    if not text or len(text) > 2 * MAX_DIGITS or not any(c.isdigit() for c in text):
        return None
    if text.endswith("%"):
        inner = parse_number(text[:-1])
        if inner is None or inner.groups:
            return None if inner is None else Number(inner.value / 100)
        return Number(
            inner.value / 100, inner.under / 100, inner.over / 100, step=inner.step / 100, literal=inner.literal
        )
    groups: tuple[Fraction, ...] = ()
    if _GROUPED.fullmatch(text):
        if "." not in text:
            groups = tuple(Fraction(part) for part in text.split(","))
        text = text.replace(",", "")
    if max(map(len, re.findall(r"\d+", text))) > MAX_DIGITS:
        return None
    literal = _parse_literal(text)
    if literal is not None:
        return replace(literal, groups=groups)
    value = _evaluate(text)
    if value is None:
        return None
    return Number(value, literal=_is_finished(text))


def _is_finished(text: str) -> bool:
    """Whether a computation is only a notation: a simple fraction, or a number in brackets that combine nothing."""
    while len(text) > 2 and text[0] + text[-1] in ("()", "{}") and not any(c in text[1:-1] for c in "(){}"):
        text = text[1:-1].strip()
    bare = _LONE_IN_BRACKETS.sub(r"{\1}", text)
    return _SIMPLE_FRACTION.fullmatch(bare) is not None or _parse_literal(text) is not None


def same_number(a: Number, b: Number) -> bool:
    """Equal exactly, or one is a long decimal that the other rounds (or cuts) to.

    `0.333333` is 1/3 and `3.14159` may be π, but `0.333` is not 1/3: fewer than six digits claim to be exact.
    """
    return a.value == b.value or _stands_for(a, b.value) or _stands_for(b, a.value)


def _stands_for(decimal: Number, value: Fraction) -> bool:
    if not decimal.over:
        return False
    distance = value - decimal.value if decimal.value >= 0 else decimal.value - value
    return -decimal.under <= distance < decimal.over


def show_number(value: Fraction) -> str:
    """Shortest exact notation: an integer, or `p/q` in lowest terms; beyond MAX_BITS in hexadecimals."""
    return show_integer(value.numerator) + ("" if value.denominator == 1 else f"/{show_integer(value.denominator)}")


def show_integer(value: int) -> str:
    """Its decimals, or beyond MAX_BITS hexadecimals, which Python writes at any length."""
    return str(value) if value.bit_length() <= MAX_BITS else hex(value)


def _parse_literal(text: str) -> Number | None:
    if match := _LITERAL.fullmatch(text):
        exponent = int(match["e"] or match["ten"] or 0)
        digits = match["digits"]
        value = Fraction(digits.rstrip(".") if digits.endswith(".") else digits)
        if abs(exponent) > MAX_DIGITS:
            return None
        scale = Fraction(10) ** exponent
        value = (-value if match["sign"] == "-" else value) * scale
        whole, _, decimals = digits.partition(".")
        significant = len((whole + decimals).lstrip("0"))
        under = over = Fraction(0)
        if significant >= APPROXIMATE_DIGITS and len(decimals) >= APPROXIMATE_DECIMALS:
            over = scale / 10 ** len(decimals)
            under = over / 2
            if significant >= FLOAT_NOISE_DIGITS:
                noise = abs(value) * FLOAT_NOISE_RELATIVE
                under, over = max(under, noise), max(over, noise)
        step = scale / 10 ** len(decimals) if decimals and significant >= ROUNDED_DIGITS else Fraction(0)
        return Number(value, under, over, step=step)
    if match := _POWER_OF_TEN.fullmatch(text):
        exponent = int(match["ten"])
        if abs(exponent) > MAX_DIGITS:
            return None
        value = Fraction(10) ** exponent
        return Number(-value if match["sign"] == "-" else value)
    if match := _REPEATING.fullmatch(text):
        fixed, rep = match["fixed"], match["rep"]
        nines = 10 ** len(rep) - 1
        value = Fraction(int((match["int"] or "0") + fixed), 10 ** len(fixed)) + Fraction(
            int(rep), nines * 10 ** len(fixed)
        )
        return Number(-value if match["sign"] == "-" else value)
    if match := _MIXED.fullmatch(text):
        numerator, denominator = int(match["a"] or match["c"]), int(match["b"] or match["d"])
        if denominator == 0 or numerator >= denominator:
            return None
        value = int(match["int"]) + Fraction(numerator, denominator)
        return Number(-value if match["sign"] == "-" else value)
    return None


class _NotRational(Exception):
    """The text is not a bounded rational computation."""


def _evaluate(text: str) -> Fraction | None:
    tokens: list[str] = []
    position = 0
    stripped = text.rstrip()
    while position < len(stripped):
        match = _TOKEN.match(stripped, position)
        if match is None:
            return None
        tokens.append(match.group().strip())
        position = match.end()
    try:
        reader = _Reader(tokens)
        value = reader.sum(0)
        return value if reader.at_end() else None
    except (_NotRational, ZeroDivisionError):
        return None


class _Reader:
    """Recursive descent over `+ - * / ^ ! % ( ) { }` and ``\\frac``; a bracket next to a factor multiplies."""

    def __init__(self, tokens: list[str]) -> None:
        self._tokens = tokens
        self._next = 0

    def at_end(self) -> bool:
        return self._next == len(self._tokens)

    def _peek(self) -> str:
        return self._tokens[self._next] if self._next < len(self._tokens) else ""

    def _take(self, expected: str = "") -> str:
        token = self._peek()
        if not token or (expected and token != expected):
            raise _NotRational
        self._next += 1
        return token

    def sum(self, depth: int) -> Fraction:
        if depth > MAX_DEPTH:
            raise _NotRational
        value = self._product(depth)
        while self._peek() in ("+", "-"):
            sign = self._take()
            term = self._product(depth)
            value = _bounded(value + term if sign == "+" else value - term)
        return value

    def _product(self, depth: int) -> Fraction:
        value = self._signed(depth)
        while True:
            sign = self._peek()
            if sign == "*":
                self._take()
                value = _bounded(value * self._signed(depth))
            elif sign == "/":
                self._take()
                value = _bounded(value / self._signed(depth))
            elif sign in ("(", r"\frac"):
                value = _bounded(value * self._power(depth))
            else:
                return value

    def _signed(self, depth: int) -> Fraction:
        sign = 1
        for _ in range(MAX_DEPTH):
            if self._peek() not in ("+", "-"):
                return sign * self._power(depth)
            sign = -sign if self._take() == "-" else sign
        raise _NotRational

    def _power(self, depth: int) -> Fraction:
        base = self._atom(depth)
        if self._peek() == "!":
            self._take()
            if base.denominator != 1 or not 0 <= base <= MAX_FACTORIAL:
                raise _NotRational
            base = Fraction(math.factorial(int(base)))
        if self._peek() == "%":
            self._take()
            base /= 100
        if self._peek() != "^":
            return base
        self._take()
        if depth > MAX_DEPTH:
            raise _NotRational
        sign = -1 if self._peek() == "-" else 1
        if self._peek() in ("+", "-"):
            self._take()
        return _power(base, sign * self._power(depth + 1))

    def _atom(self, depth: int) -> Fraction:
        first = self._take()
        if first in "({":
            value = self.sum(depth + 1)
            self._take(")" if first == "(" else "}")
            return value
        if first == r"\frac":
            self._take("{")
            numerator = self.sum(depth + 1)
            self._take("}")
            self._take("{")
            denominator = self.sum(depth + 1)
            self._take("}")
            return numerator / denominator
        if first[0].isdigit() or first[0] == ".":
            return _literal(first)
        raise _NotRational


def _literal(token: str) -> Fraction:
    mantissa, _, exponent = token.lower().partition("e")
    if abs(int(exponent or 0)) > MAX_DIGITS:
        raise _NotRational
    return Fraction(mantissa.rstrip(".")) * Fraction(10) ** int(exponent or 0)


def _bounded(value: Fraction) -> Fraction:
    if value.numerator.bit_length() + value.denominator.bit_length() > MAX_BITS:
        raise _NotRational
    return value


def _power(base: Fraction, exponent: Fraction) -> Fraction:
    if exponent.denominator != 1:
        raise _NotRational
    bits = max(base.numerator.bit_length(), base.denominator.bit_length())
    if abs(exponent) * max(bits, 1) > MAX_POWER_BITS:
        raise _NotRational
    return base ** int(exponent)
