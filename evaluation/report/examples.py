"""Answers that are not right: how many of each reason, and a few to look at."""

from __future__ import annotations

import hashlib
import json
from collections import Counter

from ...schemas.evaluation import Outcome, Status
from .model import Example, Reason
from .sheet import UNKNOWN_SUBSET, Sheet

OF_EACH_KIND = 3
"""Examples of each status."""
REASONS_MAX = 20
PROMPT_CHARS_MAX = 600
TEXT_CHARS_MAX = 600
ANSWER_CHARS_MAX = 200


def reasons_of(sheet: Sheet) -> tuple[Reason, ...]:
    """Count the reasons of answers that are not right."""
    numbers = Counter((outcome.final.status, outcome.final.reason) for outcome in sheet.outcomes if not _right(outcome))
    ordered = sorted(numbers.items(), key=lambda entry: (-entry[1], entry[0]))
    return tuple(
        Reason(status=status, reason=reason, answers=number) for (status, reason), number in ordered[:REASONS_MAX]
    )


def examples_of(sheet: Sheet) -> tuple[Example, ...]:
    """Pick a few answers that are not right, of each status: in an order that nobody chose."""
    taken: Counter[Status] = Counter()
    found: list[Example] = []
    for outcome in sorted(sheet.outcomes, key=_lot):
        if not _right(outcome) and taken[outcome.final.status] < OF_EACH_KIND:
            taken[outcome.final.status] += 1
            found.append(_example(sheet, outcome))
    return tuple(sorted(found, key=lambda example: list(Status).index(example.status)))


def _right(outcome: Outcome) -> bool:
    return outcome.final.status is Status.graded and outcome.final.correct


def _lot(outcome: Outcome) -> str:
    return hashlib.sha256(f"{outcome.item}/{outcome.repeat}".encode()).hexdigest()


def _example(sheet: Sheet, outcome: Outcome) -> Example:
    item, final = sheet.problems.items.get(outcome.item), outcome.final
    return Example(
        problem=outcome.item,
        subset=UNKNOWN_SUBSET if item is None else item.subset,
        repeat=outcome.repeat,
        status=final.status,
        reason=final.reason,
        prompt="" if item is None else _cut(item.task.prompt, PROMPT_CHARS_MAX),
        truth="" if item is None else _cut(json.dumps(item.task.truth, ensure_ascii=False), ANSWER_CHARS_MAX),
        answer=None if final.answer is None else _cut(final.answer, ANSWER_CHARS_MAX),
        text=final.text if len(final.text) <= TEXT_CHARS_MAX else f"…{final.text[-TEXT_CHARS_MAX:]}",
    )


def _cut(text: str, chars: int) -> str:
    return text if len(text) <= chars else f"{text[:chars]}…"
