"""ARC-like grids: rows of whole numbers, which are right when every cell is."""

from __future__ import annotations

import re
from typing import Any, cast

from pydantic import JsonValue

from ...schemas.errors import GradingError
from ...schemas.scores import Score
from ..extract import visible_text
from .final import Meta, marked_answer, no_answer, right, wrong
from .literal import find_literals, read_truth

MAX_SIDE = 200

Grid = list[list[int]]

_ROW = re.compile(r"[\[\s]*(-?\d{1,6}(?:[\s,]+-?\d{1,6})*)[\]\s,]*")


def score_grid(text: str, truth: JsonValue, meta: Meta) -> Score:
    """Score a grid. meta: `partial` (default false) pays the share of right cells of a grid of the right shape.

    It is off by default because the input of such a puzzle, handed back, often has nine right cells in ten.
    """
    expected = _truth_grid(truth)
    marked = marked_answer(text)
    if marked is None:
        visible = (visible_text(text) or "").strip()
        marked = visible if visible.startswith("[[") and visible.endswith("]]") else None
    if marked is None:
        return no_answer()
    grid = _read(marked)
    if grid is None:
        return wrong("wrong_form", marked[:200], "the answer is not one grid of whole numbers")
    shown = show_grid(grid)
    if [len(row) for row in grid] != [len(row) for row in expected]:
        return wrong("wrong_shape", shown, f"{_shape(grid)} where the truth is {_shape(expected)}")
    cells = [(r, c) for r, row in enumerate(expected) for c in range(len(row))]
    off = [(r, c) for r, c in cells if grid[r][c] != expected[r][c]]
    if not off:
        return right("equal", shown)
    share = 1 - len(off) / len(cells) if meta.get("partial") is True else 0.0
    row, column = off[0]
    detail = f"{len(off)} of {len(cells)} cells differ, the first in row {row + 1}, column {column + 1}"
    return wrong("different", shown, detail, value=share)


def show_grid(grid: Grid) -> str:
    """Return a grid in one line."""
    return ";".join(" ".join(map(str, row)) for row in grid)


def _truth_grid(truth: JsonValue) -> Grid:
    grid = _as_grid(read_truth(truth, "a grid problem"))
    if grid is None:
        raise GradingError("the truth of a grid problem must be rows of whole numbers")
    return grid


def _read(answer: str) -> Grid | None:
    """Read the one grid in `answer`; None = there is none, or several that differ."""
    grids = [grid for value in find_literals(answer, "[(") if (grid := _as_grid(value)) is not None]
    if not grids:
        grids = [grid] if (grid := _from_lines(answer)) else []
    return grids[0] if grids and all(grid == grids[0] for grid in grids) else None


def _from_lines(answer: str) -> Grid | None:
    """Read rows such as ``1 2 3`` or ``[1 2 3]``, one a line."""
    lines = [line for line in answer.splitlines() if line.strip(" \t[],")]
    rows = [_ROW.fullmatch(line) for line in lines]
    if not rows or not all(rows):
        return None
    return _as_grid([[int(cell) for cell in re.split(r"[\s,]+", row[1])] for row in rows if row])


def _as_grid(value: Any) -> Grid | None:
    """Return `value` as a grid: rows of at least one whole number each; digits in quotes count."""
    if not isinstance(value, list | tuple) or not 0 < len(cast(list[Any], value)) <= MAX_SIDE:
        return None
    grid: Grid = []
    for row in cast(list[Any], value):
        if not isinstance(row, list | tuple) or not 0 < len(cast(list[Any], row)) <= MAX_SIDE:
            return None
        cells = [_cell(cell) for cell in cast(list[Any], row)]
        if any(cell is None for cell in cells):
            return None
        grid.append([cell for cell in cells if cell is not None])
    return grid


def _cell(value: Any) -> int | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        return int(value) if re.fullmatch(r"-?\d{1,6}", value) else None
    return value if isinstance(value, int) else None


def _shape(grid: Grid) -> str:
    widths = {len(row) for row in grid}
    return f"{len(grid)} x {widths.pop()}" if len(widths) == 1 else f"{len(grid)} rows of unequal length"
