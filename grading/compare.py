"""Three-valued comparison of two values: equal, different, or only symbolic mathematics can tell (None).

What one side leaves unsaid is not held against it: the unit in `5` against `5 m`, the name in `5` against `x = 5`,
the brackets in `1, 2` against `(1, 2)` or `{2, 1}`, the order of `1 or 2` against `2, 1`. What both sides say must agree: 3 m is not 3 s, `x = 3` is not
`y = 3`, `(1, 2)` is not `(2, 1)`, `[1, 2)` is not `[1, 2]`. Equality is therefore transitive except through such a
barer answer, and through a long decimal that two neighbouring numbers round to.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

from .number import Number, same_number, show_integer, show_number
from .units import Unit
from .values import Collection, Expression, Interval, Named, Quantity, Relation, Value, Words

Scalar = Number | Expression | Relation
Leaf = Callable[[Scalar, Scalar], bool | None]
"""Decides what this module cannot; returns None when it cannot either."""

MAX_UNORDERED = 40
"""Larger sets are compared by exact items only: matching is quadratic in undecided items."""
_BRACKETS = {"bare": "||", "joined": "∨∨", "round": "()", "square": "[]", "set": "{}", "union": "∪∪"}


def undecided(a: Scalar, b: Scalar) -> bool | None:
    """The leaf of :func:`quick`: no symbolic mathematics here."""
    return None


def compare(a: Value, b: Value, leaf: Leaf = undecided) -> bool | None:
    """Whether `a` and `b` are the same answer; None when `leaf` could not say."""
    if a == b:
        return True
    if isinstance(a, Words) or isinstance(b, Words):
        return _compare_words(a, b)
    if isinstance(a, Named) or isinstance(b, Named):
        return _compare_named(a, b, leaf)
    if isinstance(a, Interval) or isinstance(b, Interval):
        return _compare_intervals(a, b, leaf)
    if isinstance(a, Collection) or isinstance(b, Collection):
        return _compare_collections(a, b, leaf)
    if isinstance(a, Quantity) or isinstance(b, Quantity):
        return _compare_quantities(a, b, leaf)
    if isinstance(a, Number) and isinstance(b, Number):
        return same_number(a, b)
    if isinstance(a, Relation) != isinstance(b, Relation):
        return False
    if isinstance(a, Expression | Relation) and isinstance(b, Expression | Relation) and show(a) == show(b):
        return True
    first, second = _letter(a), _letter(b)
    if first and second:
        return first == second
    if (first and isinstance(b, Number)) or (second and isinstance(a, Number)):
        return False
    return leaf(a, b)


def show(value: Value) -> str:
    """A canonical notation: equal strings are equal answers (not the other way round)."""
    match value:
        case Number():
            return show_number(value.value)
        case Words():
            return value.text
        case Expression():
            return value.text.replace(" ", "")
        case Quantity():
            return f"{show(_in_base_units(value))} {show_unit(value.unit)}"
        case Named():
            return f"{value.name}={show(value.value)}"
        case Relation():
            return f"{value.left}{value.operator}{value.right}".replace(" ", "")
        case Interval():
            brackets = "[" if value.low_closed else "(", "]" if value.high_closed else ")"
            return f"{brackets[0]}{show(value.low)}..{show(value.high)}{brackets[1]}"
        case Collection():
            items = [show(item) for item in value.items]
            if value.kind in ("set", "union"):
                items = sorted(set(items))
            if value.kind == "joined":
                items.sort()
            opening, closing = _BRACKETS.get(value.kind, "⟦⟧")
            return opening + ",".join(items) + closing


def show_unit(unit: Unit) -> str:
    """The base dimensions of a unit, such as ``m*s^-1``."""
    return "*".join(name if power == 1 else f"{name}^{power}" for name, power in unit.dimensions)


def _compare_words(a: Value, b: Value) -> bool:
    if isinstance(a, Words) and isinstance(b, Words):
        return a.text == b.text
    words, other = (a, b) if isinstance(a, Words) else (b, a)
    if isinstance(other, Named):
        return _compare_words(words, other.value) if isinstance(other.value, Words) else False
    return (
        isinstance(words, Words)
        and isinstance(other, Expression)
        and words.text == other.text.replace(" ", "").casefold()
    )


def _compare_named(a: Value, b: Value, leaf: Leaf) -> bool | None:
    if isinstance(a, Named) and isinstance(b, Named):
        if a.name == b.name:
            return compare(a.value, b.value, leaf)
        if isinstance(a.value, Expression) and isinstance(b.value, Expression):
            return leaf(_as_relation(a), _as_relation(b))
        return False
    named, other = (a, b) if isinstance(a, Named) else (b, a)
    if not isinstance(named, Named):
        return None
    if isinstance(other, Relation):
        relation = _as_relation(named)
        return leaf(relation, other) if isinstance(named.value, Number | Expression) else False
    return compare(named.value, other, leaf)


def _as_relation(named: Named) -> Relation:
    return Relation(
        named.name, "=", _magnitude_text(named.value) if isinstance(named.value, Number | Expression) else ""
    )


def _compare_intervals(a: Value, b: Value, leaf: Leaf) -> bool | None:
    first, second = _to_interval(a), _to_interval(b)
    if isinstance(a, Relation) or isinstance(b, Relation):
        left, right = _half_line(a), _half_line(b)
        return leaf(left, right) if left and right else False
    if first is None or second is None:
        return False
    if (first.low_closed, first.high_closed) != (second.low_closed, second.high_closed):
        return False
    if first.variable and second.variable and first.variable != second.variable:
        return False
    return _all((compare(first.low, second.low, leaf), compare(first.high, second.high, leaf)))


def _half_line(value: Value) -> Relation | None:
    """`x < 3` read as an interval turned back into the inequality."""
    if isinstance(value, Relation):
        return value
    if not isinstance(value, Interval) or not value.variable:
        return None
    low, high = value.low, value.high
    if low == Expression(r"-\infty") and isinstance(high, Number | Expression):
        return Relation(value.variable, r"\le" if value.high_closed else "<", _magnitude_text(high))
    if high == Expression(r"\infty") and isinstance(low, Number | Expression):
        return Relation(_magnitude_text(low), r"\le" if value.low_closed else "<", value.variable)
    return None


def _to_interval(value: Value) -> Interval | None:
    if isinstance(value, Interval):
        return value
    if isinstance(value, Collection) and value.kind in ("round", "square") and len(value.items) == 2:
        closed = value.kind == "square"
        return Interval(value.items[0], value.items[1], closed, closed)
    if isinstance(value, Collection) and value.kind == "union" and len(value.items) == 1:
        return _to_interval(value.items[0])
    return None


def _compare_collections(a: Value, b: Value, leaf: Leaf) -> bool | None:
    first, second = _to_collection(a, b), _to_collection(b, a)
    kinds = {first.kind, second.kind}
    if kinds in ({"set"}, {"set", "bare"}, {"set", "joined"}, {"union"}):
        return _same_items(first.items, second.items, leaf)
    if kinds in ({"joined"}, {"joined", "bare"}):
        return len(first.items) == len(second.items) and _same_items(first.items, second.items, leaf)
    if first.kind == "bare" == second.kind and _all_named(first) and _all_named(second):
        return _same_items(first.items, second.items, leaf)
    if "union" in kinds or "set" in kinds:
        return False
    if kinds == {"round", "square"} and len(first.items) == 2:
        return False  # an open and a closed interval, or a point and an interval
    if "rows" in kinds and kinds != {"rows"}:
        first, second = _flatten(first), _flatten(second)
    if len(first.items) != len(second.items):
        return False
    return _all(tuple(compare(x, y, leaf) for x, y in zip(first.items, second.items, strict=True)))


def _to_collection(value: Value, other: Value) -> Collection:
    if isinstance(value, Collection):
        return value
    if isinstance(value, Number) and len(value.groups) > 1 and isinstance(other, Collection) and len(other.items) > 1:
        return Collection("bare", tuple(Number(g) for g in value.groups))
    return Collection("bare", (value,))


def _all_named(collection: Collection) -> bool:
    return all(isinstance(item, Named) for item in collection.items)


def _flatten(collection: Collection) -> Collection:
    """A matrix of one row or one column as a plain list; anything else unchanged."""
    if collection.kind != "rows":
        return collection
    rows = [row.items for row in collection.items if isinstance(row, Collection)]
    if len(rows) == 1:
        return Collection("bare", rows[0])
    if all(len(row) == 1 for row in rows):
        return Collection("bare", tuple(row[0] for row in rows))
    return collection


def _same_items(first: tuple[Value, ...], second: tuple[Value, ...], leaf: Leaf) -> bool | None:
    """Equality as sets: every item of each side is equal to some item of the other."""
    if first == second:
        return True
    symbolic = leaf if max(len(first), len(second)) <= MAX_UNORDERED else undecided
    verdicts: dict[tuple[int, int], bool | None] = {}
    for i, x in enumerate(first):
        for j, y in enumerate(second):
            verdicts[i, j] = compare(x, y, symbolic)
    rows = tuple(_any(tuple(verdicts[i, j] for j in range(len(second)))) for i in range(len(first)))
    columns = tuple(_any(tuple(verdicts[i, j] for i in range(len(first)))) for j in range(len(second)))
    return _all(rows + columns)


def _compare_quantities(a: Value, b: Value, leaf: Leaf) -> bool | None:
    if isinstance(a, Quantity) and isinstance(b, Quantity):
        if a.unit.dimensions != b.unit.dimensions:
            return False
        if a.unit.scale == b.unit.scale:
            return compare(a.magnitude, b.magnitude, leaf)
        return compare(_in_base_units(a), _in_base_units(b), leaf)
    quantity, other = (a, b) if isinstance(a, Quantity) else (b, a)
    if not isinstance(quantity, Quantity) or isinstance(other, Relation):
        return False
    if quantity.loose:
        return leaf(Expression(quantity.text), other) if isinstance(other, Expression) else False
    return compare(quantity.magnitude, other, leaf)


def _in_base_units(quantity: Quantity) -> Number | Expression:
    scale, magnitude = quantity.unit.scale, quantity.magnitude
    if isinstance(magnitude, Number):
        return Number(
            magnitude.value * scale, magnitude.under * scale, magnitude.over * scale, step=magnitude.step * scale
        )
    if scale == 1:
        return magnitude
    return Expression(f"({magnitude.text})*{_magnitude_text(Number(scale))}")


def _magnitude_text(magnitude: Number | Expression) -> str:
    if isinstance(magnitude, Expression):
        return magnitude.text
    value: Fraction = magnitude.value
    numerator, denominator = show_integer(value.numerator), show_integer(value.denominator)
    return numerator if value.denominator == 1 else rf"\frac{{{numerator}}}{{{denominator}}}"


def _letter(scalar: Scalar) -> str:
    """The letter of an answer such as `B` or `x`, lower case as a choice is; empty for anything longer, and for e and i."""
    text = scalar.text if isinstance(scalar, Expression) else ""
    return text.lower() if len(text) == 1 and text.isalpha() and text not in "ei" else ""


def _all(verdicts: tuple[bool | None, ...]) -> bool | None:
    if any(v is False for v in verdicts):
        return False
    return None if any(v is None for v in verdicts) else True


def _any(verdicts: tuple[bool | None, ...]) -> bool | None:
    if any(v is True for v in verdicts):
        return True
    return None if any(v is None for v in verdicts) else False
