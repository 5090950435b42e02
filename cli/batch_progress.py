"""How far a batch is, on standard error: a bar on a terminal, elsewhere a line every few seconds."""

import sys
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from .batch_output import Counts
from .terminal import plain

LINE_EVERY_S = 5.0
BAD_LINES_SHOWN = 20
"""Bad lines that are told one by one; each has its error line in the output anyway."""


class BatchProgress:
    """Shows counts, rate and time left; owns nothing."""

    def __init__(self, *, total: int | None, counts: Counts) -> None:
        """`total`: input lines, None = not known (standard input). `counts`: what was finished by earlier runs."""
        self._total = total
        self._earlier = counts.done
        self._began = self._last_line = time.monotonic()
        self._bad = 0
        self._console = Console(stderr=True, highlight=False)
        self._bar: Progress | None = None
        self._task = TaskID(0)

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[facts]}"),
                TimeElapsedColumn(),
            )
            bar = Progress(*columns, console=self._console, transient=True)
            self._task = bar.add_task("solving", total=self._total, completed=self._earlier, facts="")
            bar.start()
            self._bar = bar
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    @property
    def seconds(self) -> float:
        """Since the beginning of this run."""
        return time.monotonic() - self._began

    def update(self, counts: Counts) -> None:
        """Show new counts; call it often."""
        if self._bar is not None:
            self._bar.update(self._task, completed=counts.done, facts=self._facts(counts))
            return
        now = time.monotonic()
        if now - self._last_line >= LINE_EVERY_S:
            self._last_line = now
            of = f" of {self._total}" if self._total is not None else ""
            self.note(f"{counts.done}{of} done, {self._facts(counts)}")

    def note(self, text: str) -> None:
        """Say one thing, above the bar."""
        if self._bar is not None:
            self._bar.console.print(plain(text), markup=False, soft_wrap=True)
        else:
            print(plain(text), file=sys.stderr, flush=True)

    def bad_line(self, number: int, reason: str) -> None:
        """Tell of a bad line by its number."""
        self._bad += 1
        if self._bad <= BAD_LINES_SHOWN:
            self.note(f"line {number}: {reason}")
        elif self._bad == BAD_LINES_SHOWN + 1:
            self.note("more bad lines follow; each has its error line in the output")

    def _facts(self, counts: Counts) -> str:
        rate = (counts.done - self._earlier) / max(self.seconds, 1e-6)
        left = "" if self._total is None or not rate else f", {_duration((self._total - counts.done) / rate)} left"
        return f"{counts.failed} failed, {rate:.1f} jobs/s{left}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
