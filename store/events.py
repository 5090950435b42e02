"""The events of a job: what happened, in order, for those who watch it. No model text is ever in them."""

from typing import Any

from sqlalchemy import Connection, bindparam, insert, select

from ..schemas.trace import EventKind, JobEvent
from .rows import dump_value, load_mapping
from .tables import events

_INSERT = (
    insert(events)
    .values(
        job_id=bindparam("job_id"),
        at=bindparam("at"),
        kind=bindparam("kind"),
        step=bindparam("step"),
        detail=bindparam("detail"),
    )
    .inline()
)  # the number is not needed back
_AFTER = (
    select(events)
    .where(events.c.job_id == bindparam("job_id"), events.c.seq > bindparam("seq"))
    .order_by(events.c.seq)
    .limit(bindparam("limit"))
)


def record_event(
    conn: Connection,
    job_id: str,
    kind: EventKind,
    *,
    now: float,
    step: str | None = None,
    detail: dict[str, Any] | None = None,
) -> None:
    """Add an event. The caller holds the job's lock, so a job's events become visible in the order of their numbers."""
    values = {"job_id": job_id, "at": now, "kind": str(kind), "step": step, "detail": dump_value(detail or {})}
    conn.execute(_INSERT, values)


def events_after(conn: Connection, job_id: str, seq: int, limit: int = 500) -> list[JobEvent]:
    """Return the job's events with a number above `seq`, oldest first; 0 = from the beginning."""
    rows = conn.execute(_AFTER, {"job_id": job_id, "seq": seq, "limit": limit}).mappings()
    return [
        JobEvent(
            seq=row["seq"],
            job_id=row["job_id"],
            at=row["at"],
            kind=EventKind(row["kind"]),
            step=row["step"],
            detail=load_mapping(row["detail"]),
        )
        for row in rows
    ]
