"""The live stages of one job, on standard error."""

import sys
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.status import Status

from ..schemas.trace import EventKind, JobEvent

_STAGE_OF_STEP = {"screen_input": "screening the request", "plan": "planning", "screen_output": "screening the answer"}


class Stages:
    """Shows what a job is doing; on a terminal as one changing line, elsewhere as one line per stage."""

    def __init__(self, *, quiet: bool) -> None:
        """`quiet`: show nothing."""
        self._console = Console(stderr=True, quiet=quiet, highlight=False)
        self._live = self._console.is_terminal and not quiet
        self._status: Status | None = None
        self._started: set[str] = set()
        self._finished: set[str] = set()
        self._last = ""

    def __enter__(self) -> Self:
        if self._live:
            self._status = self._console.status("")
            self._status.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Take the line off the terminal."""
        if self._status is not None:
            self._status.stop()

    def note(self, text: str) -> None:
        """Say where things are."""
        if text == self._last:
            return
        self._last = text
        if self._status is not None:
            self._status.update(f"{text} …")
        else:
            self._console.print(text, markup=False)
            sys.stderr.flush()

    def event(self, event: JobEvent) -> None:
        """Take in one event of the job."""
        step = event.step or ""
        if event.kind is EventKind.step_started:
            self._started.add(step)
        elif event.kind in (EventKind.step_finished, EventKind.step_failed, EventKind.step_cancelled):
            self._finished.add(step)
        if event.kind is EventKind.step_retried:
            reason = event.detail.get("code") or event.detail.get("reason") or "failed"
            self.note(f"{_stage(step)}: trying again ({reason})")
        elif event.kind in (EventKind.step_started, EventKind.step_finished) and step:
            self.note(self._text(step) if self._live else _stage(step))

    def _text(self, step: str) -> str:
        stage = _stage(step)
        if not step.startswith(("generate-", "compare-")):
            return stage
        prefix = step.split("-", 1)[0]
        done = sum(name.startswith(prefix) for name in self._finished)
        total = sum(name.startswith(prefix) for name in self._started | self._finished)
        return f"{stage}: {done} of {total} done"


def _stage(step: str) -> str:
    if step.startswith("generate-"):
        return "generating candidates"
    if step.startswith("compare-"):
        return "comparing answers"
    return _STAGE_OF_STEP.get(step.split("-", 1)[0] if step.startswith("plan") else step, step)
