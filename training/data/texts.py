"""The texts in a record that problems are looked for in: of our own types, of the published sets, and of sets not known."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

from .reading import Row

PROBLEM_FIELDS = (
    *("prompt", "problem", "Problem", "question", "Question", "question_content", "problem_description_main"),
    *("query", "instruction", "raw_prompt", "text", "content"),
)
"""Fields that hold a problem in one set or another, the evaluation sets among them."""
TURN_FIELDS = ("messages", "conversations", "prompt")
"""Fields that hold a list of turns."""
_ASKING = ("user", "human", "system")


def texts_of(row: Row, *, problems_only: bool) -> Iterator[tuple[str, str]]:
    """Yield (field, text) of a record: what is asked, and unless `problems_only` what is answered.

    Where no field is known, every text at the top of the record.
    """
    inner = row.get("task")
    if isinstance(inner, dict):
        row = cast(Row, inner)
    found = False
    for field in TURN_FIELDS:
        for place, asked, text in _turns(field, row.get(field)):
            found = True
            if asked or not problems_only:
                yield place, text
    for field in PROBLEM_FIELDS:
        text = row.get(field)
        if isinstance(text, str) and text.strip():
            found = True
            yield field, text
    if not problems_only:
        for field in ("response", "answer", "solution", "completion", "output"):
            text = row.get(field)
            if isinstance(text, str) and text.strip():
                yield field, text
    if not found:
        yield from ((field, text) for field, text in row.items() if isinstance(text, str) and text.strip())


def _turns(field: str, value: object) -> Iterator[tuple[str, bool, str]]:
    """Yield (place, whether it asks, text) of each turn with text."""
    if not isinstance(value, list):
        return
    for number, turn in enumerate(cast(list[Any], value), start=1):
        if not isinstance(turn, dict):
            continue
        said = cast(Row, turn)
        text = said.get("content", said.get("value"))
        if isinstance(text, str) and text.strip():
            yield f"{field} {number}", said.get("role", said.get("from")) in _ASKING, text
