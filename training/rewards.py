"""The reward of GRPO: grading's score of each answer. A check that failed is counted and its answer left out, never zero."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Any

from ..grading.blocking import run
from ..grading.score import score_task
from ..schemas.errors import GradingError
from ..schemas.scores import Score, Task

UNJUDGED = "unjudged"
"""Reason of a score that only a judge could have decided: no zero to learn from, since no judge is asked here."""


class Rewards:
    """Grades answers by the tasks that they belong to, and counts what came of it."""

    __name__ = "k2think"
    """By which the trainer calls its figures."""

    def __init__(self, tasks: Sequence[Task], *, held_out_from: int, at_once: int, opening: str = "") -> None:
        """`tasks`: those to train on, and from index `held_out_from` those held out; `at_once`: answers graded together;
        `opening`: how the prompt begins every answer, which its text then lacks."""
        self._tasks = tasks
        self._held_out_from = held_out_from
        self._at_once = at_once
        self._opening = opening
        self._tallies = {False: _Tally(), True: _Tally()}

    def __call__(self, *, completions: Sequence[Any], index: Sequence[int], **kwargs: Any) -> list[float | None]:
        """Return each answer's reward; None = it could not be decided (its check failed, or takes a judge) and teaches nothing.

        `index`: place of each answer's task. Raises GradingError when not one of them could be checked.
        """
        texts = [self._opening + _text(completion) for completion in completions]
        tasks = [self._tasks[place] for place in index]
        outcomes = run(self._grade(tasks, texts))
        for place, task, outcome in zip(index, tasks, outcomes, strict=True):
            self._tallies[place >= self._held_out_from].add(task, outcome)
        failures = [outcome for outcome in outcomes if isinstance(outcome, GradingError)]
        if failures and len(failures) == len(outcomes):
            raise GradingError(
                f"not one of {len(outcomes)} answers could be checked, so nothing would be learnt ({failures[0]}): put that "
                "right and go on with --resume"
            ) from failures[0]
        return [_value(outcome) for outcome in outcomes]

    def figures(self, held_out: bool) -> dict[str, Any]:
        """Return what was counted since the last call."""
        tally = self._tallies[held_out]
        self._tallies[held_out] = _Tally()
        return tally.figures()

    async def _grade(self, tasks: Sequence[Task], texts: Sequence[str]) -> list[Score | GradingError]:
        places = asyncio.Semaphore(self._at_once)

        async def one(task: Task, text: str) -> Score | GradingError:
            async with places:
                try:
                    return await score_task(task, text)
                except GradingError as exc:
                    return exc

        return await asyncio.gather(*(one(task, text) for task, text in zip(tasks, texts, strict=True)))


class _Tally:
    def __init__(self) -> None:
        self._values: dict[str, list[float]] = {}
        self._right = 0
        self._unjudged = 0
        self._reasons: Counter[str] = Counter()
        self._errors: Counter[str] = Counter()

    def add(self, task: Task, outcome: Score | GradingError) -> None:
        if isinstance(outcome, GradingError):
            self._errors[outcome.code] += 1
            return
        if outcome.reason == UNJUDGED:
            self._unjudged += 1
            return
        self._values.setdefault(task.domain.value, []).append(outcome.value)
        self._right += outcome.correct
        self._reasons[outcome.reason] += 1

    def figures(self) -> dict[str, Any]:
        graded = sum(len(values) for values in self._values.values())
        errors = self._errors.total()
        answers = graded + errors + self._unjudged
        if not answers:
            return {}
        return {
            "answers": answers,
            **({"correct_share": round(self._right / graded, 4)} if graded else {}),
            "grading_errors": errors,
            **({"errors_by_code": dict(self._errors)} if errors else {}),
            **({"unjudged": self._unjudged} if self._unjudged else {}),
            "reasons": dict(self._reasons.most_common()),
            "reward_by_domain": {name: round(sum(v) / len(v), 4) for name, v in sorted(self._values.items())},
        }


def _value(outcome: Score | GradingError) -> float | None:
    return None if isinstance(outcome, GradingError) or outcome.reason == UNJUDGED else outcome.value


def _text(completion: Any) -> str:
    # Conversational prompts come back as a list with one message.
    return completion if isinstance(completion, str) else str(completion[0]["content"])
