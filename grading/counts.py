"""What grading did in this process, counted: a fault of the grader must not pass unseen."""

from __future__ import annotations

import threading
from collections import Counter

_counts: Counter[str] = Counter()
_lock = threading.Lock()


def count(outcome: str) -> None:
    """Add one to `outcome`."""
    with _lock:
        _counts[outcome] += 1


def grading_counts() -> dict[str, int]:
    """Outcomes of this process since start.

    Comparisons: exact, symbolic, timeout, memory, undecided, error. Rewards: scored, and score_error for those that
    raised instead.
    """
    with _lock:
        return dict(_counts)
