"""Processes at work: each keeps one row by its signs of life, with its counters; readers see who lives."""

from dataclasses import asdict, dataclass

from sqlalchemy import Connection, bindparam, delete, false, func, select, update

from ..schemas.messages import AgentKind
from .door_tables import workers

__all__ = [
    "ROLES_NEEDED",
    "WorkerRow",
    "forget_workers",
    "living_roles",
    "remove_worker",
    "roles_served",
    "seen_workers",
    "sign_of_life",
]

ROLES_NEEDED = (*(agent.value for agent in AgentKind), "sweeper")
"""Roles without which jobs do not end."""
_ALL = (*ROLES_NEEDED, "intake")
"""What a process of role `all` does."""


@dataclass(frozen=True, slots=True)
class WorkerRow:
    """One process, as of its last sign of life. Times are Unix times in seconds."""

    worker: str
    """Id of the process, unique for ever."""
    role: str
    """planner, generator, verifier, safety, intake, all, sweeper or gateway."""
    host: str
    """Machine."""
    pid: int
    """Process id on that machine."""
    version: str
    """Version of k2think."""
    backend: str | None
    """Named backend that a generator is bound to; None = none."""
    capacity: int
    """Steps that it runs at once; 0 = it runs none."""
    running: int
    """Steps that it ran."""
    draining: bool
    """Whether it was told to stop."""
    started_at: float
    """Start."""
    seen_at: float
    """The sign of life."""
    metrics: str
    """Its counters and histograms since its start, as JSON (see workers/counters.py)."""


_RENEWED = ("capacity", "running", "draining", "seen_at", "metrics")
_UPDATE = (
    update(workers)
    .where(workers.c.worker == bindparam("b_worker"))
    .values({name: bindparam(name) for name in _RENEWED})
)
_SEEN = select(workers).where(workers.c.seen_at >= bindparam("since")).order_by(workers.c.role, workers.c.worker)
_LIVING = (
    select(workers.c.role, func.count())
    .where(workers.c.seen_at >= bindparam("since"), workers.c.draining == false())
    .group_by(workers.c.role)
)
_REMOVE = delete(workers).where(workers.c.worker == bindparam("b_worker"))
_FORGET = delete(workers).where(workers.c.seen_at < bindparam("before"))


def sign_of_life(conn: Connection, row: WorkerRow) -> None:
    """Write the process's row, or renew it. A process writes only its own, so there is no race for it."""
    values = asdict(row)
    if not conn.execute(_UPDATE, {"b_worker": row.worker, **{name: values[name] for name in _RENEWED}}).rowcount:
        conn.execute(workers.insert(), values)


def remove_worker(conn: Connection, worker: str) -> None:
    """Remove the row of a process that stops in order."""
    conn.execute(_REMOVE, {"b_worker": worker})


def seen_workers(conn: Connection, *, since: float) -> list[WorkerRow]:
    """Return the processes with a sign of life at `since` or later, by role and id."""
    return [WorkerRow(**row) for row in conn.execute(_SEEN, {"since": since}).mappings()]


def living_roles(conn: Connection, *, since: float) -> dict[str, int]:
    """Return how many processes serve each role, by a sign of life at `since` or later; those told to stop do not count."""
    living: dict[str, int] = {}
    for role, count in conn.execute(_LIVING, {"since": since}).all():
        for served in roles_served(role):
            living[served] = living.get(served, 0) + count
    return living


def roles_served(role: str) -> tuple[str, ...]:
    """Return the roles that a process of this role serves: its own, or for `all` each of them."""
    return _ALL if role == "all" else (role,)


def forget_workers(conn: Connection, *, before: float) -> int:
    """Remove the rows without a sign of life since `before`; return how many."""
    return conn.execute(_FORGET, {"before": before}).rowcount
