"""How far a run is, on standard error: a bar on a terminal, elsewhere a line every few seconds."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from ..schemas.evaluation import Outcome, Status

LINE_EVERY_S = 10.0


class RunProgress:
    """Counts, accuracy so far, time left."""

    def __init__(self, *, quiet: bool = False) -> None:
        """`quiet`: show nothing but notes."""
        self._console = Console(stderr=True, highlight=False)
        self._quiet = quiet
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._target = ""
        self._begin("", 0)

    def __enter__(self) -> Self:
        if self._console.is_terminal and not self._quiet:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[facts]}"),
            )
            self._bar = Progress(*columns, console=self._console, transient=True)
            self._task = self._bar.add_task("", total=None, facts="")
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def target(self, name: str, *, total: int, before: list[Outcome]) -> None:
        """Begin with a target; `before`: what is there already."""
        self._begin(name, total)
        for outcome in before:
            self._count(outcome)
        self._earlier = self._done
        if self._bar is not None:
            self._bar.update(self._task, description=name, total=total, completed=self._done, facts=self._facts())

    def add(self, outcome: Outcome, *, cached: bool) -> None:
        """Show one more outcome."""
        self._count(outcome)
        self._earlier += cached
        if self._bar is not None:
            self._bar.update(self._task, completed=self._done, facts=self._facts())
        elif not self._quiet and time.monotonic() - self._last_line >= LINE_EVERY_S:
            self._last_line = time.monotonic()
            self.note(f"{self._target}: {self._done:,} of {self._total:,}, {self._facts()}")

    def end_target(self) -> None:
        """Say what the target came to."""
        if not self._quiet:
            self.note(f"{self._target}: {self._done:,} of {self._total:,}, {self._facts(ended=True)}")

    def note(self, text: str) -> None:
        """Say one thing."""
        if self._bar is not None:
            self._bar.console.print(text, markup=False, soft_wrap=True)
        else:
            print(text, file=sys.stderr, flush=True)

    def _begin(self, name: str, total: int) -> None:
        self._target, self._total = name, total
        self._done = self._right = self._earlier = self._errors = 0
        self._began = self._last_line = time.monotonic()

    def _count(self, outcome: Outcome) -> None:
        self._done += 1
        self._right += outcome.final.correct
        self._errors += outcome.final.status in (Status.errored, Status.ungraded)

    def _facts(self, *, ended: bool = False) -> str:
        parts = [f"{100 * self._right / self._done:.1f} % right so far" if self._done else "none yet"]
        if ended and self._done:
            parts = [f"{100 * self._right / self._done:.1f} % right"]
        if self._errors:
            parts.append(f"{self._errors:,} errored or ungraded")
        fresh = self._done - self._earlier
        seconds = time.monotonic() - self._began
        if fresh and not ended:
            parts.append(f"{duration((self._total - self._done) * seconds / fresh)} left")
        elif fresh:
            parts.append(f"{fresh:,} asked in {duration(seconds)}")
        return ", ".join(parts)


def duration(seconds: float) -> str:
    """Return a time in words."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
