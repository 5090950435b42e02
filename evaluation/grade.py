"""What came back, graded: every sample, the chosen one, and why there is none. A check that crashes is told apart from a wrong answer."""

from __future__ import annotations

import time

from ..grading.score import Judge, score_task
from ..schemas.completion import TokenUsage
from ..schemas.errors import ConfigurationError, GradingError
from ..schemas.evaluation import Graded, Item, Outcome, Spent, Status
from ..schemas.scores import Score, Task
from .budget import GRADER
from .judge import CountedJudge
from .samples import CANCELLED
from .targets.base import Answered, Sample

LENGTH = "length"
REASON_CHARS_MAX = 200


async def grade(
    item: Item, target: str, repeat: int, answered: Answered, *, seconds: float, judge: CountedJudge | None
) -> Outcome:
    """Return the line of a run for what a target answered. Never raises for what stands in a text, or for a check that crashes."""
    counted = None if judge is None else judge.fresh()
    graded = [await _graded(item.task, sample, counted) for sample in answered.samples]
    if answered.chosen is not None:
        final = graded[answered.chosen]
    else:
        usage = sum((sample.usage for sample in answered.samples), TokenUsage())
        final = Graded(status=answered.status or Status.errored, reason=answered.reason, usage=usage)
    spent = dict(answered.spent)
    if counted is not None and counted.spent.calls:
        spent[GRADER] = counted.spent
    return Outcome(
        item=item.task.id,
        target=target,
        repeat=repeat,
        final=final,
        candidates=tuple(graded),
        chosen=answered.chosen,
        comparisons=answered.comparisons,
        planned=answered.planned,
        stopped_early=answered.stopped_early,
        spent=spent,
        seconds=seconds,
        at=time.time(),
    )


async def regrade(item: Item, outcome: Outcome, *, judge: CountedJudge | None) -> Outcome:
    """Return the outcome with all that has a text graded anew, and with nothing spent but on the judge: the rest was paid before.

    Its seconds stay those of the asking.
    """
    counted = None if judge is None else judge.fresh()
    graded = [await _anew(item.task, one, counted) for one in outcome.candidates]
    final = graded[outcome.chosen] if outcome.chosen is not None else outcome.final
    spent: dict[str, Spent] = {GRADER: counted.spent} if counted is not None and counted.spent.calls else {}
    return outcome.model_copy(update={"final": final, "candidates": tuple(graded), "spent": spent, "at": time.time()})


async def _graded(task: Task, sample: Sample, judge: Judge | None) -> Graded:
    known = Graded(
        status=sample.status or Status.ungraded,
        reason=sample.reason,
        text=sample.visible,
        seed=sample.seed,
        usage=sample.usage,
        finish_reason=sample.finish_reason,
    )
    return known if sample.status is not None else await _checked(task, sample.text, known, judge)


async def _anew(task: Task, graded: Graded, judge: Judge | None) -> Graded:
    if graded.status in (Status.errored, Status.refused) or graded.finish_reason == CANCELLED:
        return graded
    return await _checked(task, graded.text, graded, judge)


async def _checked(task: Task, text: str, known: Graded, judge: Judge | None) -> Graded:
    try:
        score = await score_task(task, text, judge=judge)
    except (GradingError, ConfigurationError) as exc:
        reason = f"{exc.code}: {exc}"[:REASON_CHARS_MAX]
        return known.model_copy(update={"status": Status.ungraded, "reason": reason, "value": 0.0, "correct": False})
    return known.model_copy(
        update={
            "status": _status(score, known.finish_reason),
            "answer": score.answer,
            "value": score.value,
            "correct": score.correct,
            "reason": score.reason,
        }
    )


def _status(score: Score, finish_reason: str | None) -> Status:
    if score.answer is not None or score.correct:
        return Status.graded
    return Status.truncated if finish_reason == LENGTH else Status.unparsed
