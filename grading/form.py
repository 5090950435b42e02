"""Whether an answer has the form that a task demands. An answer of another form loses before any judging."""

from __future__ import annotations

import re

from ..schemas.checks import AnswerForm
from .normal import MAX_ANSWER_CHARS, normalise
from .notation import choice_letter, parse_answer
from .number import Number
from .values import Collection, Expression, Interval, Named, Quantity, Value, Words

_IRRATIONAL = re.compile(r"\\(?:pi|sqrt|ln|log|lg|sin|cos|tan|exp|infty)(?![a-zA-Z])|(?<![\\a-zA-Z])e(?![a-zA-Z])")
_COMMAND = re.compile(r"\\[a-zA-Z]+")


def matches_form(answer: str, form: AnswerForm) -> bool:
    """Whether `answer` is written in the form `form`.

    number: one finished number with or without unit or name (`42`, `3/4`, `x = 2\\pi`, `5 cm`), not arithmetic that was
    left undone (`347 + 58`), which would let a candidate hand back the question. integer: a finished whole number.
    expression: mathematics, not words. choice: one letter. set, interval: a collection or a single item; an interval,
    union of intervals or inequality. code, text: anything but blanks.
    """
    if not answer.strip():
        return False
    if form in (AnswerForm.code, AnswerForm.text):
        return True
    if len(answer) > MAX_ANSWER_CHARS:
        return False
    if form is AnswerForm.choice:
        return bool(choice_letter(normalise(answer)))
    value = parse_answer(answer, form=form)
    match form:
        case AnswerForm.number:
            return _is_number(value)
        case AnswerForm.integer:
            return _is_integer(value)
        case AnswerForm.expression:
            return len(answer.split()) == 1 or not isinstance(parse_answer(answer), Words)
        case AnswerForm.set:
            return isinstance(value, Interval) or (
                isinstance(value, Collection) and not any(isinstance(i, Words) for i in value.items)
            )
        case AnswerForm.interval:
            return _is_interval(value)


def _is_number(value: Value) -> bool:
    match value:
        case Number():
            return value.literal
        case Quantity():
            return not value.loose and _is_number(value.magnitude)
        case Named():
            return _is_number(value.value)
        case Expression():
            letters = _COMMAND.sub(" ", value.text)
            return _IRRATIONAL.search(value.text) is not None and not re.search(r"[A-Za-df-hj-z]", letters)
        case _:
            return False


def _is_integer(value: Value) -> bool:
    match value:
        case Number():
            return value.literal and value.value.denominator == 1
        case Quantity():
            return not value.loose and _is_integer(value.magnitude)
        case Named():
            return _is_integer(value.value)
        case _:
            return False


def _is_interval(value: Value) -> bool:
    match value:
        case Interval():
            return True
        case Collection():
            return value.kind == "union" and all(isinstance(item, Interval) for item in value.items)
        case Expression():
            return value.text.strip() in (r"\emptyset", r"\mathbb{R}")
        case _:
            return False
