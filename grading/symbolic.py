"""The child process of :mod:`.symbolic_pool`: symbolic comparison with math-verify's parser and sympy.

Run as ``python -m k2think.grading.symbolic MEMORY_BYTES``; speaks one JSON object a line on standard input and output.
sympy is imported here and nowhere else. LaTeX goes through the grammar that math-verify uses, without its clean-up
(which drops units, so that `5m` would be 5). math-verify's other reader, sympy's
`parse_expr`, evaluates Python and is taken out at start (the grammar calls it for plain digits, which get a reader
of their own).
"""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from fractions import Fraction
from typing import Any

import sympy
from latex2sympy2_extended import latex2sympy
from math_verify import verify
from sympy.parsing import sympy_parser

from ..schemas.checks import AnswerForm
from .child import bound, open_replies, serve
from .compare import Scalar, compare
from .normal import to_latex
from .notation import parse_answer
from .number import Number
from .values import Expression, Relation

DIGITS = 30
"""Decimal digits to which expressions are evaluated at test points."""
MAX_DIGITS = 200
"""Digits up to which two constants that agree so far are told apart."""
ZERO_RELATIVE = sympy.Rational(1, 10**20)
"""A difference smaller than this part of the values is zero: ten guard digits below DIGITS."""
MIN_POINTS = 3
"""Valid test points that make an identity believed."""

# Fixed, pairwise unrelated rationals of both signs; symbol number i takes the value at (row + 7 i).
_POINTS = [
    sympy.Rational(p, q)
    for p, q in ((7, 5), (13, 37), (-17, 11), (29, 8), (-5, 19), (53, 17), (3, 41), (-43, 9), (31, 23), (-2, 13), (61, 7), (47, 59))
]  # fmt: skip
_WHOLE_NAMES = {"n", "k", "m"}
_PRIMED = re.compile(r"([A-Za-z])\s*('+)")
_READ_OVER = re.compile(r"'|(?:^|[^\^\s\d.])\s*[\d.]+\s*_")
"""What the grammar drops: a prime, and the subscript of a number (its base), but not a bound as in `\\int^1_0`."""
_DEGREES = re.compile(r"(\d+(?:\.\d+)?|(?<![A-Za-z\\])[A-Za-z]|\([^()]*\))\s*deg(?![A-Za-z])")
_DIGITS_ONLY = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)")


def symbolic_leaf(a: Scalar, b: Scalar) -> bool | None:
    """Decide two scalars: evaluate at test points, and where that is impossible ask math-verify. None = cannot tell."""
    if isinstance(a, Relation) and isinstance(b, Relation):
        return _same_relation(a, b)
    if isinstance(a, Relation) or isinstance(b, Relation):
        return False
    left, right = _to_sympy(a), _to_sympy(b)
    if left is None or right is None:
        return None
    if isinstance(left, sympy.Expr) and isinstance(right, sympy.Expr):
        verdict = _same_expression(left, right, (a, b))
        if verdict is not None:
            return verdict
    return bool(
        verify(left, right, timeout_seconds=0, float_rounding=12)
        or verify(right, left, timeout_seconds=0, float_rounding=12)
    )


def _stands_for(scalar: Scalar, difference: Any, value: Any) -> bool:
    """Whether `scalar` is a long decimal and `value`, at `difference` from it, is what it was rounded or cut from."""
    if not isinstance(scalar, Number) or not scalar.over or not (difference.is_real and value.is_real):
        return False
    distance = difference if scalar.value >= 0 else -difference
    return bool(-_rational(scalar.under) <= distance < _rational(scalar.over))


def _loosened(scalar: Scalar, beside: Scalar) -> Scalar:
    """A decimal beside a constant that is no fraction, taken for what rounds to it."""
    if not isinstance(scalar, Number) or not isinstance(beside, Expression) or scalar.over or not scalar.step:
        return scalar
    return replace(scalar, under=scalar.step / 2, over=scalar.step / 2)


def _rational(fraction: Fraction) -> Any:
    return sympy.Rational(fraction.numerator, fraction.denominator)


def _to_sympy(scalar: Number | Expression) -> Any:
    if isinstance(scalar, Number):
        return _rational(scalar.value)
    return _parse(scalar.text)


def _parse(text: str) -> Any:
    """Return what the grammar reads, degrees as radians and `x'` as a name of its own; None where it would drop something."""
    text = _PRIMED.sub(lambda match: f"{match[1]}_{{{'prime' * len(match[2])}}}", text)
    text = _DEGREES.sub(r"(\1*\\frac{\\pi}{180})", text)
    if _READ_OVER.search(text):
        return None
    expression: Any = latex2sympy(to_latex(text), is_real=True, convert_degrees=False, normalization_config=None)
    if isinstance(expression, sympy.Expr):
        exact: dict[Any, Any] = {f: sympy.Rational(str(f)) for f in expression.atoms(sympy.Float)}
        exact |= {s: sympy.I for s in expression.free_symbols if str(s) == "i"}
        return expression.xreplace(exact) if exact else expression
    return expression


