"""What an answer is: a number, a quantity, a collection, an interval, a relation, an expression or words."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from .number import Number
from .units import Unit


@dataclass(frozen=True, slots=True)
class Words:
    """Text that is compared as text; letters folded unless `exact` (code)."""

    text: str
    exact: bool = False


@dataclass(frozen=True, slots=True)
class Expression:
    """Mathematics beyond exact rational numbers, in normalised notation."""

    text: str


@dataclass(frozen=True, slots=True)
class Quantity:
    """A magnitude with a unit; `loose` when the unit is one letter glued to the number and may be a variable."""

    magnitude: Number | Expression
    unit: Unit
    loose: bool = False
    text: str = field(default="", compare=False)
    """As written; read instead of the unit when `loose`."""


@dataclass(frozen=True, slots=True)
class Named:
    """`name = value`."""

    name: str
    value: Value


@dataclass(frozen=True, slots=True)
class Relation:
    """An equation or inequality with something on both sides. `operator` is one of ``= < \\le \\ne`` (> is turned round)."""

    left: str
    operator: str
    right: str


@dataclass(frozen=True, slots=True)
class Interval:
    """An interval; `variable` is the name in `1 < x < 2`, empty in bracket notation."""

    low: Value
    high: Value
    low_closed: bool
    high_closed: bool
    variable: str = ""


Kind = Literal["bare", "joined", "round", "square", "set", "union", "rows", "row"]


@dataclass(frozen=True, slots=True)
class Collection:
    """Several values: `1, 2` bare, `1 or 2` joined, `(1, 2)` round, `[1, 2]` square, `{1, 2}` set, intervals in a union, a matrix's rows."""

    kind: Kind
    items: tuple[Value, ...]


Value = Words | Expression | Quantity | Named | Relation | Interval | Collection | Number
