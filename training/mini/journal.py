"""The journal of a stage of training: progress lines for a person, ``metrics.jsonl`` for the curves."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any


class Journal:
    """Progress lines on standard output and rows of ``metrics.jsonl``, of one stage."""

    def __init__(self, path: Path, stage: str, *, step: int, wall_s: float) -> None:
        """``step`` and ``wall_s`` are those of the checkpoint that the stage goes on from; later rows are forgotten."""
        self._path, self._stage = path, stage
        self._begun = time.monotonic() - wall_s
        rows = read_metrics(path) if path.exists() else []
        kept = [row for row in rows if row["stage"] != stage or (step > 0 and row["step"] <= step)]
        unfinished = path.with_suffix(".partial")
        unfinished.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
        unfinished.replace(path)

    @property
    def wall_s(self) -> float:
        """Seconds since the stage began, pauses between runs left out."""
        return time.monotonic() - self._begun

    def write(self, line: str, **figures: Any) -> None:
        """Adds one row and prints ``line``."""
        row = {
            "stage": self._stage,
            **figures,
            "wall_s": round(self.wall_s, 1),
            "worker_cpu_s": round(time.process_time(), 1),
        }
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        print(f"{self._stage:5} {self.wall_s / 60:6.1f} min  {line}", flush=True)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Rows of ``metrics.jsonl`` in order; a last line cut by a kill is left out."""
    rows: list[dict[str, Any]] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows
