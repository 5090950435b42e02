"""Mathematics: the final answer is equivalent to the truth.

Beyond :mod:`..equivalence`, since one side here is a reference: a decimal may round an irrational truth (6.28 for 2π),
and a percent sign that only one side has is a unit left unsaid. An answer that is a computation left undone earns
nothing where the truth is a finished number: it could be the question handed back.
"""

from __future__ import annotations

import re

from pydantic import JsonValue

from ...schemas.checks import AnswerForm
from ...schemas.errors import GradingError
from ...schemas.scores import Score
from ..compare import show
from ..equivalence import Comparison, compare_answers
from ..extract import extract_answer, last_boxed
from ..form import matches_form
from ..normal import normalise
from ..notation import parse_answer
from ..number import Number
from ..values import Expression, Named, Quantity, Value
from .final import Meta, no_answer, right, text_option, text_truth, wrong

MAX_TRUTHS = 20
"""Accepted spellings of one truth."""
MAX_SIDES = 4
"""Sides of `≈` in one answer, less one."""

_APPROXIMATELY = re.compile(r"\\approx(?![a-zA-Z])|\\simeq(?![a-zA-Z])|≈|≃")
_NAME = re.compile(r"[\s$]*\\?[A-Za-z]+[\s$]*")


async def score_math(text: str, truth: JsonValue, meta: Meta) -> Score:
    """Score a mathematical answer. `truth` is one answer or a list of accepted ones; meta: `answer_form`."""
    form = asked_form(meta)
    truths = accepted(truth)
    found = extract_answer(text, form=form)
    if found is None:
        return no_answer()
    if form is not None and not matches_form(found.answer, form):
        return wrong("wrong_form", found.answer, f"the answer must be of the form {form.value}")
    shown = shown_answer(found.answer, form)
    reason = "different"
    for reference in truths:
        comparison = await compare(found.answer, reference, form)
        if comparison.equal:
            if is_undone(found.answer, reference, form):
                return wrong("undone", shown, "a computation that was left undone is not an answer")
            return right("equal", shown)
        reason = comparison.reason or reason
    return wrong(reason, shown, f"the truth is {truths[0]}")


async def compare(answer: str, truth: str, form: AnswerForm | None = None) -> Comparison:
    """Compare an answer with a reference, by the rules of the module's text.

    In `2\\pi \\approx 6.28` both sides must agree with it: an approximation is no second guess.
    """
    sides = [side for side in _APPROXIMATELY.split(answer) if side.strip() and not _NAME.fullmatch(side)]
    if 0 < len(sides) < MAX_SIDES and _APPROXIMATELY.search(answer):
        comparisons = [await _compare(side, truth, form) for side in sides]
        return next((one for one in comparisons if not one.equal), comparisons[0])
    return await _compare(answer, truth, form)


async def _compare(answer: str, truth: str, form: AnswerForm | None) -> Comparison:
    comparison = await compare_answers(answer, truth, form=form, rounded=True)
    if comparison.equal:
        return comparison
    a, b = normalise(answer), normalise(truth)
    if a.endswith("%") != b.endswith("%"):
        bare = await compare_answers(a.rstrip("% "), b.rstrip("% "), form=form, rounded=True)
        return bare if bare.equal else comparison
    return comparison


def is_undone(answer: str, truth: str, form: AnswerForm | None = None) -> bool:
    """Whether `answer` still has to be computed though `truth` is a finished number: `347 + 58`, `\\sqrt{16}` for 4."""
    reference = _scalar(parse_answer(truth, form=form))
    if not isinstance(reference, Number) or not reference.literal:
        return False
    sides = [side for side in _APPROXIMATELY.split(answer) if side.strip()]
    given = _scalar(parse_answer(sides[-1] if sides else answer, form=form))
    if isinstance(given, Number):
        return not given.literal
    rounded = bool(reference.over or reference.step)  # 2π may stand for a truth of 6.28
    return isinstance(given, Expression) and not rounded


def accepted(truth: JsonValue) -> list[str]:
    """Return the accepted answers; raises GradingError when there is none. A box around a truth is taken off."""
    several = truth if isinstance(truth, list) else [truth]
    if not 0 < len(several) <= MAX_TRUTHS:
        raise GradingError(f"a maths problem needs 1 to {MAX_TRUTHS} accepted answers, not {len(several)}")
    return [last_boxed(one) or one for one in (text_truth(item, "maths") for item in several)]


def asked_form(meta: Meta) -> AnswerForm | None:
    """Return the form that `meta` asks for; None = any. Raises GradingError for one that does not exist."""
    name = text_option(meta, "answer_form")
    if not name:
        return None
    try:
        return AnswerForm(name)
    except ValueError as exc:
        raise GradingError(f"meta['answer_form'] is {name!r}; there are {', '.join(AnswerForm)}") from exc


def shown_answer(answer: str, form: AnswerForm | None = None) -> str:
    """Return the normal form of an answer, by which equal ones can be counted."""
    return show(parse_answer(answer, form=form))


def _scalar(value: Value) -> Value:
    """Return what is left when a name and a unit are taken off."""
    if isinstance(value, Named):
        return _scalar(value.value)
    return value.magnitude if isinstance(value, Quantity) else value
