"""Whether an answer is right, by the truth that its set gives: grading's one scoring function, many answers at once."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Generic, TypeVar

from ...grading.score import score_task
from ...schemas.errors import GradingError, SandboxUnavailable
from ...schemas.scores import Score, Task
from .choices import Verify

T = TypeVar("T")
AT_ONCE = 32
"""Answers checked at the same time; the worker processes and sandboxes have limits of their own."""


@dataclass(frozen=True, slots=True)
class Checked(Generic[T]):
    """An answer with what its check came to."""

    of: T
    """What was handed in with it."""
    score: Score | None
    """None = it was not, or could not be, checked."""
    code: str
    """`right`, `wrong`, `no_truth`, `not_checked`, or why it could not be checked."""


class Checks:
    """Checks answers in their order, AT_ONCE at a time, and remembers what they came to."""

    def __init__(self, verify: Verify) -> None:
        self.verify = verify
        self.counts: Counter[str] = Counter()

    async def run(self, answers: Iterable[tuple[T, Task | None, str]]) -> AsyncIterator[Checked[T]]:
        """Yield each (anything, task, whole text of the model) with its score, in the same order."""
        pending = iter(answers)
        while batch := list(islice(pending, AT_ONCE)):
            for checked in await asyncio.gather(*(self._one(of, task, text) for of, task, text in batch)):
                self.counts[checked.code] += 1
                yield checked

    async def _one(self, of: T, task: Task | None, text: str) -> Checked[T]:
        if task is None:
            return Checked(of, None, "no_truth")
        if self.verify is Verify.off:
            return Checked(of, None, "not_checked")
        try:
            score = await score_task(task, text)
        except SandboxUnavailable:
            return Checked(of, None, "no_sandbox")
        except GradingError:
            return Checked(of, None, "check_crashed")
        if score.reason == "unjudged":
            return Checked(of, None, "needs_judge")
        return Checked(of, score, "right" if score.correct else "wrong")

    def refuses(self, checked: Checked[T]) -> str | None:
        """Return why the answer is left out; None = it stays."""
        if checked.code == "wrong":
            return "wrong_answer"
        unchecked = checked.score is None and checked.code != "not_checked"
        return f"unchecked_{checked.code}" if unchecked and self.verify is Verify.strict else None

    def told(self) -> Mapping[str, int]:
        """Return the counts without wrong answers, which count among the rejected."""
        return {code: count for code, count in sorted(self.counts.items()) if code != "wrong"}
