"""Answers read off tables: one cell or several, numbers with a tolerance.

Guru joins several cells by ``|``; their order does not count (HiTab asks for "the" cells, not a ranking). Numbers agree
to the precision of the coarser one, or within `tolerance`; words by letters and digits; a computation that was left
undone is no answer.
"""

from __future__ import annotations

import re
from typing import Any, cast

from pydantic import JsonValue

from ...schemas.errors import GradingError
from ...schemas.scores import Score
from ..equivalence import quick
from ..extract import extract_answer
from ..normal import fold, normalise, split_top
from .final import Meta, no_answer, option, right, stated_answer, text_truth, wrong
from .math import is_undone
from .numeric import near

MAX_CELLS = 200

_LIST_MARKS = re.compile(r"\s*(?:;|\n|,\s|\band\b)\s*")
_ARTICLE = re.compile(r"^(?:the|an?)\s+", re.IGNORECASE)


def score_table(text: str, truth: JsonValue, meta: Meta) -> Score:
    """Score cells. `truth` is text (``a|b`` for several), a number, or a list of these. meta: `tolerance`, relative (0)."""
    expected = _truth_cells(truth)
    tolerance = option(meta, "tolerance", 0.0)
    answer = _answer(text)
    if answer is None:
        return no_answer()
    cells = _cells(answer, len(expected))
    shown = "|".join(cells)
    if len(cells) != len(expected):
        return wrong("different", shown, f"{len(cells)} cells where the truth has {len(expected)}")
    fits = [[_same_cell(cell, reference, tolerance) for reference in expected] for cell in cells]
    missing = _unmatched(fits)
    if missing is None:
        return right("equal", shown)
    if any(is_undone(cells[missing], reference) and quick(cells[missing], reference) for reference in expected):
        return wrong("undone", shown, "a computation that was left undone is not an answer")
    return wrong("different", shown, f"no cell of the truth is {cells[missing]!r}")


def _truth_cells(truth: JsonValue) -> list[str]:
    parts: list[Any] = cast(list[Any], truth) if isinstance(truth, list) else [truth]
    if isinstance(truth, str):
        parts = [part for part in truth.split("|") if part.strip()]
    if not 0 < len(parts) <= MAX_CELLS:
        raise GradingError(f"the truth of a table problem must have 1 to {MAX_CELLS} cells, not {len(parts)}")
    return [text_truth(part, "table") for part in parts]


def _answer(text: str) -> str | None:
    found = extract_answer(text)
    if found is not None and found.source in ("boxed", "number"):
        return found.answer
    return stated_answer(text)


def _cells(answer: str, wanted: int) -> list[str]:
    """Cut an answer at ``|``, or, where several cells are wanted and there is none, at the marks of a list."""
    answer = normalise(answer) if "\\" in answer else answer
    if "|" in answer:
        parts = answer.strip().strip("|").split("|")
    elif wanted > 1:
        parts = _LIST_MARKS.split(answer.strip("[](){} "))
        if len(parts) != wanted:
            parts = split_top(answer.strip("[](){} "), ",;")
    else:
        parts = [answer]
    return [part.strip().strip("\"'") for part in parts if part.strip()][: MAX_CELLS + 1]


def _same_cell(cell: str, reference: str, tolerance: float) -> bool:
    if fold(cell) == fold(reference) or fold(_ARTICLE.sub("", cell)) == fold(_ARTICLE.sub("", reference)):
        return True
    numeric = near(cell, reference, tolerance)
    if numeric is not None:
        return numeric
    return quick(cell, reference) is True and not is_undone(cell, reference)


def _unmatched(fits: list[list[bool]]) -> int | None:
    """Return a cell that finds no partner of its own in any pairing, or None when all of them do."""
    partner: dict[int, int] = {}

    def place(cell: int, tried: set[int]) -> bool:
        for reference, fit in enumerate(fits[cell]):
            if fit and reference not in tried:
                tried.add(reference)
                if reference not in partner or place(partner[reference], tried):
                    partner[reference] = cell
                    return True
        return False

    return next((cell for cell in range(len(fits)) if not place(cell, set())), None)
