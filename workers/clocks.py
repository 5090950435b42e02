"""What the sweeper makes of time. Leases are judged by how long they stand still, so no clock decides who is dead."""

from collections.abc import Iterable

from ..store.sweep import Lease

JUMP_MIN_S = 2.0
"""A clock that moves by so much between two looks, against the monotonic one, was set."""
LOOKS_MIN = 5
"""Looks that find a lease unchanged before it counts as run out, at least."""


class LeaseWatch:
    """Tells the leases that run out: those that no heartbeat has changed for one lease of time that was watched.

    Nobody's clock is compared with another's: what a lease says is only seen to change. Nor does time count in which
    nobody could look or beat, such as an outage of the database: of the time between two looks only so much counts that it
    takes several of them.
    """

    def __init__(self, *, lease_s: float, sweep_s: float) -> None:
        self._lease_s = lease_s
        self._look_max_s = max(lease_s / LOOKS_MIN, 2 * sweep_s)
        self._looked_at: float | None = None
        self._ages: dict[Lease, float] = {}

    def run_out(self, leases: Iterable[Lease], *, at: float) -> list[Lease]:
        """Return which of all leases that there are have run out; `at` is a monotonic time in seconds."""
        passed_s = 0.0 if self._looked_at is None else min(at - self._looked_at, self._look_max_s)
        self._looked_at = at
        self._ages = {lease: self._ages[lease] + passed_s if lease in self._ages else 0.0 for lease in leases}
        return [lease for lease, age in self._ages.items() if age >= self._lease_s or not lease.until]


class ClockWatch:
    """Notices that the machine's clock was set."""

    def __init__(self) -> None:
        self._ahead_s: float | None = None

    def jump_s(self, *, now: float, monotonic: float) -> float:
        """Return by how many seconds the clock has jumped since the last look; negative = back, 0 = it has not."""
        ahead_s = now - monotonic
        jump_s = 0.0 if self._ahead_s is None else ahead_s - self._ahead_s
        self._ahead_s = ahead_s
        return jump_s if abs(jump_s) >= JUMP_MIN_S else 0.0
