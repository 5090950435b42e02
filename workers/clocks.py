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

    At its first look a sweeper believes half a lease of what leases say about their age, for the sweeper before it may have
    died together with the workers. The other half, longer than a heartbeat, it watches.
    """

    def __init__(self, *, lease_s: float, sweep_s: float) -> None:
        self._lease_s = lease_s
        self._look_max_s = max(lease_s / LOOKS_MIN, 2 * sweep_s)
        self._looked_at: float | None = None
        self._ages: dict[Lease, float] = {}

    def run_out(self, leases: Iterable[Lease], *, at: float, now: float) -> list[Lease]:
        """Return which of all leases that there are have run out.

        `at` is a monotonic time in seconds, `now` the Unix time by the database's clock.
        """
        if self._looked_at is None:
            self._ages = {lease: self._told_age_s(lease, now) for lease in leases}
        else:
            passed_s = min(at - self._looked_at, self._look_max_s)
            self._ages = {lease: self._ages[lease] + passed_s if lease in self._ages else 0.0 for lease in leases}
        self._looked_at = at
        return [lease for lease, age in self._ages.items() if age >= self._lease_s or not lease.until]

    def _told_age_s(self, lease: Lease, now: float) -> float:
        written_at = lease.until - self._lease_s
        return min(max(0.0, now - written_at), self._lease_s / 2)


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
