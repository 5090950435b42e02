"""How soon a backend's first token comes, learned from its calls: what a second stream is begun by, and how often."""

import math
from collections import deque

SAMPLES_MAX = 256
SAMPLES_MIN = 20
"""Calls that must have been seen before anything is said."""
QUANTILE = 0.95
SAVED_HEDGES_MAX = 5.0
"""Hedges that may be begun in a row after a quiet time."""


class Pace:
    """Times to the first token of one backend's latest calls, in seconds, and the allowance for hedges."""

    def __init__(self, *, hedge_share_max: float) -> None:
        """`hedge_share_max`: hedges as a share of all calls, at most, so that a slow hour does not double the load."""
        self._samples: deque[float] = deque(maxlen=SAMPLES_MAX)
        self._share = hedge_share_max
        self._allowance = 1.0

    def saw(self, first_token_s: float) -> None:
        """A call's first token came so late."""
        self._samples.append(first_token_s)

    @property
    def late_s(self) -> float | None:
        """The seconds within which 95 % of the calls have their first token; None = too few were seen."""
        if len(self._samples) < SAMPLES_MIN:
            return None
        ordered = sorted(self._samples)
        return ordered[math.ceil(QUANTILE * len(ordered)) - 1]

    def begin(self) -> None:
        """A call begins, which earns a share of a hedge."""
        self._allowance = min(SAVED_HEDGES_MAX, self._allowance + self._share)

    def take_hedge(self) -> bool:
        """Take one hedge from the allowance; False = it is used up."""
        if self._allowance < 1.0:
            return False
        self._allowance -= 1.0
        return True
