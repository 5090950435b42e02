"""Clocks that are set or wrong: who lives keeps its leases, who is dead loses them, by nobody's clock."""

from k2think.store.sweep import Lease
from k2think.workers.clocks import ClockWatch, LeaseWatch

LEASE_S = 15.0
SWEEP_S = 0.25
HOUR_S = 3600.0
NOW = 1_795_000_000.0
FRESH = NOW + LEASE_S


def looks(watch: LeaseWatch, leases: list[Lease], *, begin: float, seconds: float) -> float | None:
    """Look every second at the same leases; return after how many seconds they run out, None = not in that time."""
    for second in range(int(seconds) + 1):
        if watch.run_out(leases, at=begin + second, now=NOW):
            return float(second)
    return None


def test_a_lease_that_stands_still_runs_out_whatever_it_says() -> None:
    for until in (FRESH, FRESH + 1, FRESH + HOUR_S):
        watch = LeaseWatch(lease_s=LEASE_S, sweep_s=SWEEP_S)
        assert looks(watch, [Lease("w", until)], begin=100.0, seconds=60) == LEASE_S


def test_a_new_sweeper_believes_half_a_lease_of_what_leases_say() -> None:
    """Given workers and a sweeper that died together, then its successor need not begin at nothing; nor does it trust clocks."""
    for age_s, left_s in ((0.0, 15.0), (3.0, 12.0), (7.5, 8.0), (14.0, 8.0), (HOUR_S, 8.0), (-HOUR_S, 15.0)):
        watch = LeaseWatch(lease_s=LEASE_S, sweep_s=SWEEP_S)
        assert looks(watch, [Lease("w", FRESH - age_s)], begin=100.0, seconds=60) == left_s


def test_what_a_later_lease_says_of_its_age_is_not_believed() -> None:
    watch = LeaseWatch(lease_s=LEASE_S, sweep_s=SWEEP_S)
    assert watch.run_out([], at=99.0, now=NOW) == []
    assert looks(watch, [Lease("w", 1.0)], begin=100.0, seconds=60) == LEASE_S


def test_a_lease_that_is_renewed_never_runs_out_whatever_the_clocks_do() -> None:
    """Given a worker whose clock jumps by an hour and back and goes slow, then each heartbeat is a sign of life."""
    watch = LeaseWatch(lease_s=LEASE_S, sweep_s=SWEEP_S)
    clock = 1_795_000_000.0
    for second in range(200):
        if second % 12 == 0:
            clock += {60: HOUR_S, 120: -2 * HOUR_S}.get(second, 0.001)
        assert watch.run_out([Lease("w", clock + LEASE_S)], at=float(second), now=NOW) == []


def test_time_in_which_nobody_could_look_does_not_count() -> None:
    """Given a database that was away for longer than a lease, then workers have time to write their heartbeats again."""
    watch = LeaseWatch(lease_s=LEASE_S, sweep_s=SWEEP_S)
    lease = Lease("w", FRESH)
    assert looks(watch, [lease], begin=0.0, seconds=10) is None

    assert watch.run_out([lease], at=HOUR_S, now=NOW) == []
    assert watch.run_out([lease], at=HOUR_S + 1, now=NOW) == []
    assert watch.run_out([Lease("w", FRESH + 1)], at=HOUR_S + 2, now=NOW) == []
    assert looks(watch, [Lease("w", FRESH + 1)], begin=HOUR_S + 3, seconds=60) == LEASE_S - 1


def test_a_lease_given_up_is_over_at_once() -> None:
    watch = LeaseWatch(lease_s=LEASE_S, sweep_s=SWEEP_S)
    assert watch.run_out([Lease("w", 0.0), Lease("w", 1.0)], at=0.0, now=NOW) == [Lease("w", 0.0)]


def test_rare_looks_still_end_leases() -> None:
    watch = LeaseWatch(lease_s=LEASE_S, sweep_s=10.0)
    found = [watch.run_out([Lease("w", FRESH)], at=10.0 * look, now=NOW) for look in range(4)]
    assert found == [[], [], [Lease("w", FRESH)], [Lease("w", FRESH)]]


def test_a_clock_that_was_set_is_noticed_once() -> None:
    watch = ClockWatch()
    moves = [(0.0, 0.0), (1.0, 1.0), (2.5, 2.0), (3603.0, 3.0), (3604.0, 4.0), (5.0, 5.0), (100.0, 100.0)]
    jumps = [watch.jump_s(now=1_795_000_000.0 + now, monotonic=monotonic) for now, monotonic in moves]
    assert [round(jump) for jump in jumps] == [0, 0, 0, 3600, 0, -3600, 0]
