"""Accepting jobs inside a transaction of the caller's, which commits them together with what it knows of them."""

from sqlalchemy import Connection

from ..agents.pipeline import first_step
from ..schemas.doors import DoorNote
from ..schemas.jobs import SolveRequest
from ..schemas.settings import Settings
from ..store.jobs import Accepted, accept_job


def accept_within(
    conn: Connection, request: SolveRequest, settings: Settings, *, tenant: str, now: float, door: DoorNote
) -> Accepted:
    """Accept a request that `submit.resolve` has filled in; its message is to be published after the commit.

    Raises QueueFull before anything is written.
    """
    return accept_job(
        conn,
        request=request,
        first=first_step(request),
        tenant=tenant,
        now=now,
        queue_max=settings.queue_max,
        door=door.model_dump_json(),
    )
