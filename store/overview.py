"""Looking over many jobs: those of one tenant that match some conditions, and how they went."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, bindparam, select

from ..schemas.doors import Door, DoorNote
from ..schemas.errors import NotFound
from ..schemas.jobs import JobStatus
from .tables import jobs

_DOOR_BEGINS = '{{"door":"{}"'
"""How a DoorNote in JSON begins; its first field is the door."""
_COLUMNS = (
    jobs.c.id,
    jobs.c.status,
    jobs.c.created_at,
    jobs.c.started_at,
    jobs.c.finished_at,
    jobs.c.tokens,
    jobs.c.problem,
    jobs.c.answer,
    jobs.c.error_code,
    jobs.c.door,
)
_CARD = select(jobs.c.tenant, jobs.c.door, jobs.c.tokens).where(jobs.c.id == bindparam("job_id"))


@dataclass(frozen=True, slots=True)
class JobFilter:
    """Which jobs; all conditions must hold."""

    tenant: str
    """Owner."""
    status: JobStatus | None = None
    """State; None = any."""
    text: str = ""
    """Part of the beginning of the problem, in any case; empty = any."""
    door: Door | None = None
    """Where it came in; None = anywhere."""
    without_door: bool = False
    """Only jobs that came in through no HTTP door (the command line, Celery)."""
    since: float | None = None
    """Unix time in seconds of the acceptance at the earliest; None = from the beginning."""


@dataclass(frozen=True, slots=True)
class JobRow:
    """A job in the list."""

    job_id: str
    """UUIDv7."""
    status: JobStatus
    """State."""
    created_at: float
    """Unix time in seconds of the acceptance."""
    started_at: float | None
    """Unix time in seconds of the first claim; None = not yet."""
    finished_at: float | None
    """Unix time in seconds; None = not finished."""
    tokens: int | None
    """Tokens of the result, prompt and completion; None = not finished."""
    problem: str
    """Beginning of the problem."""
    answer: str | None
    """Beginning of the answer; None = none."""
    error_code: str | None
    """Why there is no answer; None = there is, or not yet."""
    door: Door | None
    """Where it came in; None = through no HTTP door."""


@dataclass(frozen=True, slots=True)
class JobCard:
    """What the job's row has and its trace has not."""

    tenant: str
    """Owner."""
    door: DoorNote | None
    """What the door noted; None = it came in through no HTTP door."""
    tokens: int | None
    """Tokens of the result; None = not finished."""


def browse_jobs(conn: Connection, chosen: JobFilter, *, limit: int, before: str | None = None) -> list[JobRow]:
    """Return matching jobs, newest first, older than the job `before` (for paging)."""
    query = select(*_COLUMNS).where(*_conditions(chosen)).order_by(jobs.c.id.desc()).limit(limit)
    if before is not None:
        query = query.where(jobs.c.id < before)
    return [
        JobRow(
            job_id=row.id,
            status=JobStatus(row.status),
            created_at=row.created_at,
            started_at=row.started_at,
            finished_at=row.finished_at,
            tokens=row.tokens,
            problem=row.problem,
            answer=row.answer,
            error_code=row.error_code,
            door=_door(row.door),
        )
        for row in conn.execute(query)
    ]


def job_card(conn: Connection, job_id: str) -> JobCard:
    """Return owner and door of a job; raise NotFound."""
    row = conn.execute(_CARD, {"job_id": job_id}).first()
    if row is None:
        raise NotFound(f"no job {job_id!r}: `k2think jobs list` shows those that exist")
    return JobCard(row.tenant, None if row.door is None else DoorNote.model_validate_json(row.door), row.tokens)


def _conditions(chosen: JobFilter) -> Sequence[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = [jobs.c.tenant == chosen.tenant]
    if chosen.status is not None:
        conditions.append(jobs.c.status == str(chosen.status))
    if chosen.text:
        conditions.append(jobs.c.problem.icontains(chosen.text, autoescape=True))
    if chosen.door is not None:
        conditions.append(jobs.c.door.startswith(_DOOR_BEGINS.format(chosen.door.value)))
    if chosen.without_door:
        conditions.append(jobs.c.door.is_(None))
    if chosen.since is not None:
        # Ids sort by time, and the index is on them.
        conditions.append(jobs.c.id >= _first_id(chosen.since))
    return conditions


def _first_id(at: float) -> str:
    """The beginning of the ids made at a Unix time in seconds."""
    milliseconds = f"{max(0, int(at * 1000)):012x}"
    return f"{milliseconds[:8]}-{milliseconds[8:]}"


def _door(note: str | None) -> Door | None:
    return None if note is None else DoorNote.model_validate_json(note).door
