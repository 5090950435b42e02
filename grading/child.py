"""The child's side of :mod:`.process`: a program that answers one JSON line with another, within bounds that the kernel keeps."""

from __future__ import annotations

import json
import math
import os
import resource
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TextIO

CPU_SPARE_S = 2
"""CPU seconds beyond the caller's limit after which the kernel ends this process, should the parent be gone."""


def open_replies() -> TextIO:
    """Take standard output for the protocol: a library that prints must not speak in it."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return replies


def bound(memory_bytes: int) -> None:
    """Bound this process's address space; it writes no file and leaves no core."""
    _limit(resource.RLIMIT_AS, memory_bytes, memory_bytes)
    _limit(resource.RLIMIT_CORE, 0, 0)
    _limit(resource.RLIMIT_FSIZE, 0, 0)


def serve(answer: Callable[[dict[str, Any]], dict[str, Any]], replies: TextIO) -> None:
    """Answer requests until standard input closes, or memory runs out.

    What was allocated half-way is not trusted then: the parent starts a fresh process.
    """
    with suppress(BrokenPipeError):
        _say(replies, {"ready": True})
        _, hard = resource.getrlimit(resource.RLIMIT_CPU)
        for line in sys.stdin:
            request: dict[str, Any] = json.loads(line)
            used = resource.getrusage(resource.RUSAGE_SELF)
            _limit(
                resource.RLIMIT_CPU, math.ceil(used.ru_utime + used.ru_stime + request["limit_s"] + CPU_SPARE_S), hard
            )
            try:
                reply = answer(request)
            except MemoryError:
                reply = {"memory": True}
            _say(replies, reply)
            if "memory" in reply:
                return


def _say(replies: TextIO, reply: dict[str, Any]) -> None:
    replies.write(json.dumps(reply) + "\n")
    replies.flush()


def _limit(kind: int, soft: int, hard: int) -> None:
    with suppress(OSError, ValueError):  # a limit that the platform lacks leaves the parent's clock in charge
        resource.setrlimit(kind, (soft, hard))
