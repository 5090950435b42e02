"""Leases in tests that have one clock, which moves when told: a lease is over when it says so."""

from k2think.store.sweep import Lost, reclaim_lost, running_leases
from sqlalchemy import Connection


def reclaim_over(conn: Connection, *, now: float, attempts_max: int) -> list[Lost]:
    """Take back the steps whose leases are over."""
    over = [lease for lease in running_leases(conn) if lease.until < now]
    return [step for lease in over for step in reclaim_lost(conn, lease, now=now, attempts_max=attempts_max)]