def _same_expression(left: Any, right: Any, written: tuple[Scalar, Scalar]) -> bool | None:
    symbols = _symbols(left, right)
    valid = 0
    for values in _assignments(symbols):
        pair = _values_at(left, right, symbols, values)
        if pair is None:
            continue
        x, y = pair
        close = abs(x - y) <= ZERO_RELATIVE * max(abs(x), abs(y))
        if not close and not _stands_for(written[0], y - x, y) and not _stands_for(written[1], x - y, x):
            return False
        if not symbols:
            return not close or not _clearly_nonzero(left - right)
        valid += 1
        if valid >= 2 * MIN_POINTS:
            return True
    return True if valid >= MIN_POINTS else None


def _clearly_nonzero(difference: Any) -> bool:
    """Whether a constant that is small beside its terms is still not zero: 10^50 + √2 against 10^50 + √3."""
    value = difference.evalf(DIGITS, maxn=MAX_DIGITS)
    # sympy marks what it could not resolve within maxn digits by one bit of precision
    return bool(value.is_number and value != 0 and all(f._prec > 1 for f in value.atoms(sympy.Float)))


def _same_relation(a: Relation, b: Relation) -> bool | None:
    """Same operator, and the differences of the sides are proportional (by a positive factor for inequalities)."""
    if a.operator != b.operator:
        return False
    sides = [_parse(text) for text in (a.left, a.right, b.left, b.right)]
    if not all(isinstance(side, sympy.Expr) for side in sides):
        return None
    left, right = sides[0] - sides[1], sides[2] - sides[3]
    symbols = _symbols(left, right)
    ratios: list[Any] = []
    for values in _assignments(symbols):
        pair = _values_at(left, right, symbols, values)
        if pair is None or (pair[0] == 0 and pair[1] == 0):
            continue
        if pair[0] == 0 or pair[1] == 0:
            return False
        ratios.append(pair[0] / pair[1])
        if abs(ratios[-1] - ratios[0]) > ZERO_RELATIVE * abs(ratios[0]):
            return False
    if len(ratios) < MIN_POINTS:
        return None
    return a.operator in ("=", r"\ne") or bool(ratios[0] > 0)


def _symbols(left: Any, right: Any) -> list[str]:
    return sorted({s.name for s in left.free_symbols | right.free_symbols})


def _assignments(symbols: list[str]) -> list[list[Any]]:
    if not symbols:
        return [[]]
    rows = [[_POINTS[(row + 7 * i) % len(_POINTS)] for i in range(len(symbols))] for row in range(len(_POINTS))]
    if set(symbols) <= _WHOLE_NAMES:  # cos(nπ) and (-1)^n agree on whole numbers only
        rows += [[sympy.Integer(row + 3 * i + 1) for i in range(len(symbols))] for row in range(6)]
    return rows


def _values_at(left: Any, right: Any, symbols: list[str], values: list[Any]) -> tuple[Any, Any] | None:
    """Both sides at one point; None where undefined or, unless i is written, outside the real domain of either."""
    found: list[Any] = []
    real_only = bool(symbols) and not (left.has(sympy.I) or right.has(sympy.I))
    for side in (left, right):
        point = {s: values[symbols.index(s.name)] for s in side.free_symbols}
        value = (side.subs(point) if point else side).evalf(DIGITS)
        if not value.is_number or not value.is_finite or value.has(sympy.nan, sympy.zoo):
            return None
        real, imaginary = value.as_real_imag()
        if real_only and abs(imaginary) > ZERO_RELATIVE * abs(value):
            return None
        found.append(real if real_only else value)
    return found[0], found[1]


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    form = AnswerForm(request["form"]) if request["form"] else None
    a, b = (parse_answer(request[side], form=form) for side in ("a", "b"))
    failures: list[str] = []

    def leaf(x: Scalar, y: Scalar) -> bool | None:
        try:
            if request["rounded"]:
                x, y = _loosened(x, y), _loosened(y, x)
            return symbolic_leaf(x, y)
        except MemoryError:
            raise
        except Exception as exc:  # sympy raises almost anything on odd input: such a pair is undecided, and says so
            failures.append(type(exc).__name__)
            return None

    return {"verdict": compare(a, b, leaf), "failures": failures}


def _read_number_only(text: str, *_: object, **__: object) -> Any:
    """Stands in for sympy's `parse_expr`: the LaTeX grammar hands over digits, and nothing else is read."""
    if not _DIGITS_ONLY.fullmatch(text):
        raise ValueError("not a number")
    return sympy.Rational(text)


def _refuse_evaluation(*_: object, **__: object) -> None:
    raise RuntimeError("evaluating Python text is disabled in the grading process")


def main() -> None:
    """Serve comparisons until standard input closes."""
    replies = open_replies()
    sympy_parser.parse_expr = _read_number_only
    sympy_parser.eval_expr = _refuse_evaluation
    bound(int(sys.argv[1]))
    _parse(r"\frac{1}{2}+x")  # the grammar warms up before the first clock runs
    serve(_answer, replies)


if __name__ == "__main__":
    main()
