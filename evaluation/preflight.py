"""Whether the answers could be graded at all: found out before anything is paid for."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from ..grading.preflight import failing_checks
from ..grading.sandbox import run_code, sandbox_problem
from ..schemas.errors import ConfigurationError
from ..schemas.evaluation import Item
from ..schemas.scores import Domain, Task


async def check_grading(items: Sequence[Item]) -> None:
    """Try the check of every item, and all that it may need. Raises ConfigurationError that says what is missing."""
    if any(item.task.domain is Domain.code for item in items):
        await _check_sandbox([item.task for item in items])
    for task, failure in await failing_checks(item.task for item in items):
        raise ConfigurationError(
            f"answers to {task.id!r} ({task.source}) could not be graded here, so nothing was asked: {failure}"
        ) from failure


async def _check_sandbox(tasks: Sequence[Task]) -> None:
    if problem := await asyncio.to_thread(sandbox_problem):
        raise ConfigurationError(
            f"the answers are programs, which could not be run safely here, so nothing was asked: {problem}"
        )
    imports = _imports(tasks)
    if not imports:
        return
    # A test that fails since a package is missing would count as a wrong answer.
    result = await run_code(
        f"missing = []\nfor line in {imports!r}:\n    try:\n        exec(line)\n    except ImportError as exc:\n"
        "        missing.append(exc.name or line)\nprint(*sorted(set(missing)))\n"
    )
    missing = result.stdout.split()
    if missing or result.outcome != "ok":
        said = ", ".join(missing) or result.stderr.strip()[-300:] or result.outcome
        raise ConfigurationError(
            f"the tests need packages that programs in the sandbox do not have ({said}), so nothing was asked: install them with "
            "`pip install --target FOLDER …` and set K2THINK_SANDBOX__PACKAGES_DIR to that folder"
        )


def _imports(tasks: Sequence[Task]) -> list[str]:
    """The import statements that problems say their tests and answers need, each once."""
    found: dict[str, None] = {}
    for task in tasks:
        needed = task.truth.get("required_dependencies") if isinstance(task.truth, dict) else None
        for line in needed.splitlines() if isinstance(needed, str) else ():
            if line.startswith(("import ", "from ")):
                found[line.strip()] = None
    return list(found)
