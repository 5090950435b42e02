"""What was paid for once is not paid for again: outcomes by content, in one SQLite file for all runs.

The key is made of all that decides an answer: the problem's text, the model with its revision, server and place, the backends of
all roles with their settings, the policy, the sampling with its seed, the templates and the repeat. Errors are not kept. What is
found is graded anew where the grader, the truth or the judge differs, and kept under each grading.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from pathlib import Path
from types import TracebackType
from typing import Self

from pydantic import ValidationError

from ..schemas.errors import ConfigurationError
from ..schemas.evaluation import Item, Outcome, Status, TargetSpec

NAME = "evaluation-cache.db"
BUSY_S = 30.0
NOT_OF_CONTENT = {"name", "row"}
"""Labels of a target, which change no answer."""
NOT_KEPT = (Status.errored, Status.ungraded)


def content_key(item: Item, spec: TargetSpec, repeat: int) -> str:
    """Return the hash of a question: equal where the same is asked of the same in the same way."""
    asked = {
        "item": item.task.id,
        "prompt": item.task.prompt,
        "target": spec.model_dump(mode="json", exclude=NOT_OF_CONTENT),
        "repeat": repeat,
    }
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


def grading_key(item: Item, grader: str, judge: str | None) -> str:
    """Return the hash of how an answer is graded."""
    task = item.task.model_dump(mode="json", include={"domain", "source", "truth", "meta"})
    return hashlib.sha256(json.dumps([task, grader, judge], sort_keys=True).encode()).hexdigest()


class Cache:
    """The file, open. Several runs may have it open at once."""

    def __init__(self, path: Path) -> None:
        """Raises ConfigurationError when the file cannot be used."""
        self._path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute(
                "CREATE TABLE IF NOT EXISTS outcomes "
                "(key TEXT NOT NULL, grading TEXT NOT NULL, outcome TEXT NOT NULL, PRIMARY KEY (key, grading))"
            )
        except (sqlite3.Error, OSError) as exc:
            raise ConfigurationError(
                f"the cache {path} cannot be used ({exc}): name another file with --cache, or use none with --no-cache"
            ) from exc

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def get(self, key: str, grading: str) -> tuple[str, Outcome] | None:
        """Return how the outcome was graded, in this way if it ever was, and the outcome; None = there is none that can be read."""
        row = self._connection.execute(
            "SELECT grading, outcome FROM outcomes WHERE key = ? ORDER BY grading = ? DESC LIMIT 1", (key, grading)
        ).fetchone()
        if row is None:
            return None
        try:
            return str(row[0]), Outcome.model_validate_json(row[1])
        except ValidationError:
            return None  # of another version

    def put(self, key: str, grading: str, outcome: Outcome) -> None:
        """Keep an outcome; one without a verdict is not kept."""
        if outcome.final.status in NOT_KEPT or any(one.status is Status.ungraded for one in outcome.candidates):
            return
        self._connection.execute(
            "INSERT OR REPLACE INTO outcomes VALUES (?, ?, ?)", (key, grading, outcome.model_dump_json())
        )
