"""What all domains share: the final answer in a model's text, and the forms of a score.

What stands between ``<think>`` and ``</think>`` is never read. Where the chat template itself opened the thinking, the
caller puts that ``<think>`` before the text; otherwise a text that was cut off in the middle of its thinking looks like
an answer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from pydantic import JsonValue

from ...schemas.checks import AnswerForm
from ...schemas.errors import GradingError
from ...schemas.scores import Score
from ..extract import extract_answer

MAX_DETAIL_CHARS = 500

Meta = Mapping[str, JsonValue]

_FENCED = re.compile(r"\s*```[^\n`]{0,40}\n(.*?)\n?\s*```\s*", re.DOTALL)


def right(reason: str, answer: str, detail: str = "") -> Score:
    """Return full credit."""
    return Score(value=1.0, correct=True, reason=reason, answer=answer, detail=detail[:MAX_DETAIL_CHARS])


def wrong(reason: str, answer: str | None = None, detail: str = "", *, value: float = 0.0) -> Score:
    """Return an answer that does not count as right; `value` is the credit for its parts, where there is any."""
    return Score(value=value, correct=False, reason=reason, answer=answer, detail=detail[:MAX_DETAIL_CHARS])


def no_answer() -> Score:
    """Return the score of a text without a final answer."""
    return wrong("no_answer", None, "no final answer after the reasoning")


def marked_answer(text: str) -> str | None:
    """Return what is marked as the answer, as it stands: in ``<answer>``, in ``\\boxed{}``, or in the last fenced block.

    A fence inside the tag is taken off. None = the reasoning never ended, or nothing is marked.
    """
    found = extract_answer(text, form=AnswerForm.text)
    if found is not None and found.source in ("answer_tag", "boxed"):
        fenced = _FENCED.fullmatch(found.answer)
        return fenced[1] if fenced else found.answer
    code = extract_answer(text, form=AnswerForm.code)
    return code.answer if code is not None else None


def stated_answer(text: str, *, form: AnswerForm = AnswerForm.text) -> str | None:
    """Return the marked answer, or what a phrase such as "the answer is …" names, or a lone short line."""
    marked = marked_answer(text)
    if marked is not None:
        return marked
    found = extract_answer(text, form=form)
    return found.answer if found is not None else None


def text_truth(truth: JsonValue, what: str) -> str:
    """Return `truth` as text; raises GradingError when it cannot be a reference: that is never the answer's fault."""
    if isinstance(truth, str) and truth.strip():
        return truth.strip()
    if isinstance(truth, int | float) and not isinstance(truth, bool):
        return repr(truth)
    raise GradingError(f"the truth of a {what} problem must be text or a number, not {describe(truth)}")


def describe(value: object) -> str:
    """Name what `value` is, without its content."""
    return "empty text" if isinstance(value, str) and not value.strip() else type(value).__name__


def option(meta: Meta, key: str, default: float) -> float:
    """Return the number under `key` of `meta`; raises GradingError when something else stands there."""
    value = meta.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise GradingError(f"meta[{key!r}] must be a number, not {describe(value)}")
    return float(value)


def text_option(meta: Meta, key: str) -> str:
    """Return the text under `key` of `meta`; empty when there is none."""
    value = meta.get(key)
    return value if isinstance(value, str) else ""
