"""Symbolic comparison in worker processes: the caller's side of :mod:`.symbolic`."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Literal

from ..schemas.checks import AnswerForm
from .process import BOOT_LIMIT_S, MEMORY_BYTES, SharedPool, WorkerPool

LIMIT_S = 3.0
"""Wall-clock seconds for one comparison, counted from the moment a ready process takes it."""

Reason = Literal["timeout", "memory", "undecided"]


@dataclass(frozen=True, slots=True)
class SymbolicVerdict:
    """What a child found."""

    equal: bool | None
    """None when no verdict was reached; `reason` then says why."""
    reason: Reason | None = None
    detail: str = ""
    """Names of the exceptions that symbolic code raised on the way, if any."""


class SymbolicPool(WorkerPool[SymbolicVerdict]):
    """Compares answers by symbolic mathematics."""

    def __init__(
        self, *, processes: int = 1, memory_bytes: int = MEMORY_BYTES, boot_limit_s: float = BOOT_LIMIT_S
    ) -> None:
        super().__init__(
            "k2think.grading.symbolic",
            needs="is math-verify installed? `pip install 'k2think[grading]'` installs it",
            processes=processes,
            memory_bytes=memory_bytes,
            boot_limit_s=boot_limit_s,
        )

    def submit(
        self, a: str, b: str, *, form: AnswerForm | None = None, rounded: bool = False, limit_s: float = LIMIT_S
    ) -> Future[SymbolicVerdict]:
        """Compare `a` and `b` in a child; `rounded` as in :func:`.equivalence.compare_answers`. Fails as `ask` does."""
        return self.ask({"a": a, "b": b, "form": form.value if form else None, "rounded": rounded}, limit_s)

    def verdict(self, reply: dict[str, Any]) -> SymbolicVerdict:
        """Read a child's reply."""
        if reply.get("timeout"):
            return SymbolicVerdict(None, "timeout")
        if reply.get("memory"):
            return SymbolicVerdict(None, "memory")
        equal: bool | None = reply["verdict"]
        return SymbolicVerdict(equal, "undecided" if equal is None else None, ", ".join(reply["failures"]))


_shared = SharedPool(SymbolicPool)


def default_pool() -> SymbolicPool:
    """The pool of this process: one child, ended at exit."""
    return _shared.get()


def close_default_pool() -> None:
    """End the default pool's child now; a later comparison starts a new one."""
    _shared.close()
