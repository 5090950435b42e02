"""The hand-made cases of the rewards: tables in tests/grading/rewards/*.tsv."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

FOLDER = Path(__file__).parents[1] / "grading" / "rewards"
FILES = ("math", "science", "logic", "simulation", "table", "procedural")


class Case(NamedTuple):
    """One line of a table."""

    file: str
    source: str
    text: str
    truth: Any
    meta: dict[str, Any]
    value: float | None
    """None = the check must fail, since the truth is no reference."""
    reason: str
    why: str


def read_cases() -> list[Case]:
    """Return the cases of every file, in order."""
    cases: list[Case] = []
    for file in FILES:
        for line in (FOLDER / f"{file}.tsv").read_text(encoding="utf-8").splitlines():
            if line.startswith("#"):
                continue
            source, text, truth, meta, value, reason, why = line.split("\t")
            worth = None if value == "-" else float(value)
            cases.append(Case(file, source, _cell(text) or "", _cell(truth), _cell(meta) or {}, worth, reason, why))
    return cases


def _cell(cell: str) -> Any:
    if cell == "-":
        return None
    return json.loads(cell.removeprefix("json:")) if cell.startswith("json:") else cell.replace("⏎", "\n")
