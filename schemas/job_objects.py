"""What /v1/jobs answers with. The Python client reads the same types."""

from typing import Literal

from .base import Frozen
from .doors import Door
from .jobs import JobStatus, SolveResult


class JobObject(Frozen):
    """A job as /v1/jobs shows it."""

    id: str
    """UUIDv7 of the job."""
    object: Literal["job"] = "job"
    """Kind of the object."""
    status: JobStatus
    """State."""
    created_at: float
    """Unix time in seconds of its acceptance."""
    started_at: float | None = None
    """Unix time in seconds at which an agent first took it up; None = not yet."""
    finished_at: float | None = None
    """Unix time in seconds of its end; None = not finished."""
    door: Door | None = None
    """Where it came in over HTTP; None = by another way (command line, Celery)."""
    problem: str
    """Beginning of the problem; `[withheld]` where the screening did not let the request pass."""
    answer: str | None = None
    """Beginning of the final answer; None = none, or not yet."""
    error_code: str | None = None
    """Why there is no answer; None = there is, or not yet."""
    metadata: dict[str, str] = {}
    """The caller's own notes. Always empty in lists."""
    result: SolveResult | None = None
    """What it came to; None = not finished. Always None in lists."""


class JobList(Frozen):
    """A page of jobs, newest first."""

    object: Literal["list"] = "list"
    """Kind of the object."""
    data: tuple[JobObject, ...]
    """The jobs, without their results."""
    first_id: str | None = None
    """Id of the first job of the page; None = the page is empty."""
    last_id: str | None = None
    """Id of the last job of the page, to be given as `after` for the next one; None = the page is empty."""
    has_more: bool = False
    """Whether older jobs follow."""
