"""The events of a job: what happened, in order, for those who watch it. No model text is ever in them."""

from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import Connection, Insert, Update, bindparam, insert, select

from ..schemas.trace import EventKind, JobEvent
from .rows import dump_value, load_mapping
from .tables import events

_INSERT = (
    insert(events)
    .values({name: bindparam(f"event_{name}") for name in ("job_id", "at", "kind", "step", "detail")})
    .inline()
)  # the number is not needed back
_AFTER = (
    select(events)
    .where(events.c.job_id == bindparam("job_id"), events.c.seq > bindparam("seq"))
    .order_by(events.c.seq)
    .limit(bindparam("limit"))
)


@dataclass(frozen=True, slots=True)
class Write:
    """A write of which nobody needs to know more than that it was made."""

    statement: Insert | Update
    """With bound parameters, none of which is named like a column of table events."""
    values: dict[str, Any]
    """By the names of the parameters."""


def record_event(
    conn: Connection,
    job_id: str,
    kind: EventKind,
    *,
    now: float,
    step: str | None = None,
    detail: dict[str, Any] | None = None,
    beside: Write | None = None,
) -> None:
    """Add an event. The caller holds the job's lock, so a job's events become visible in the order of their numbers.

    `beside` is what the event tells of: on PostgreSQL both are one statement, and so one round trip.
    """
    event = {"job_id": job_id, "at": now, "kind": str(kind), "step": step, "detail": dump_value(detail or {})}
    values = {f"event_{name}": value for name, value in event.items()}
    if beside is None:
        conn.execute(_INSERT, values)
    elif conn.dialect.name == "sqlite":  # which writes to one table in a statement
        conn.execute(beside.statement, beside.values)
        conn.execute(_INSERT, values)
    else:
        conn.execute(_together(beside.statement), beside.values | values)


@cache
def _together(statement: Insert | Update) -> Insert:
    return _INSERT.add_cte(statement.cte("beside"))


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
