"""Reads an answer: what its notation says it is.

:func:`parse_answer` is total: any text becomes some value, in the worst case :class:`Words`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

from ..schemas.checks import AnswerForm
from .normal import FUNCTIONS, MAX_ANSWER_CHARS, SET_CLOSE, SET_OPEN, fold, matching, normalise, split_top
from .number import Number, parse_number
from .units import CURRENCY_SIGNS, Unit, is_known_unit, parse_unit
from .values import Collection, Expression, Interval, Kind, Named, Quantity, Relation, Value, Words

MAX_ITEMS = 200
MAX_NESTING = 8

_DATE = re.compile(r"\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[/.]\d{1,2}[/.]\d{4}|\d{1,2}-\d{1,2}-\d{4}")
_RATIO_OR_TIME = re.compile(r"[\d.]+\s*(?::\s*[\d.]+\s*)+(?:[ap]\.?m\.?)?", re.IGNORECASE)
_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}")
_MATHS = re.compile(r"[=+*/^_\\<>|\d{}%" + SET_OPEN + SET_CLOSE + "]")
_NAME = re.compile(r"\\?[A-Za-z]+(?:\s*_\s*\{?\s*\w+\s*\}?)?'?(?:\s*\(\s*[A-Za-z](?:\s*,\s*[A-Za-z])*\s*\))?")
_MATRIX = re.compile(
    r"\\begin\s*\{[pb]?(?:small)?(?:matrix|array)\}(?:\s*\{[clr|]+\})?(.*)\\end\s*\{[pb]?(?:small)?(?:matrix|array)\}"
)
_ENV_CALL = re.compile(r"\s+(?:or|and)\s+", re.IGNORECASE)
_BASED = re.compile(r"([+-]?)\s*[({]?\s*(\d+(?:\.\d+)?)\s*[)}]?\s*_\s*\{?\s*(\d{1,2})\s*\}?")
_OF_ANGLE = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![a-zA-Z])")
_NUMBER_RUN = re.compile(r"[+-]?\d+(?:\.\d+)?(?:\s+[+-]?\d+(?:\.\d+)?)+")
_MAGNITUDE = re.compile(
    r"(?P<number>[+-]?\s*(?:\d[\d,]*(?:\.\d+)?|\.\d+)(?:\s*[eE][+-]?\d{1,3}|\s*\*\s*10\s*\^\s*\{?\s*[+-]?\d{1,3}\s*\}?)?"
    r"(?:\s*/\s*\d+|\s+\d+\s*/\s*\d+)?)(?P<gap>\s*)(?P<unit>[A-Za-zΩ" + CURRENCY_SIGNS + r"¢\\][^+=<>()|]*)"
)
_RELATION = re.compile(r"\\le(?![a-zA-Z])|\\ge(?![a-zA-Z])|\\ne(?![a-zA-Z])|[=<>]")
_BOOLEANS = {"yes": "yes", "true": "yes", "no": "no", "false": "no"}
_CONSTANT_WORDS = {"pi", "infty", "sqrt", "frac", *FUNCTIONS}


def parse_answer(answer: str, *, form: AnswerForm | None = None) -> Value:
    """The value of `answer`. `form` settles what the notation leaves open: words, letters, sets, intervals."""
    if form is AnswerForm.code:
        return Words("\n".join(line.rstrip() for line in answer.strip().splitlines()), exact=True)
    if form is AnswerForm.text or len(answer) > MAX_ANSWER_CHARS:
        return Words(_fold_words(answer))
    text = normalise(answer)
    if form is AnswerForm.choice:
        return Words(choice_letter(text) or _fold_words(text))
    value = _parse(text, form, 0)
    if form is AnswerForm.set:
        return _as_set(value)
    if form is AnswerForm.interval:
        return _as_interval(value)
    return value


def choice_letter(text: str) -> str:
    """The lower-case letter of `B`, `(b)`, `B.`, `b) Paris`, `Option B`; empty when `text` is something else."""
    match = re.fullmatch(
        r"\s*(?:(?:option|choice|answer)\s*:?\s*)?(?:\(\s*([A-Za-z])\s*\)|\[\s*([A-Za-z])\s*\]|([A-Za-z]))\s*(?:[.):,]\s*.*|\s*)",
        text, re.IGNORECASE | re.DOTALL,
    )  # fmt: skip
    if match is None:
        match = re.fullmatch(r"\s*\(\s*([A-Za-z])\s*\)\s+()()\S.*", text, re.DOTALL)
    return next((g for g in match.groups() if g), "").lower() if match else ""


def _fold_words(text: str) -> str:
    folded = fold(text)
    return _BOOLEANS.get(folded, folded)


def is_words(text: str) -> bool:
    """Whether normalised text is language rather than mathematics."""
    if _DATE.fullmatch(text) or _RATIO_OR_TIME.fullmatch(text):
        return True
    words = [w for w in _WORD.findall(text) if w.lower() not in _CONSTANT_WORDS]
    if not words:
        return False
    if not _MATHS.search(text):
        return True
    return len(words) >= 2 and sum(map(len, words)) > 0.5 * len(text.replace(" ", ""))


def _parse(text: str, form: AnswerForm | None, depth: int) -> Value:
    text = text.strip()
    if depth > MAX_NESTING:
        return Words(_fold_words(text))
    for reader in _READERS:
        value = reader(text, form, depth)
        if value is not None:
            return value
    return Expression(re.sub(r"\s+", " ", text))


def _read_number(text: str, form: AnswerForm | None, depth: int) -> Value | None:
    if _DATE.fullmatch(text) or _RATIO_OR_TIME.fullmatch(text):
        return Words(_fold_words(text))
    number = parse_number(text)
    if number is not None and depth:
        return replace(number, groups=())
    return number


def _read_based(text: str, form: AnswerForm | None, depth: int) -> Value | None:
    """`101_2`: the base stands as a unit does, so that `101` leaves it unsaid and `101_3` contradicts."""
    match = _BASED.fullmatch(text)
    number = parse_number(match[1] + match[2]) if match else None
    return Quantity(number, Unit(Fraction(1), ((f"base {int(match[3])}", 1),))) if match and number else None


def _read_money(text: str, form: AnswerForm | None, depth: int) -> Value | None:
    match = re.fullmatch(rf"([+-]?)\s*([{CURRENCY_SIGNS}])\s*(.+)", text)
    number = parse_number(match[1] + match[3]) if match else None
    unit = parse_unit(match[2]) if match else None
    return Quantity(number, unit) if number and unit else None


def _read_quantity(text: str, form: AnswerForm | None, depth: int) -> Value | None:
    match = _MAGNITUDE.fullmatch(text)
    if match is not None and (quantity := _number_with_unit(match, form, text)):
        return quantity
    match = re.fullmatch(
        r"(.*[\d}\\a-z)])\s*(deg|(?<=\s)(?:cm|mm|km|m|ft|inches|meters|units)(?:\s*\^\s*\{?\d\}?)?)", text
    )
    if match is None or (unit := parse_unit(match[2])) is None or not re.search(r"\d|\\pi|\\sqrt", match[1]):
        return None
    if match[2] == "deg" and _OF_ANGLE.search(match[1]):  # of the angle, not of the whole
        return None
    inner = _parse(match[1], form, depth + 1)
    return Quantity(inner, unit) if isinstance(inner, Number | Expression) else None


def _number_with_unit(match: re.Match[str], form: AnswerForm | None, text: str) -> Quantity | None:
    number, spelled = parse_number(match["number"]), match["unit"].strip()
    one_letter = re.fullmatch(r"[A-Za-z](?:\s*\^\s*\{?\d\}?)?", spelled) is not None
    if number is None or spelled in ("e", "i", "x", "y", "z") or (one_letter and form is AnswerForm.expression):
        return None
    if re.match(r"\\(?!Omega)", spelled) or (one_letter and not is_known_unit(spelled[0])):
        return None
    unit = parse_unit(spelled)
    if unit is None or not _plausible(spelled):
        return None
    return Quantity(replace(number, groups=()), unit, one_letter and not match["gap"], text)


def _plausible(spelled: str) -> bool:
    """Known units in any combination; unknown nouns only as plain words: `5 apples`, not `5 xy`."""
    parts = re.findall(r"[A-Za-z]+", spelled)
    known = all(is_known_unit(p) or p.lower() in ("per", "square", "sq", "cubic") for p in parts)
    return known or (
        len(parts) <= 3 and all(len(p) >= 3 or is_known_unit(p) for p in parts) and not re.search(r"[\d^]", spelled)
    )


def _read_words(text: str, form: AnswerForm | None, depth: int) -> Value | None:
    if form is AnswerForm.expression:
        return None
    if not text or (is_words(text) and not _RELATION.search(text) and not _ENV_CALL.search(text) and "," not in text):
        return Words(_fold_words(text))
    return None


def _read_matrix(text: str, form: AnswerForm | None, depth: int) -> Value | None:
    match = _MATRIX.fullmatch(text)
    if match is None or r"\begin" in match[1]:
        return None
    rows = [row for row in re.split(r"\\\\", match[1]) if row.strip()]
    if len(rows) > MAX_ITEMS:
        return None
    return Collection(
        "rows", tuple(Collection("row", tuple(_parse(c, form, depth + 1) for c in row.split("&"))) for row in rows)
    )


def _read_plus_minus(text: str, form: AnswerForm | None, depth: int) -> Value | None:
    halves = re.split(r"\\pm(?![a-zA-Z])", text)
    if len(halves) != 2 or len(split_top(text, ",;")) > 1:
        return None
    head, tail = halves
    named = re.fullmatch(rf"({_NAME.pattern})\s*=\s*(.*)", head.strip())
    name, head = (named[1], named[2]) if named else ("", head)
    plus = f"{head}+{tail}" if head.strip() else tail
    items = (_parse(plus, form, depth + 1), _parse(f"{head}-{tail}", form, depth + 1))
    return Collection("set", tuple(Named(name, v) for v in items) if name else items)


def _read_union(text: str, form: AnswerForm | None, depth: int) -> Value | None:
    pieces = re.split(
        r"\\cup(?![a-zA-Z])|(?<=[)\]])\s*U\s*(?=[(\[])", re.sub(rf"^({_NAME.pattern})\s*\\in\s*", "", text)
    )
    if len(pieces) < 2 or len(pieces) > MAX_ITEMS:
        return None
    return Collection("union", tuple(_as_interval(_parse(p, form, depth + 1)) for p in pieces))


def _read_membership(text: str, form: AnswerForm | None, depth: int) -> Value | None:
    match = re.fullmatch(rf"({_NAME.pattern})\s*\\in(?![a-zA-Z])(.*)", text)
    if match is None:
        return None
    value = _as_interval(_parse(match[2], form, depth + 1))
    if isinstance(value, Interval):
        return Interval(value.low, value.high, value.low_closed, value.high_closed, match[1].strip())
    return value


def _read_brackets(text: str, form: AnswerForm | None, depth: int) -> Value | None:
    if len(text) < 2:
        return None
    opening, closing = text[0], text[-1]
    if opening in "([]" and closing in ")][" and (opening, closing) not in (("(", ")"), ("[", "]")):
        parts = split_top(text[1:-1], ",;")
        if len(parts) == 2 and not any(c in text[1:-1] for c in "()[]"):
            low, high = (_parse(p, form, depth + 1) for p in parts)
            return Interval(low, high, opening == "[", closing == "]")
        return None
    if opening not in "([{" + SET_OPEN or matching(text, 0) != len(text) - 1:
        return None
    inner = text[1:-1]
    parts = split_top(inner, ",;")
    kinds: dict[str, Kind] = {"(": "round", "[": "square", "{": "set", SET_OPEN: "set"}
    if len(parts) == 1:
        if opening in "({" and inner.strip():
            return _parse(inner, form, depth + 1)
        if not inner.strip():
            return Collection(kinds[opening], ())
    if len(parts) > MAX_ITEMS:
        return Words(_fold_words(text))
    return Collection(kinds[opening], tuple(_parse(p, form, depth + 1) for p in parts))


def _read_list(text: str, form: AnswerForm | None, depth: int) -> Value | None:
    alternatives = [p for p in _ENV_CALL.split(text) if p.strip()]
    joined = len(alternatives) > 1 and not is_words(text)
    parts = alternatives if joined else text.split() if _NUMBER_RUN.fullmatch(text) else split_top(text, ",;")
    if len(parts) < 2 or not all(p.strip() for p in parts):
        return None
    if len(parts) > MAX_ITEMS:
        return Words(_fold_words(text))
    if not joined:
        return Collection("bare", tuple(_parse(p, form, depth + 1) for p in parts))
    items: list[Value] = []
    for piece in parts:
        value = _parse(piece.strip(" ,"), form, depth + 1)
        items.extend(value.items if isinstance(value, Collection) and value.kind == "bare" else (value,))
    return Collection("joined", tuple(items)) if len(items) <= MAX_ITEMS else Words(_fold_words(text))


def _read_relation(text: str, form: AnswerForm | None, depth: int) -> Value | None:
    flat = _blank_groups(text)  # the = in \\sum_{k=1} relates nothing
    operators = list(_RELATION.finditer(flat))
    if not operators or len(operators) > 8:
        return None
    edges = [0, *(edge for m in operators for edge in m.span()), len(text)]
    sides = [text[start:end].strip() for start, end in zip(edges[::2], edges[1::2], strict=True)]
    names = [m.group() for m in operators]
    if not all(sides):
        return None
    if all(n == "=" for n in names):
        if _NAME.fullmatch(sides[0]) and sides[0].lower() not in _CONSTANT_WORDS:
            return Named(sides[0].replace(" ", ""), _parse(sides[-1], form, depth + 1))
        if len(sides) == 2 and re.fullmatch(r"[A-Za-z]", sides[1]):
            return Named(sides[1], _parse(sides[0], form, depth + 1))
        if len(sides) == 2:
            return Relation(sides[0], "=", sides[1])
        return _parse(sides[-1], form, depth + 1)
    if len(names) == 1:
        if names[0] in (">", r"\ge"):
            sides.reverse()
        operator = {">": "<", r"\ge": r"\le"}.get(names[0], names[0])
        interval = _half_line(sides, operator, form, depth)
        return interval or Relation(sides[0], operator, sides[1])
    if len(names) == 2 and re.fullmatch(r"\\?[A-Za-z]+", sides[1]):
        if all(n in (">", r"\ge") for n in names):
            sides.reverse()
            names.reverse()
        elif not all(n in ("<", r"\le") for n in names):
            return None
        low, high = _parse(sides[0], form, depth + 1), _parse(sides[2], form, depth + 1)
        return Interval(low, high, names[0] in (r"\le", r"\ge"), names[1] in (r"\le", r"\ge"), sides[1])
    return None


def _blank_groups(text: str) -> str:
    """Same length, with everything inside brackets blanked."""
    out: list[str] = []
    depth = 0
    for char in text:
        depth -= char in ")]}" or char == SET_CLOSE
        out.append(char if depth <= 0 else " ")
        depth += char in "([{" or char == SET_OPEN
    return "".join(out)


def _half_line(sides: list[str], operator: str, form: AnswerForm | None, depth: int) -> Interval | None:
    closed = operator == r"\le"
    if operator == r"\ne":
        return None
    for index in (0, 1):
        bound = sides[1 - index]
        if re.fullmatch(r"[A-Za-z]", sides[index]) and not re.search(r"(?<![\\A-Za-z])[A-Za-z](?![A-Za-z])", bound):
            value = _parse(bound, form, depth + 1)
            if index == 0:
                return Interval(Expression(r"-\infty"), value, False, closed, sides[0])
            return Interval(value, Expression(r"\infty"), closed, False, sides[1])
    return None


def _as_set(value: Value) -> Value:
    if isinstance(value, Number) and value.groups:
        return Collection("set", tuple(Number(g) for g in value.groups))
    if isinstance(value, Collection) and value.kind in ("bare", "joined", "round", "square"):
        return Collection("set", value.items)
    if isinstance(value, Named) and isinstance(value.value, Collection):
        return _as_set(value.value)
    return value if isinstance(value, Collection | Interval) else Collection("set", (value,))


def _as_interval(value: Value) -> Value:
    if isinstance(value, Named):
        return _as_interval(value.value)
    if isinstance(value, Collection) and value.kind in ("round", "square") and len(value.items) == 2:
        closed = value.kind == "square"
        return Interval(value.items[0], value.items[1], closed, closed)
    return value


_Reader = Callable[[str, AnswerForm | None, int], Value | None]
_READERS: tuple[_Reader, ...] = (
    _read_number,
    _read_based,
    _read_money,
    _read_quantity,
    _read_words,
    _read_matrix,
    _read_plus_minus,
    _read_union,
    _read_membership,
    _read_brackets,
    _read_list,
    _read_relation,
)
