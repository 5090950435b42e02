"""Programs run in the head: the output for an input, or an input for an output, compared as data.

The answer is what is marked after the reasoning; a JSON block in the middle of the thinking is no answer. For a
predicted input only the recorded one counts: that another would do as well is not tried.
"""

from __future__ import annotations

import re
from typing import Any, cast

from pydantic import JsonValue

from ...schemas.errors import GradingError
from ...schemas.scores import Score
from ..extract import visible_text
from .final import Meta, describe, marked_answer, no_answer, right, wrong
from .literal import Literal, Unreadable, find_literals, read_literal, same_literal

KINDS = ("output", "input")
MAX_SHOWN_CHARS = 1_000

_LABEL = re.compile(r"""\s*["']?(input|output|answer)["']?\s*[:=]\s*""", re.IGNORECASE)
_LATEX = re.compile(r"\\([{}_$%#&])")
_TEXT = re.compile(r"\\(?:text|texttt|mathrm|mathtt)\{(.*)\}", re.DOTALL)
_BARE_WORD = re.compile(r"[^\[\](){}\"'\n]{1,200}")


def score_simulation(text: str, truth: JsonValue, meta: Meta) -> Score:
    """Score predicted data. `truth` is a value, or text: ``"output": …``, ``"input": …``, JSON, or a Python literal."""
    kind, expected = _expected(truth)
    answer = marked_answer(text) or _bare(text)
    if answer is None:
        return no_answer()
    readings = _readings(answer, kind)
    shown = answer.strip()[:MAX_SHOWN_CHARS]
    if any(same_literal(_plain(reading), expected) for reading in readings):
        return right("equal", shown)
    if not readings:
        return wrong("wrong_form", shown, "the answer is neither JSON nor a Python literal, or is labelled otherwise")
    return wrong("different", shown, f"the truth is {expected!r}")


def _expected(truth: JsonValue) -> tuple[str, Literal]:
    """Return which of input and output is asked for (empty = not told), and the value."""
    if truth is None:
        raise GradingError("a simulation problem needs a truth")
    if not isinstance(truth, str):
        return _unwrapped("", _plain(truth))
    label = _LABEL.match(truth)
    kind = label[1].casefold() if label else ""
    body = truth[label.end() :] if label else truth
    if not body.strip():
        raise GradingError(f"the truth of a simulation problem is {describe('')}")
    try:
        value = read_literal(body.strip().rstrip(",") if label else body)
    except Unreadable:
        value = body.strip()  # a bare word is a string
    return (kind, _plain(value)) if kind else _unwrapped("", _plain(value))


def _unwrapped(kind: str, value: Literal) -> tuple[str, Literal]:
    if isinstance(value, dict):
        keys = list(cast(dict[Any, Any], value))
        if len(keys) == 1 and keys[0] in KINDS:
            return str(keys[0]), value[keys[0]]
    return kind, value


def _bare(text: str) -> str | None:
    """Return the visible text when it is nothing but data."""
    visible = (visible_text(text) or "").strip()
    try:
        read_literal(_LABEL.sub("", visible, count=1))
    except Unreadable:
        return None
    return visible


def _readings(answer: str, kind: str) -> list[Literal]:
    """Return every value that the answer may be read as: with and without its label, LaTeX escapes taken off."""
    readings: list[Literal] = []
    unframed = _TEXT.fullmatch(answer.strip())
    for written in dict.fromkeys((answer, _LATEX.sub(r"\1", unframed[1] if unframed else answer))):
        label = _LABEL.match(written)
        body = written[label.end() :] if label else written
        said = label[1].casefold() if label else ""
        if said in KINDS and kind and said != kind:
            continue  # an input where the output was asked for
        try:
            value = read_literal(body.strip().rstrip(","))
        except Unreadable:
            found = find_literals(body)
            if len(found) > 1 or (not found and not _BARE_WORD.fullmatch(body.strip())):
                continue
            value = found[0] if found else body.strip()
        readings.append(value)
        if isinstance(value, dict):
            fields = cast(dict[Any, Any], value)
            wanted = (kind,) if kind else (*KINDS, "answer")
            readings += [fields[name] for name in wanted if name in fields and len(fields) == 1]
    return readings


def _plain(value: Any) -> Literal:
    """Return `value` with data that was put into strings taken out: ``"[1, 2]"`` is a list, ``"true"`` a boolean."""
    if isinstance(value, str):
        stripped = value.strip()
        if stripped.casefold() in ("true", "false") or stripped[:1] + stripped[-1:] in ("[]", "{}"):
            try:
                return _plain(read_literal(stripped))
            except Unreadable:
                return value
        return value
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in cast(dict[Any, Any], value).items()}
    if isinstance(value, list):
        return [_plain(item) for item in cast(list[Any], value)]
    if isinstance(value, tuple):
        return tuple(_plain(item) for item in cast(tuple[Any, ...], value))
    return value
