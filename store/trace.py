"""Everything about one job, as the trace shows it."""

from collections import defaultdict

from sqlalchemy import Connection, bindparam, select

from ..schemas.errors import NotFound
from ..schemas.jobs import JobStatus, SolveRequest, SolveResult
from ..schemas.outcomes import StepStatus
from ..schemas.trace import AttemptOutcome, AttemptTrace, JobTrace, StepTrace
from .events import events_after
from .rows import load_call, load_failure, load_mapping
from .tables import attempts, jobs, steps

EVENTS_MAX = 100_000

_JOB = select(jobs).where(jobs.c.id == bindparam("job_id"))
_STEPS = (
    select(
        steps.c.name,
        steps.c.kind,
        steps.c.status,
        steps.c.created_at,
        steps.c.finished_at,
        steps.c.result,
        steps.c.failure,
    )
    .where(steps.c.job_id == bindparam("job_id"))
    .order_by(steps.c.seq, steps.c.name)
)
_ATTEMPTS = select(attempts).where(attempts.c.job_id == bindparam("job_id")).order_by(attempts.c.attempt)


def job_trace(conn: Connection, job_id: str) -> JobTrace:
    """Return the job with its steps, attempts, model calls and events; raise NotFound.

    It holds all model text, screened or not: who shows it to users must withhold what the result withholds.
    """
    job = conn.execute(_JOB, {"job_id": job_id}).first()
    if job is None:
        raise NotFound(f"no job {job_id!r}: `k2think jobs list` shows those that exist")
    by_step = _attempts(conn, job_id)
    return JobTrace(
        job_id=job_id,
        tenant=job.tenant,
        status=JobStatus(job.status),
        created_at=job.created_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
        request=SolveRequest.model_validate_json(job.request),
        result=None if job.result is None else SolveResult.model_validate_json(job.result),
        steps=tuple(
            StepTrace(
                name=row.name,
                kind=row.kind,
                status=StepStatus(row.status),
                created_at=row.created_at,
                finished_at=row.finished_at,
                result=None if row.result is None else load_mapping(row.result),
                failure=load_failure(row.failure),
                attempts=tuple(by_step[row.name]),
            )
            for row in conn.execute(_STEPS, {"job_id": job_id})
        ),
        events=tuple(events_after(conn, job_id, 0, limit=EVENTS_MAX)),
    )


def _attempts(conn: Connection, job_id: str) -> dict[str, list[AttemptTrace]]:
    by_step: dict[str, list[AttemptTrace]] = defaultdict(list)
    for row in conn.execute(_ATTEMPTS, {"job_id": job_id}).mappings():
        by_step[row["step"]].append(
            AttemptTrace(
                step=row["step"],
                attempt=row["attempt"],
                worker=row["worker"],
                outcome=AttemptOutcome(row["outcome"]),
                queued_at=row["queued_at"],
                claimed_at=row["claimed_at"],
                finished_at=row["finished_at"],
                error=load_failure(row["error"]),
                call=load_call({str(name): value for name, value in row.items()}),
            )
        )
    return by_step
