"""`compute_score` as verl calls it, on rows that `export` wrote: grading's own score."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ...grading.blocking import run
from ...grading.score import score_task
from ...schemas.errors import GradingError
from ...schemas.scores import Domain, Task
from ..rewards import UNJUDGED


def compute_score(
    data_source: str, solution_str: str, ground_truth: str, extra_info: Mapping[str, Any], **more: Any
) -> dict[str, float]:
    """Return `score`, the reward, and `acc`, whether the answer counts as right (1 or 0).

    `ground_truth` and `extra_info["meta"]` are JSON; `extra_info["opening"]` is what the prompt has written of the reply.
    Raises GradingError when the check fails or takes a judge: verl leaves the group out.
    """
    task = Task(
        id=extra_info["id"],
        domain=Domain(extra_info["domain"]),
        source=data_source,
        prompt=extra_info["question"],
        truth=json.loads(ground_truth),
        meta=json.loads(extra_info["meta"]),
    )
    result = run(score_task(task, extra_info["opening"] + solution_str))
    if result.reason == UNJUDGED:
        raise GradingError(f"{task.id} of {data_source}: only a judge could decide this answer, and none is asked here")
    return {"score": result.value, "acc": float(result.correct)}
