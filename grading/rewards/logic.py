"""Orderings and graph puzzles: a list in its order, the name of a node."""

from __future__ import annotations

import re
from typing import Any, cast

from pydantic import JsonValue

from ...schemas.errors import GradingError
from ...schemas.scores import Score
from ..extract import visible_text
from ..normal import fold
from .final import Meta, describe, marked_answer, no_answer, right, stated_answer, text_truth, wrong
from .literal import Unreadable, find_literals, read_literal

MAX_ITEMS = 1_000

_NUMBERED = re.compile(r"^\s*(?:[-*•]|\(?\d{1,3}[.):])\s+")


def score_ordering(text: str, truth: JsonValue, meta: Meta) -> Score:
    """Score a list. All of it in its order, or nothing: most neighbours of a random order are right by chance."""
    expected = _truth_items(truth)
    marked = marked_answer(text) or _whole_list(text)
    if marked is None:
        return no_answer()
    items = _items(marked)
    if items is None:
        return wrong("wrong_form", marked[:200], "the answer is not one list")
    shown = ", ".join(items)
    if len(items) != len(expected):
        return wrong("different", shown, f"{len(items)} items where the truth has {len(expected)}")
    for place, (given, wanted) in enumerate(zip(items, expected, strict=True), start=1):
        if given != wanted:
            return wrong("different", shown, f"place {place} is {given!r}, not {wanted!r}")
    return right("equal", shown)


def score_graph(text: str, truth: JsonValue, meta: Meta) -> Score:
    """Score a node's name: one word, whose case and surrounding quotes do not count."""
    expected = fold(text_truth(truth, "graph"))
    stated = stated_answer(text)
    if stated is None or not fold(stated):
        return no_answer()
    if len(stated.split()) > 1:
        return wrong("wrong_form", stated[:200], "the answer is more than one word")
    given = fold(stated)
    return right("equal", given) if given == expected else wrong("different", given, f"the truth is {expected}")


def _truth_items(truth: JsonValue) -> list[str]:
    items: Any = truth
    if isinstance(truth, str):
        try:
            items = read_literal(truth, bare_words=True)
        except Unreadable as exc:
            raise GradingError(f"the truth of an ordering problem is no list: {exc}") from exc
    if not isinstance(items, list | tuple) or not items:
        raise GradingError(f"the truth of an ordering problem must be a list, not {describe(items)}")
    return [fold(str(item)) for item in cast(list[Any], items)]


def _whole_list(text: str) -> str | None:
    """Return the visible text when it is nothing but a list in brackets."""
    visible = (visible_text(text) or "").strip()
    return visible if visible.startswith("[") and visible.endswith("]") else None


def _items(answer: str) -> list[str] | None:
    """Read ``['a', 'b']``, ``[a, b]``, ``a, b``, ``a > b`` or one item a line; None = something else, or several lists."""
    answer = answer.strip()
    if "[" in answer or "(" in answer:
        opening = "[" if "[" in answer else "("
        lists = [found for found in find_literals(answer, opening, bare_words=True) if isinstance(found, list | tuple)]
        distinct = {tuple(fold(str(item)) for item in cast(list[Any], found)) for found in lists}
        return list(distinct.pop()) if len(distinct) == 1 else None
    lines = [_NUMBERED.sub("", line) for line in answer.splitlines() if line.strip()]
    parts = lines if len(lines) > 1 else re.split(r"\s*(?:,|;|->|→|>|<)\s*", answer)
    items = [fold(part) for part in parts[: MAX_ITEMS + 1]]
    return items if all(items) and len(items) <= MAX_ITEMS else None
