"""The texts in a record that problems are looked for in: of our own types, of the published sets, and of sets not known.

What is asked is known by the names of fields; all that is said is every text that a record holds, whatever its field is called.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, cast

from .reading import Row

PROBLEM_FIELDS = (
    *("prompt", "problem", "Problem", "question", "Question", "question_content", "problem_description_main"),
    *("query", "instruction", "input", "raw_prompt", "text", "content"),
)
"""Fields that hold a problem in one set or another, the evaluation sets among them."""
TURN_FIELDS = ("messages", "conversations", "prompt", "chosen", "rejected")
"""Fields that hold a list of turns."""
SAID_FIELDS = ("content", "value")
"""Fields of a turn that hold what is said: their texts are named by the turn alone."""
_ASKING = ("user", "human", "system")


def texts_of(row: Row, *, problems_only: bool) -> Iterator[tuple[str, str]]:
    """Yield (place, text) of a record: every text in it, or with `problems_only` those that ask.

    Where no field that asks is known, every text at the top of the record.
    """
    yield from _asked(row) if problems_only else _all_texts(row)


def _all_texts(row: Row) -> Iterator[tuple[str, str]]:
    """Yield (place, text) of all that stands in a record, however deep, in its order."""
    left: list[tuple[str, object]] = [("", row)]
    while left:
        place, value = left.pop()
        if isinstance(value, str):
            if value.strip():
                yield place, value
        elif isinstance(value, dict):
            fields = cast(dict[Any, object], value)
            left += [(_named(place, key), inner) for key, inner in reversed(fields.items())]
        elif isinstance(value, list | tuple):
            values = list(enumerate(cast(Sequence[object], value), start=1))
            left += [(_named(place, number), inner) for number, inner in reversed(values)]


def _named(place: str, part: object) -> str:
    return place if place and part in SAID_FIELDS else f"{place} {part}".lstrip()


def _asked(row: Row) -> Iterator[tuple[str, str]]:
    inner = row.get("task")
    if isinstance(inner, dict):
        row = cast(Row, inner)
    found = False
    for field in TURN_FIELDS:
        for place, asked, text in _turns(field, row.get(field)):
            found = True
            if asked:
                yield place, text
    for field in PROBLEM_FIELDS:
        text = row.get(field)
        if isinstance(text, str) and text.strip():
            found = True
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
