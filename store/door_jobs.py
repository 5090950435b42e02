"""Jobs as one HTTP door shows them again in its caller's terms: always those of one tenant."""

from dataclasses import dataclass

from sqlalchemy import Connection, bindparam, select, update

from ..schemas.doors import Door, DoorNote
from ..schemas.jobs import JobStatus, SolveRequest, SolveResult
from ..schemas.outcomes import Planned, Screened, ScreenVerdict
from .rows import load_result
from .tables import jobs, steps

PLAN_STEP = "plan"
"""The step of the plan that all candidates share; its screening is named after it."""
_NOTE = select(jobs.c.door).where(jobs.c.id == bindparam("job_id"))
_ONE = select(
    jobs.c.id, jobs.c.status, jobs.c.door, jobs.c.request, jobs.c.result, jobs.c.created_at, jobs.c.finished_at
).where(jobs.c.id == bindparam("job_id"), jobs.c.tenant == bindparam("tenant"))
_PLAN = select(steps.c.name, steps.c.result).where(
    steps.c.job_id == bindparam("job_id"), steps.c.name.in_((PLAN_STEP, f"screen_{PLAN_STEP}"))
)
_RENOTE = update(jobs).where(jobs.c.id == bindparam("b_id")).values(door=bindparam("note"))


@dataclass(frozen=True, slots=True)
class DoorJob:
    """A job with what its door noted."""

    id: str
    """UUIDv7."""
    status: JobStatus
    """State."""
    note: DoorNote
    """What the door noted."""
    request: SolveRequest
    """As accepted."""
    result: SolveResult | None
    """What it came to, an answer only when it succeeded; None = not finished."""
    created_at: float
    """Unix time in seconds of its acceptance."""
    finished_at: float | None
    """Unix time in seconds of its end; None = not finished."""


def door_note(conn: Connection, job_id: str) -> DoorNote | None:
    """Return what a door noted on the job; None = it came in by none, or does not exist."""
    note = conn.execute(_NOTE, {"job_id": job_id}).scalar_one_or_none()
    return None if note is None else DoorNote.model_validate_json(note)


def door_job(conn: Connection, job_id: str, *, tenant: str, door: Door) -> DoorJob | None:
    """Return a job of the tenant that came in by the door; None = there is none."""
    row = conn.execute(_ONE, {"job_id": job_id, "tenant": tenant}).first()
    note = None if row is None or row.door is None else DoorNote.model_validate_json(row.door)
    if row is None or note is None or note.door is not door:
        return None
    return DoorJob(
        id=row.id,
        status=JobStatus(row.status),
        note=note,
        request=SolveRequest.model_validate_json(row.request),
        result=None if row.result is None else SolveResult.model_validate_json(row.result),
        created_at=row.created_at,
        finished_at=row.finished_at,
    )


def change_note(conn: Connection, job_id: str, note: DoorNote) -> None:
    """Replace what the door noted."""
    conn.execute(_RENOTE, {"b_id": job_id, "note": note.model_dump_json()})


def screened_plan(conn: Connection, job_id: str) -> str | None:
    """Return the shared plan, if it has passed its own screening (`policy.show_plan`); None = it has not."""
    found = {row.name: load_result(row.result) for row in conn.execute(_PLAN, {"job_id": job_id})}
    plan, screening = found.get(PLAN_STEP), found.get(f"screen_{PLAN_STEP}")
    passed = isinstance(screening, Screened) and screening.verdict is ScreenVerdict.safe
    return plan.plan if passed and isinstance(plan, Planned) else None
