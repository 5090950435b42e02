"""Jobs as the HTTP doors show them: always those of one tenant."""

import uuid
from typing import Any

from sqlalchemy import Connection, bindparam, func, select

from ..schemas.doors import Door, DoorNote
from ..schemas.errors import InvalidRequest, NotFound
from ..schemas.ids import first_id
from ..schemas.job_objects import JobObject
from ..schemas.jobs import JobStatus, SolveRequest, SolveResult
from ..schemas.withheld import withhold_result
from .listed import LISTED_JOBS, PROBLEM_COLUMNS, shown_problem
from .tables import events, jobs

ID_APART_S = 3_600.0
"""Seconds that the time in a job's id may lie apart from its acceptance: a door may choose the id long before."""
_LISTED = (
    jobs.c.id,
    jobs.c.status,
    jobs.c.created_at,
    jobs.c.started_at,
    jobs.c.finished_at,
    jobs.c.door,
    jobs.c.answer,
    jobs.c.error_code,
    *PROBLEM_COLUMNS,
)
_ONE = (
    select(*_LISTED, jobs.c.request, jobs.c.result)
    .select_from(LISTED_JOBS)
    .where(jobs.c.id == bindparam("job_id"), jobs.c.tenant == bindparam("tenant"))
)
_LAST_SEQ = select(func.max(events.c.seq)).where(events.c.job_id == bindparam("job_id"))


def job_id_of(text: str) -> str:
    """Return the id in its canonical form. Raises NotFound for what cannot be one."""
    try:
        return str(uuid.UUID(text))
    except ValueError:
        raise no_such_job(text) from None


def no_such_job(job_id: str) -> NotFound:
    """Return the error for an id that does not exist, or is not the caller's: both in the same words."""
    return NotFound(f"no job {job_id[:64]!r}: GET /v1/jobs lists those that exist")


def job_object(conn: Connection, job_id: str, *, tenant: str) -> JobObject:
    """Return a job with its result. Raises NotFound when the tenant has none of that id."""
    row = conn.execute(_ONE, {"job_id": job_id_of(job_id), "tenant": tenant}).first()
    if row is None:
        raise no_such_job(job_id)
    result = None if row.result is None else withhold_result(SolveResult.model_validate_json(row.result))
    metadata = SolveRequest.model_validate_json(row.request).metadata
    return _object(row).model_copy(update={"metadata": metadata, "result": result})


def last_event(conn: Connection, job_id: str) -> int:
    """Return the number of the job's newest event; 0 = it has none."""
    return conn.execute(_LAST_SEQ, {"job_id": job_id}).scalar_one() or 0


def list_job_objects(
    conn: Connection,
    *,
    tenant: str,
    status: JobStatus | None = None,
    door: Door | None = None,
    created_after: float | None = None,
    created_before: float | None = None,
    after: str | None = None,
    limit: int = 20,
) -> tuple[list[JobObject], bool]:
    """Return jobs of a tenant without their results, newest first, and whether more follow.

    `created_after` and `created_before` are Unix times in seconds, both exclusive; `after` is the last job of the page
    before. Raises InvalidRequest for an `after` that is no job id.
    """
    query = (
        select(*_LISTED)
        .select_from(LISTED_JOBS)
        .where(jobs.c.tenant == tenant)
        .order_by(jobs.c.id.desc())
        .limit(limit + 1)
    )
    if status is not None:
        query = query.where(jobs.c.status == str(status))
    if door is not None:
        # The note's first field. It is compared as text: notes are never read by the database.
        query = query.where(jobs.c.door.startswith(f'{{"door":"{door.value}"'))
    if created_after is not None:
        query = query.where(jobs.c.created_at > created_after, jobs.c.id >= first_id(created_after - ID_APART_S))
    if created_before is not None:
        query = query.where(jobs.c.created_at < created_before, jobs.c.id < first_id(created_before + ID_APART_S))
    if after is not None:
        try:
            query = query.where(jobs.c.id < str(uuid.UUID(after)))
        except ValueError:
            raise InvalidRequest(
                f"after: {after[:64]!r} is no job id: give the last_id of the page before", param="after"
            ) from None
    rows = conn.execute(query).all()
    return [_object(row) for row in rows[:limit]], len(rows) > limit


def _object(row: Any) -> JobObject:
    return JobObject(
        id=row.id,
        status=JobStatus(row.status),
        created_at=row.created_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
        door=None if row.door is None else DoorNote.model_validate_json(row.door).door,
        problem=shown_problem(row),
        answer=row.answer,
        error_code=row.error_code,
    )
