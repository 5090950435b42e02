"""Science: a lettered choice, or a free answer by equivalence and then by a judge."""

from __future__ import annotations

import re
from fractions import Fraction

from pydantic import JsonValue

from ...schemas.checks import AnswerForm
from ...schemas.errors import GradingError, K2ThinkError
from ...schemas.scores import Score
from ..equivalence import quick
from ..extract import extract_answer
from ..normal import fold, normalise
from ..notation import choice_letter
from .final import Meta, describe, no_answer, option, right, stated_answer, text_option, text_truth, wrong
from .judge import Judge, says_nothing
from .math import accepted, compare, is_undone, shown_answer
from .numeric import far, near

LETTERS = "ABCDEFGHIJ"
MAX_JUDGED_CHARS = 2_000
"""Longest answer that a judge is shown; a final answer is short, and what is longer argues."""
UNDISPUTED_SHARE = Fraction(1, 20)
"""Numbers further apart than this part of the truth are different without asking anyone."""

_SEVERAL = re.compile(r"\(?\s*[A-J]\s*\)?(?:\s*(?:,|;|/|&|\||\band\b|\bor\b|\s)\s*\(?\s*[A-J]\s*\)?)+", re.IGNORECASE)


def score_choice(text: str, truth: JsonValue, meta: Meta) -> Score:
    """Score a choice. `truth` is a letter, or the text of a choice where meta's `choices` lists them in order.

    No answer earns nothing, whatever the number of choices; ``\\boxed{Energy}`` is no E.
    """
    choices = _choices(meta)
    letters = LETTERS[: len(choices)] if choices else LETTERS
    expected = _truth_letter(truth, choices, letters)
    found = extract_answer(text, form=AnswerForm.choice)
    answer = found.answer if found is not None else _named_choice(text, choices)
    if answer is None:
        return no_answer()
    marked = extract_answer(text, form=AnswerForm.text)
    written = normalise(marked.answer) if marked is not None else ""
    if _SEVERAL.fullmatch(written):
        return wrong("wrong_form", written, "more than one choice")
    letter = _letter_of(answer, choices)
    if not letter or letter not in letters:
        return wrong("wrong_form", answer[:200], f"no choice of {letters[0]} to {letters[-1]}")
    return right("equal", letter) if letter == expected else wrong("different", letter, f"the truth is {expected}")


async def score_free(text: str, truth: JsonValue, meta: Meta, judge: Judge | None) -> Score:
    """Score a free answer. meta: `tolerance`, relative (0), and `question`, which the judge is shown.

    Raises GradingError when the judge fails or gives no usable verdict.
    """
    truths = accepted(truth)
    answer = _free_answer(text)
    if answer is None or says_nothing(answer):
        return no_answer()
    tolerance = option(meta, "tolerance", 0.0)
    shown = shown_answer(answer)
    undone = False
    for reference in truths:
        equal = fold(answer) == fold(reference) or near(answer, reference, tolerance) is True
        if equal or (await compare(answer, reference)).equal:
            undone = is_undone(answer, reference)
            if not undone:
                return right("equal", shown)
    if undone:
        return wrong("undone", shown, "a computation that was left undone is not an answer")
    if all(far(answer, reference, UNDISPUTED_SHARE) for reference in truths):
        return wrong("different", shown, f"the truth is {truths[0]}")
    if judge is None:
        return wrong("unjudged", shown, "no rule finds it equal to the truth, and there was no judge to ask")
    if len(answer) > MAX_JUDGED_CHARS:
        return wrong("wrong_form", shown[:200], f"longer than {MAX_JUDGED_CHARS} characters, so no final answer")
    if await _ask(judge, text_option(meta, "question"), truths[0], answer):
        return right("judged_equal", shown)
    return wrong("judged_different", shown, f"the truth is {truths[0]}")


async def _ask(judge: Judge, question: str, truth: str, answer: str) -> bool:
    try:
        verdict = await judge(question, truth, answer)
    except GradingError:
        raise
    except (K2ThinkError, OSError, TimeoutError) as exc:
        raise GradingError(f"the judge of a free answer failed: {exc}") from exc
    if verdict is None:
        raise GradingError("the judge of a free answer gave no usable verdict")
    return verdict


def _free_answer(text: str) -> str | None:
    found = extract_answer(text)
    return found.answer if found is not None else stated_answer(text)


def _choices(meta: Meta) -> list[str]:
    listed = meta.get("choices")
    if isinstance(listed, dict):
        listed = [listed[key] for key in sorted(listed)]
    if listed is None:
        return []
    if not isinstance(listed, list) or not 1 < len(listed) <= len(LETTERS):
        raise GradingError(f"meta['choices'] must list 2 to {len(LETTERS)} choices, not {describe(listed)}")
    return [text_truth(choice, "choice") for choice in listed]


def _truth_letter(truth: JsonValue, choices: list[str], letters: str) -> str:
    written = text_truth(truth, "choice")
    letter = _letter_of(written, choices)
    if not letter or letter not in letters:
        raise GradingError(f"the truth of a choice problem must be a letter of {letters} or one of its choices")
    return letter


def _letter_of(written: str, choices: list[str]) -> str:
    """Return the letter of a choice, given as letter or as its text; empty when it is neither or could be several."""
    same = {LETTERS[place] for place, choice in enumerate(choices) if fold(choice) == fold(written)}
    if not same:
        letter = choice_letter(normalise(written)).upper()
        if letter:
            return letter
        same = {LETTERS[place] for place, choice in enumerate(choices) if quick(written, choice)}
    return same.pop() if len(same) == 1 else ""


def _named_choice(text: str, choices: list[str]) -> str | None:
    """Return what is stated in words, where there are choices to find it among."""
    return stated_answer(text) if choices else None
