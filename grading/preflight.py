"""Whether answers could be graded at all: found out before anything is paid for, or trained on."""

from __future__ import annotations

from collections.abc import Iterable

from ..schemas.errors import GradingError, UserError
from ..schemas.scores import Domain, Task
from .score import score_task

TRIAL = "<answer>\\frac{31}{7}+\\sqrt{x}</answer>"
"""An answer that is equal to no truth, and that only symbolic mathematics can tell from one."""


async def failing_checks(tasks: Iterable[Task]) -> list[tuple[Task, GradingError | UserError]]:
    """Try the check of every problem, and for each domain and source all that it may need; return those that fail, and how."""
    failing: list[tuple[Task, GradingError | UserError]] = []
    tried: set[tuple[Domain, str]] = set()
    for task in tasks:
        kind = task.domain, task.source
        try:
            await score_task(task, "")
            if kind not in tried:
                tried.add(kind)
                await score_task(task, TRIAL)
        except (GradingError, UserError) as exc:
            failing.append((task, exc))
    return failing
