"""Jobs whose client waits for them, and what becomes of them when it leaves.

A request without an idempotency key is worked on while its client is there: closing the connection cancels its jobs.
One with a key is a promise to come back. It goes on when the connection breaks, and whoever sends the same again gets
the same jobs and the same answer.
"""

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncGenerator, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeVar

import structlog
from fastapi import Header, Request
from pydantic import BaseModel

from ..schemas.doors import DoorNote
from ..schemas.errors import IdempotencyConflict, K2ThinkError, NotFound
from ..schemas.jobs import SolveRequest
from ..store.door_jobs import door_note
from ..workers.ending import end_tasks
from .access import Caller
from .services import Services

CANCEL_TIMEOUT_S = 5.0
"""Longest wait for a cancellation. The sweeper does it when the database is away."""
CLIENT_LEFT = 499
"""Status of an answer that nobody waits for any more; for the log and the counters."""
BODY_DIGEST = "body"
"""Name under which a note keeps the digest of the body that it came with."""
T = TypeVar("T")
log = structlog.stdlib.get_logger(__name__)

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        description="The same key and body bring the same jobs and the same answer, and the work goes on when the "
        "client leaves; another body with the key is refused.",
    ),
]


@dataclass(slots=True)
class Attendance:
    """The jobs of one request, in the order of its choices."""

    job_ids: list[str] = field(default_factory=list[str])
    """UUIDv7 of each."""
    ended: bool = False
    """Set by whoever has seen them all end: nothing is left to cancel."""


def body_digest(body: BaseModel) -> str:
    """Return what tells two bodies apart: SHA-256, hex."""
    return hashlib.sha256(body.model_dump_json().encode()).hexdigest()


async def submit_noted(
    services: Services,
    caller: Caller,
    request: SolveRequest,
    note: DoorNote,
    *,
    attached: bool = False,
    notify: bool = False,
    job_id: str | None = None,
) -> str:
    """Submit a job, or find that of the request's idempotency key; return its id.

    The note holds the digest of the body. Raises what `Submitter.submit` raises, and IdempotencyConflict when the key
    came with another body, be it one that asks for the same work.
    """
    accepted = await services.submitter.submit(
        request, tenant=caller.tenant, attached=attached, job_id=job_id, door=note, notify=notify
    )
    if not accepted.created:
        known = await services.database.read(lambda connection: door_note(connection, accepted.job_id))
        same = known is not None and known.door is note.door and known.details.get(BODY_DIGEST)
        if same != note.details[BODY_DIGEST]:
            raise IdempotencyConflict(
                f"the idempotency key {request.idempotency_key!r} was used for another request "
                f"(job {accepted.job_id}): use a new key for a new request"
            )
    return accepted.job_id


@contextlib.asynccontextmanager
async def attend(
    services: Services, caller: Caller, submissions: Sequence[tuple[SolveRequest, DoorNote]]
) -> AsyncGenerator[Attendance]:
    """Submit jobs for a client that waits. When it is left before they `ended`, those without a key are cancelled.

    A job that the gateway cannot cancel, because it died, is cancelled by the sweeper: its subscription is gone.
    """
    attendance = Attendance()
    attached = [request.idempotency_key is None for request, _note in submissions]
    async with contextlib.AsyncExitStack() as presence:
        try:
            for (request, note), here in zip(submissions, attached, strict=True):
                job_id = await presence.enter_async_context(services.submitter.present()) if here else None
                attendance.job_ids.append(
                    await submit_noted(services, caller, request, note, attached=here, job_id=job_id)
                )
            yield attendance
        finally:
            if not attendance.ended:
                left = [job_id for job_id, here in zip(attendance.job_ids, attached, strict=False) if here]
                await _cancel(services, left)


async def while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T | None:
    """Return what the work comes to; None = the client left first, and the work was broken off."""
    working = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait((working, gone), return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        await end_tasks(working, gone)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _cancel(services: Services, job_ids: Sequence[str]) -> None:
    if not job_ids:
        return
    try:
        async with asyncio.timeout(CANCEL_TIMEOUT_S):
            for job_id in job_ids:
                with contextlib.suppress(NotFound):
                    await services.submitter.cancel(job_id, reason="the client that waited for it went away")
    except (TimeoutError, K2ThinkError) as exc:
        log.warning("cancel_failed", jobs=list(job_ids), reason=str(exc), hint="the sweeper does it")
