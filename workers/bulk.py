"""Accepting jobs inside a transaction of the caller's, which commits them together with what it knows of them."""

from sqlalchemy import Connection

from ..agents.pipeline import first_step
from ..schemas.doors import DoorNote
from ..schemas.jobs import SolveRequest
from ..store.jobs import Accepted, accept_job


def accept_within(conn: Connection, request: SolveRequest, *, tenant: str, now: float, door: DoorNote) -> Accepted:
    """Accept a request that `submit.resolve` has filled in; its message is to be published after the commit.

    The caller has seen to it that there is room in the queues (`store.batch_lines.room_for_jobs`).
    """
    return accept_job(
        conn, request=request, first=first_step(request), tenant=tenant, now=now, door=door.model_dump_json()
    )
