"""GPQA-Diamond and Humanity's Last Exam, as published. Their canary strings stay in the files: no item, prompt or log has them.

Fields. GPQA: `gpqa_diamond.csv` of `Idavidrein/gpqa` (`Record ID`, `Question`, `Correct Answer`, `Incorrect Answer 1` to `3`, `High-level
domain`, `Subdomain`, `Canary String`). HLE: Parquet of `cais/hle` (`id`, `question`, `image`, `answer`, `answer_type`, `category`, `canary`, …).
"""

from __future__ import annotations

import random
import re

from pydantic import JsonValue

from ...schemas.errors import InvalidRequest
from ...schemas.evaluation import Item
from ...schemas.scores import Domain, Task
from .files import Loaded, Publication, Row, read_source, text_field
from .options import SuiteOptions

LETTERS = "ABCD"
_CHOICE = re.compile(r"[A-Z]")

GPQA = "gpqa_diamond"
GPQA_PROMPT = "{question}\n\n{choices}\n\nAnswer with the letter of the right choice."
HLE = "hle"


def gpqa_diamond(options: SuiteOptions) -> Loaded:
    """Return the problems with their choices shuffled, each by the seed and its own id. Raises InvalidRequest."""
    source = read_source(GPQA, Publication("Idavidrein/gpqa", ("gpqa_diamond.csv",)), options)
    items = tuple(_gpqa_item(place, row, seed=options.seed or 0) for place, row in source.rows)
    return Loaded(items, source.origin)


def _gpqa_item(place: str, row: Row, *, seed: int) -> Item:
    record = text_field(GPQA, place, row, "Record ID")
    right = text_field(GPQA, place, row, "Correct Answer")
    choices = [right, *(text_field(GPQA, place, row, f"Incorrect Answer {number}") for number in (1, 2, 3))]
    random.Random(f"{GPQA}/{seed}/{record}").shuffle(choices)
    listed = "\n".join(f"({letter}) {choice}" for letter, choice in zip(LETTERS, choices, strict=True))
    question = text_field(GPQA, place, row, "Question")
    task = Task(
        id=f"{GPQA}-{record}",
        domain=Domain.science,
        source=GPQA,
        prompt=GPQA_PROMPT.format(question=question, choices=listed),
        truth=LETTERS[choices.index(right)],
        meta={"choices": list[JsonValue](choices)},
    )
    return Item(task=task, subset=str(row.get("High-level domain") or "unknown"))


def hle(options: SuiteOptions) -> Loaded:
    """Return the problems that need no picture. Raises InvalidRequest."""
    source = read_source(HLE, Publication("cais/hle", ("data/test-*.parquet",)), options)
    items = tuple(_hle_item(place, row) for place, row in source.rows if not row.get("image"))
    return Loaded(items, source.origin)


def _hle_item(place: str, row: Row) -> Item:
    kind = text_field(HLE, place, row, "answer_type")
    answer = text_field(HLE, place, row, "answer")
    if kind not in ("exactMatch", "multipleChoice"):
        raise InvalidRequest(f"{HLE}: {place}: unknown answer_type {kind!r}")
    # The choices stand in the question, in forms of many kinds; a few of these answers are no letter.
    choice = kind == "multipleChoice" and _CHOICE.fullmatch(answer) is not None
    task = Task(
        id=f"{HLE}-{text_field(HLE, place, row, 'id')}",
        domain=Domain.science,
        # Each way of checking has a source of its own: a letter by rule, a free answer by equivalence and then by a judge.
        source=f"{HLE}_choice" if choice else HLE,
        prompt=text_field(HLE, place, row, "question"),
        truth=answer,
    )
    return Item(task=task, subset=str(row.get("category") or "unknown"))
