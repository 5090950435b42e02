"""Whose a job is: another tenant's does not exist for the caller."""

from sqlalchemy import Connection, select

from ..schemas.errors import NotFound
from ..store.tables import jobs
from .access import Caller
from .services import Services

_ID_CHARS_MAX = 64


async def owned_job(services: Services, caller: Caller, job_id: str) -> None:
    """Check that the job exists and is the caller's. Raises NotFound, with the same words in both cases."""

    def owner(connection: Connection) -> str | None:
        return connection.execute(select(jobs.c.tenant).where(jobs.c.id == job_id)).scalar_one_or_none()

    known = len(job_id) <= _ID_CHARS_MAX and job_id.isascii() and job_id.isprintable()
    if not known or await services.database.read(owner) != caller.tenant:
        raise NotFound(f"no job {job_id[:_ID_CHARS_MAX]!r}")
