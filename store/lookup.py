"""Looking up many jobs at once: those of a batch that have ended, and those whose id begins in some way."""

from collections.abc import Sequence

from sqlalchemy import Connection, select

from ..schemas.jobs import SolveResult
from .tables import jobs

IDS_PER_QUERY = 500
"""SQLite takes 999 parameters in a statement, in its oldest builds."""


def finished_among(conn: Connection, job_ids: Sequence[str]) -> tuple[list[SolveResult], list[str]]:
    """Return the results of those jobs that have ended, and the ids that no longer exist."""
    results: list[SolveResult] = []
    known: set[str] = set()
    for start in range(0, len(job_ids), IDS_PER_QUERY):
        part = job_ids[start : start + IDS_PER_QUERY]
        for row in conn.execute(select(jobs.c.id, jobs.c.result).where(jobs.c.id.in_(part))):
            known.add(row.id)
            if row.result is not None:
                results.append(SolveResult.model_validate_json(row.result))
    return results, [job_id for job_id in job_ids if job_id not in known]


def job_ids_beginning(conn: Connection, prefix: str, *, limit: int) -> list[str]:
    """Return up to `limit` ids that begin with the prefix, newest first."""
    # The index is on whole ids: a pattern is not looked up in it, in most collations.
    first, last = (prefix + "-".join(digit * n for n in (8, 4, 4, 4, 12))[len(prefix) :] for digit in "0f")
    query = select(jobs.c.id).where(jobs.c.id.between(first, last), jobs.c.id.startswith(prefix, autoescape=True))
    return [row.id for row in conn.execute(query.order_by(jobs.c.id.desc()).limit(limit))]
