"""How things stand, counted by the database: what waits, what runs, what is open. Every count goes over a partial index.

So the cost grows with the unfinished work, not with the history.
"""

from dataclasses import dataclass

from sqlalchemy import Connection, bindparam, case, func, select, text

from .door_tables import OPEN_BATCH_SQL, OPEN_DELIVERY_SQL, batches, deliveries
from .tables import UNFINISHED_SQL, jobs, steps

__all__ = ["QUERIES", "Gauges", "QueueGauges", "read_gauges"]


@dataclass(frozen=True, slots=True)
class QueueGauges:
    """One queue of steps."""

    ready: int = 0
    """Steps that wait for a claim, those in a back-off included."""
    running: int = 0
    """Steps under a lease."""
    oldest_ready_s: float = 0.0
    """Seconds since the longest waiting step could have been claimed; 0 = none waits."""


@dataclass(frozen=True, slots=True)
class Gauges:
    """All of one moment."""

    queues: dict[str, QueueGauges]
    """By queue; those without steps are absent."""
    jobs: dict[str, int]
    """Unfinished jobs by status; absent = none."""
    dead_letter_steps: int
    """Steps that were given up, as long as their jobs are kept."""
    batches: dict[str, int]
    """Open batches by status; absent = none."""
    batch_lines: int
    """Lines of open batches that have not ended."""
    deliveries: dict[str, int]
    """Webhooks to send: `waiting` for their subject's end or their first try, `retrying` after a failed one."""


_READY = (
    select(
        steps.c.queue,
        func.count().label("steps"),
        func.min(case((steps.c.ready_at <= bindparam("now"), steps.c.ready_at))).label("oldest"),
    )
    .where(text("status = 'ready'"))
    .group_by(steps.c.queue)
)
_RUNNING = select(steps.c.queue, func.count().label("steps")).where(text("status = 'running'")).group_by(steps.c.queue)
_JOBS = select(jobs.c.status, func.count().label("jobs")).where(text(UNFINISHED_SQL)).group_by(jobs.c.status)
_DEAD = select(func.count()).select_from(steps).where(text("failure_code = 'dead_letter'"))
_BATCHES = (
    select(
        batches.c.status,
        func.count().label("batches"),
        func.sum(batches.c.total - batches.c.completed - batches.c.failed).label("lines"),
    )
    .where(text(OPEN_BATCH_SQL))
    .group_by(batches.c.status)
)
_DELIVERIES = (
    select(func.count().label("all"), func.count(deliveries.c.last_error).label("failed"))
    .select_from(deliveries)
    .where(text(OPEN_DELIVERY_SQL))
)
QUERIES = {
    "ready": _READY,
    "running": _RUNNING,
    "jobs": _JOBS,
    "dead": _DEAD,
    "batches": _BATCHES,
    "deliveries": _DELIVERIES,
}
"""All that is asked, for the test that looks at their plans."""


def read_gauges(conn: Connection, *, now: float) -> Gauges:
    """Count everything. `now` is a Unix time in seconds."""
    running = {row.queue: row.steps for row in conn.execute(_RUNNING)}
    ready = {row.queue: (row.steps, row.oldest) for row in conn.execute(_READY, {"now": now})}
    queues: dict[str, QueueGauges] = {}
    for queue in sorted({*ready, *running}):
        waiting, oldest = ready.get(queue, (0, None))
        age_s = 0.0 if oldest is None else max(0.0, now - oldest)
        queues[queue] = QueueGauges(waiting, running.get(queue, 0), age_s)
    open_batches = conn.execute(_BATCHES).all()
    notices = conn.execute(_DELIVERIES).one()
    return Gauges(
        queues=queues,
        jobs={row.status: row.jobs for row in conn.execute(_JOBS)},
        dead_letter_steps=conn.execute(_DEAD).scalar_one(),
        batches={row.status: row.batches for row in open_batches},
        batch_lines=sum(int(row.lines) for row in open_batches),
        deliveries={"waiting": notices.all - notices.failed, "retrying": notices.failed},
    )
