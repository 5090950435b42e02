"""How far a long conversion is, on standard error: one changing line on a terminal, else a line now and then."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.status import Status

REFRESH_S = 0.2
LINE_S = 10.0
"""Seconds between lines where there is no terminal."""


class Counting:
    """Shows counts while they grow."""

    def __init__(self, what: str, *, quiet: bool = False) -> None:
        """`what` is being done; `quiet`: show nothing."""
        self._what = what
        self._console = Console(stderr=True, quiet=quiet, highlight=False, markup=False)
        self._status: Status | None = None
        self._next = time.monotonic() + LINE_S

    def __enter__(self) -> Self:
        if self._console.is_terminal and not self._console.quiet:
            self._status = self._console.status(self._what)
            self._status.start()
            self._next = 0.0
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._status is not None:
            self._status.stop()

    def tell(self, **counts: int) -> None:
        """Show the counts, unless they were shown a moment ago."""
        now = time.monotonic()
        if now < self._next:
            return
        text = f"{self._what}: " + ", ".join(f"{value:,} {name}" for name, value in counts.items())
        if self._status is not None:
            self._next = now + REFRESH_S
            self._status.update(text)
        else:
            self._next = now + LINE_S
            self._console.print(text)
            sys.stderr.flush()
