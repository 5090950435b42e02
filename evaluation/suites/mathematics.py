"""AIME, HMMT and Omni-MATH-HARD, as published.

Fields. AIME 2024: `HuggingFaceH4/aime_2024` (`id`, `problem`, `answer`, `url`, `year`) or `Maxwell-Jia/AIME_2024` (`ID`, `Problem`,
`Answer`). AIME 2025 and HMMT February 2025: MathArena's (`problem_idx`, `problem`, `answer`, `problem_type`). Omni-MATH:
`KbsdJames/Omni-MATH` (`domain`, `difficulty`, `problem`, `solution`, `answer`, `source`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, cast

from ...schemas.errors import InvalidRequest
from ...schemas.evaluation import Item
from ...schemas.scores import Domain, Task
from .files import Loaded, Publication, Row, field, read_source, text_field
from .options import SuiteOptions

Loader = Callable[[SuiteOptions], Loaded]

OMNI_HARD_FROM = 9.0
"""Difficulty of Omni-MATH, 1 to 10, from which a problem counts as hard. The published subset of 173 problems is not named anywhere: unknown."""


def contest(name: str, publication: Publication, *, year: str | None = None) -> Loader:
    """Return the loader of a contest whose answers are checked by equivalence; `year`: of a set that holds several."""

    def load(options: SuiteOptions) -> Loaded:
        source = read_source(name, publication, options)
        items: list[Item] = []
        for place, row in source.rows:
            if year is not None and str(row.get("year") or year) != year:
                continue
            number = text_field(name, place, row, "problem_idx", "id", "ID", "unique_id")
            items.append(
                Item(
                    task=Task(
                        id=f"{name}-{number}",
                        domain=Domain.math,
                        source=name,
                        prompt=text_field(name, place, row, "problem", "Problem", "question"),
                        truth=text_field(name, place, row, "answer", "Answer"),
                    ),
                    subset=_kind(row) or name,
                )
            )
        return Loaded(tuple(items), source.origin)

    return load


def omni_math_hard(options: SuiteOptions) -> Loaded:
    """Return Omni-MATH's problems of difficulty OMNI_HARD_FROM and above."""
    name = "omni_math_hard"
    source = read_source(name, Publication("KbsdJames/Omni-MATH", ("test.jsonl",)), options)
    items: list[Item] = []
    for place, row in source.rows:
        difficulty: object = field(name, place, row, "difficulty")
        if not isinstance(difficulty, int | float):
            raise InvalidRequest(f"{name}: {place}: the difficulty is no number")
        if difficulty < OMNI_HARD_FROM:
            continue
        problem = text_field(name, place, row, "problem")
        task = Task(
            # The rows have no ids; a place in the file would change with the file.
            id=f"{name}-{hashlib.sha256(problem.encode()).hexdigest()[:12]}",
            domain=Domain.math,
            source=name,
            prompt=problem,
            truth=text_field(name, place, row, "answer"),
        )
        items.append(Item(task=task, subset=_topic(row.get("domain"))))
    return Loaded(tuple(items), source.origin)


def _kind(row: Row) -> str | None:
    """MathArena's `problem_type`: a list of topics, of which the first is taken."""
    value: Any = row.get("problem_type")
    if isinstance(value, list) and value:
        value = cast(list[Any], value)[0]
    return value if isinstance(value, str) and value else None


def _topic(domain: Any) -> str:
    """The second part of `Mathematics -> Algebra -> …`; a problem with several counts for its first."""
    first: Any = cast(list[Any], domain)[0] if isinstance(domain, list) and domain else domain
    parts = [part.strip() for part in str(first or "").split("->")]
    return next((part for part in parts[1:] if part), parts[0] or "unknown")
