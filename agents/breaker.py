"""A circuit breaker: a backend that fails again and again is left alone for a while, then tried with one call.

    closed ──`failures` in a row──> resting ──rest is over──> one trial ──succeeds──> closed
                                       ^                          │
                                       └──── fails: rest doubled ─┘

One per backend and process, for one thread.
"""

import time
from collections.abc import Callable
from enum import StrEnum

ADMISSION_S = 1.0
"""Between two pieces of work that are let in when a rest is over, as long as no trial is under way."""


class BreakerState(StrEnum):
    """What the breaker does with the next call."""

    closed = "closed"
    """It passes."""
    resting = "resting"
    """It does not."""
    ready = "ready"
    """It passes as the trial."""
    trying = "trying"
    """It does not: the trial is under way."""


class Ticket:
    """One call that was let through; told once how it went, unless it says nothing about the backend."""

    def __init__(self, breaker: "Breaker", period: int) -> None:
        self._breaker = breaker
        self._period = period

    def succeeded(self) -> bool:
        """The backend served it, or answered that the request itself is wrong. True = it is back after a rest."""
        return self._breaker.on_success(self._period)

    def failed(self, *, at_once: bool = False) -> bool:
        """The backend failed it. `at_once`: it will fail all others, too, such as for a wrong key. True = a rest begins."""
        return self._breaker.on_failure(self._period, at_once=at_once)

    def left(self) -> None:
        """It was cancelled, or refused for reasons of its own: nothing is known."""
        self._breaker.on_nothing(self._period)


class Breaker:
    """See the module. Times are seconds of `clock`, which is monotonic."""

    def __init__(
        self, *, failures: int, rest_s: float, rest_max_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._failures_max = failures
        self._rest_first_s = rest_s
        self._rest_max_s = rest_max_s
        self._clock = clock
        self._failures = 0
        self._rest_s = 0.0
        self._rests_until: float | None = None
        """None = closed."""
        self._trying = False
        self._admitted_at: float | None = None
        self._period = 0
        """Counts how often the breaker has opened or closed: what an earlier call tells no longer counts."""

    @property
    def state(self) -> BreakerState:
        """What it does now."""
        if self._rests_until is None:
            return BreakerState.closed
        if self._trying:
            return BreakerState.trying
        return BreakerState.resting if self._clock() < self._rests_until else BreakerState.ready

    @property
    def allows(self) -> bool:
        """Whether a call would pass."""
        return self.state in (BreakerState.closed, BreakerState.ready)

    @property
    def rest_s(self) -> float:
        """Seconds until the next trial is allowed; 0 = now, or closed."""
        return 0.0 if self._rests_until is None else max(0.0, self._rests_until - self._clock())

    def enter(self) -> Ticket:
        """Let a call through. To be asked for only when it `allows` one."""
        if self._rests_until is not None:
            self._trying = True
        return Ticket(self, self._period)

    def admits(self) -> bool:
        """Whether work may be begun that will call. When a rest is over one is let in after the other, not all at once."""
        state = self.state
        if state is not BreakerState.ready:
            return state is BreakerState.closed
        now = self._clock()
        if self._admitted_at is not None and now - self._admitted_at < ADMISSION_S:
            return False
        self._admitted_at = now
        return True

    def on_success(self, period: int) -> bool:
        """A call of this period succeeded; True = the breaker closes."""
        if period != self._period:
            return False
        self._failures = 0
        if self._rests_until is None:
            return False
        self._rests_until, self._rest_s = None, 0.0
        self._turn()
        return True

    def on_failure(self, period: int, *, at_once: bool) -> bool:
        """A call of this period failed; True = a rest begins."""
        if period != self._period:
            return False
        self._failures += 1
        if self._rests_until is None and not at_once and self._failures < self._failures_max:
            return False
        self._rest_s = min(2 * self._rest_s or self._rest_first_s, self._rest_max_s)
        self._rests_until = self._clock() + self._rest_s
        self._turn()
        return True

    def on_nothing(self, period: int) -> None:
        """A call of this period told nothing: if it was the trial, another may be made."""
        if period == self._period:
            self._trying = False

    def _turn(self) -> None:
        self._period += 1
        self._failures = 0
        self._trying = False
        self._admitted_at = None
