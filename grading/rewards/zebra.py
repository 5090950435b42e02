"""Zebra puzzles: a table with a row for each house, credited cell by cell.

The column that only numbers the rows (1, 2, 3, …) earns nothing: it is known before the puzzle is begun.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

from pydantic import JsonValue

from ...schemas.errors import GradingError
from ...schemas.scores import Score
from ..extract import visible_text
from ..normal import fold
from .final import Meta, describe, marked_answer, no_answer, right, wrong
from .literal import find_literals, read_truth

MAX_CELLS = 10_000


@dataclass(frozen=True, slots=True)
class _Table:
    header: tuple[str, ...]
    """Names of the columns, folded; empty = not told."""
    rows: tuple[tuple[str, ...], ...]
    """Cells, folded."""


def score_zebra(text: str, truth: JsonValue, meta: Meta) -> Score:
    """Score a table ``{"header": […], "rows": [[…], …]}``, JSON or Python, over any number of lines.

    Columns are matched by their names and rows by their number, where both have them; otherwise by place. meta:
    `partial` (default true): the value is the share of right cells; false = all or nothing.
    """
    expected = _truth_table(truth)
    marked = marked_answer(text)
    if marked is None:
        visible = (visible_text(text) or "").strip()
        marked = visible if visible.startswith("{") and visible.endswith("}") else None
    if marked is None:
        return no_answer()
    tables = [table for value in find_literals(marked, "{[") if (table := _as_table(value)) is not None]
    if not tables or any(table != tables[0] for table in tables):
        return wrong("wrong_form", marked[:200], "the answer is not one table with header and rows")
    given = _aligned(tables[0], expected)
    shown = ";".join(",".join(row) for row in given.rows)
    counted = [c for c in range(len(expected.header)) if not _only_numbers(expected, c)] or [0]
    total = len(counted) * max(len(expected.rows), len(given.rows))
    off = [
        (r, c)
        for r, row in enumerate(expected.rows)
        for c in counted
        if r >= len(given.rows) or c >= len(given.rows[r]) or given.rows[r][c] != row[c]
    ]
    misshapen = len(given.rows) != len(expected.rows) or any(len(row) != len(expected.header) for row in given.rows)
    if not off and not misshapen:
        return right("equal", shown)
    hit = len(counted) * len(expected.rows) - len(off)
    share = hit / total if meta.get("partial", True) is not False else 0.0
    detail = f"{hit} of {total} cells are right"
    if off:
        detail += f"; the first that is not: row {off[0][0] + 1}, {expected.header[off[0][1]]}"
    return wrong("wrong_shape" if misshapen else "different", shown, detail, value=min(share, 1.0))


def _truth_table(truth: JsonValue) -> _Table:
    table = _as_table(read_truth(truth, "a zebra puzzle"))
    if table is None or not table.header or any(len(row) != len(table.header) for row in table.rows):
        raise GradingError(f"the truth of a zebra puzzle must be a table with header and rows, not {describe(truth)}")
    return table


def _as_table(value: Any) -> _Table | None:
    """Read ``{"header": …, "rows": …}``, or a list of objects with one key for each column."""
    if isinstance(value, list):
        return _from_objects(cast(list[Any], value))
    if not isinstance(value, dict):
        return None
    named = {fold(str(key)): item for key, item in cast(dict[Any, Any], value).items()}
    header, rows = named.get("header", []), named.get("rows")
    if not isinstance(header, list | tuple) or not isinstance(rows, list | tuple) or not rows:
        return None
    if all(isinstance(row, dict) for row in cast(list[Any], rows)):
        return _from_objects(cast(list[Any], rows))
    if not all(isinstance(row, list | tuple) for row in cast(list[Any], rows)):
        return None
    cells = tuple(tuple(_fold(cell) for cell in cast(list[Any], row)) for row in cast(list[Any], rows))
    if sum(map(len, cells)) > MAX_CELLS:
        return None
    return _Table(tuple(_fold(name) for name in cast(list[Any], header)), cells)


def _from_objects(rows: list[Any]) -> _Table | None:
    if not rows or not all(isinstance(row, dict) for row in rows):
        return None
    header = tuple(_fold(key) for key in rows[0])
    cells: list[tuple[str, ...]] = []
    for row in cast(list[dict[Any, Any]], rows):
        named = {_fold(key): _fold(cell) for key, cell in row.items()}
        if set(named) != set(header):
            return None
        cells.append(tuple(named[name] for name in header))
    return _Table(header, tuple(cells)) if sum(map(len, cells)) <= MAX_CELLS else None


def _fold(cell: object) -> str:
    return fold(str(cell)).replace("_", "")


def _aligned(given: _Table, expected: _Table) -> _Table:
    """Put columns and rows in the order of the truth, where their names and numbers say how."""
    rows = given.rows
    width = len(expected.header)
    if len(set(given.header)) == width and set(given.header) == set(expected.header):
        places = [given.header.index(name) for name in expected.header]
        rows = tuple(tuple(row[p] for p in places) if len(row) == width else row for row in rows)
    for column in range(width):
        if _only_numbers(expected, column) and all(len(row) > column for row in rows):
            by_number = {row[column]: row for row in rows}
            if len(by_number) == len(rows) and set(by_number) == {row[column] for row in expected.rows}:
                rows = tuple(by_number[row[column]] for row in expected.rows)
            break
    return _Table(expected.header, rows)


def _only_numbers(table: _Table, column: int) -> bool:
    return [row[column] for row in table.rows] == [str(number) for number in range(1, len(table.rows) + 1)]
