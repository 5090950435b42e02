"""Looking over many jobs: those of one tenant that match some conditions, and how they went."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, bindparam, select

from ..schemas.doors import Door, DoorNote
from ..schemas.ids import first_id
from ..schemas.jobs import JobStatus
from .job_views import job_id_of, no_such_job
from .listed import LISTED_JOBS, PROBLEM_COLUMNS, shown_problem
from .tables import jobs

_DOOR_BEGINS = '{{"door":"{}"'
"""How a DoorNote in JSON begins; its first field is the door."""
_ROWS = select(
    jobs.c.id,
    jobs.c.status,
    jobs.c.created_at,
    jobs.c.finished_at,
    jobs.c.tokens,
    jobs.c.answer,
    jobs.c.error_code,
    jobs.c.door,
    *PROBLEM_COLUMNS,
).select_from(LISTED_JOBS)
_POINTS = select(jobs.c.id, jobs.c.status, jobs.c.created_at, jobs.c.finished_at, jobs.c.tokens)
_DOOR = select(jobs.c.id, jobs.c.door).where(jobs.c.id == bindparam("job_id"), jobs.c.tenant == bindparam("tenant"))


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
class JobPoint:
    """How one job went, in figures alone."""

    job_id: str
    """UUIDv7."""
    status: JobStatus
    """State."""
    created_at: float
    """Unix time in seconds of the acceptance."""
    finished_at: float | None
    """Unix time in seconds; None = not finished."""
    tokens: int | None
    """Tokens of the result, prompt and completion; None = not finished."""


@dataclass(frozen=True, slots=True)
class JobRow(JobPoint):
    """A job in the list."""

    problem: str
    """Beginning of the problem; withheld where the screening did not let the request pass."""
    answer: str | None
    """Beginning of the answer; None = none."""
    error_code: str | None
    """Why there is no answer; None = there is, or not yet."""
    door: Door | None
    """Where it came in; None = through no HTTP door."""


def browse_jobs(conn: Connection, chosen: JobFilter, *, limit: int, before: str | None = None) -> list[JobRow]:
    """Return matching jobs, newest first, older than the job `before` (for paging)."""
    query = _ROWS.where(*_conditions(chosen)).order_by(jobs.c.id.desc()).limit(limit)
    if before is not None:
        query = query.where(jobs.c.id < before)
    return [
        JobRow(
            job_id=row.id,
            status=JobStatus(row.status),
            created_at=row.created_at,
            finished_at=row.finished_at,
            tokens=row.tokens,
            problem=shown_problem(row),
            answer=row.answer,
            error_code=row.error_code,
            door=None if row.door is None else DoorNote.model_validate_json(row.door).door,
        )
        for row in conn.execute(query)
    ]


def job_points(conn: Connection, chosen: JobFilter, *, limit: int) -> list[JobPoint]:
    """Return the newest matching jobs, newest first, without their text."""
    query = _POINTS.where(*_conditions(chosen)).order_by(jobs.c.id.desc()).limit(limit)
    return [
        JobPoint(row.id, JobStatus(row.status), row.created_at, row.finished_at, row.tokens)
        for row in conn.execute(query)
    ]


def job_door(conn: Connection, job_id: str, *, tenant: str) -> tuple[str, DoorNote | None]:
    """Return a job's id in its canonical form, and what its door noted (None = it came in through no HTTP door).

    Raises NotFound when the tenant has none of that id.
    """
    row = conn.execute(_DOOR, {"job_id": job_id_of(job_id), "tenant": tenant}).first()
    if row is None:
        raise no_such_job(job_id)
    return row.id, None if row.door is None else DoorNote.model_validate_json(row.door)


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
        conditions.append(jobs.c.id >= first_id(chosen.since))
    return conditions
