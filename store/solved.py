"""Jobs that succeeded, with the winner's text as its model wrote it: what training data is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, bindparam, select

from ..schemas.jobs import JobStatus, SolveRequest, SolveResult
from ..schemas.outcomes import Candidate, CheckStatus, StepStatus
from ..schemas.trace import AttemptOutcome
from .rows import load_result
from .tables import attempts, jobs, steps

PAGE = 20
"""Jobs read at once: each may bring megabytes of text."""

_PAGE = (
    select(jobs.c.id, jobs.c.tenant, jobs.c.finished_at, jobs.c.request, jobs.c.result)
    .where(jobs.c.status == JobStatus.succeeded.value, jobs.c.id > bindparam("after"))
    .order_by(jobs.c.id)
    .limit(bindparam("limit"))
)
_WRITTEN = (
    select(steps.c.job_id, steps.c.result, attempts.c.model, attempts.c.raw_text)
    .join_from(steps, attempts, (attempts.c.job_id == steps.c.job_id) & (attempts.c.step == steps.c.name))
    .where(
        steps.c.job_id.in_(bindparam("ids", expanding=True)),
        steps.c.kind == "generate_candidate",
        steps.c.status == StepStatus.done.value,
        attempts.c.outcome == AttemptOutcome.done.value,
    )
)


@dataclass(frozen=True, slots=True)
class SolvedJob:
    """One of them."""

    job_id: str
    """UUIDv7."""
    tenant: str
    """Owner."""
    finished_at: float
    """End, Unix time in seconds."""
    request: SolveRequest
    """What was asked."""
    result: SolveResult
    """What it came to."""
    text: str
    """The winner's visible text as it came, tags included; empty = its attempt is no longer there."""
    model: str
    """Model that wrote it; empty as above."""
    check: CheckStatus
    """What the task's own checks said of it."""


def solved_jobs(
    conn: Connection, *, tenants: Sequence[str] | None = None, after: str = "", limit: int = PAGE
) -> list[SolvedJob]:
    """Return jobs that succeeded, oldest first, from the one behind `after` on; of these tenants, None = of all.

    What screening withheld did not succeed and is not among them.
    """
    query = _PAGE if tenants is None else _PAGE.where(jobs.c.tenant.in_(tenants))
    rows = conn.execute(query, {"after": after, "limit": limit}).all()
    written: dict[str, dict[int, tuple[Candidate, str, str]]] = {}
    if rows:
        for row in conn.execute(_WRITTEN, {"ids": [row.id for row in rows]}):
            candidate = load_result(row.result)
            if isinstance(candidate, Candidate):
                written.setdefault(row.job_id, {})[candidate.index] = (candidate, row.raw_text or "", row.model)
    found: list[SolvedJob] = []
    for row in rows:
        result = SolveResult.model_validate_json(row.result)
        winner = result.selection.winner if result.selection is not None else None
        told = None if winner is None else written.get(row.id, {}).get(winner)
        found.append(
            SolvedJob(
                job_id=row.id,
                tenant=row.tenant,
                finished_at=row.finished_at,
                request=SolveRequest.model_validate_json(row.request),
                result=result,
                text=told[1] if told else "",
                model=told[2] if told else "",
                check=told[0].check if told else CheckStatus.none,
            )
        )
    return found
