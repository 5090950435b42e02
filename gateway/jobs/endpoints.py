"""The endpoints of /v1/jobs."""

from typing import Annotated

from fastapi import APIRouter, Header, Path, Query, Response
from sqlalchemy import Connection

from ...schemas.doors import Door, DoorNote
from ...schemas.errors import InvalidRequest
from ...schemas.job_objects import JobList, JobObject
from ...schemas.jobs import JobStatus, SolveRequest
from ...schemas.trace import JobTrace
from ...schemas.withheld import withhold
from ...store.job_views import job_object, list_job_objects
from ...store.jobs import job_trace
from ..access import AnyCaller, Creator, TheServices
from ..attendance import BODY_DIGEST, IdempotencyKey, body_digest, submit_noted
from ..error_answers import CREATING, LOOKING, error_answers
from ..sse import EventStream
from .events import job_events

PAGE_MAX = 100
SEQ_MAX = 2**63 - 1

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

JobId = Annotated[str, Path(max_length=64, description="Id of the job.")]


@router.post("", status_code=202, responses=error_answers(*CREATING))
async def create_job(
    body: SolveRequest,
    response: Response,
    caller: Creator,
    services: TheServices,
    idempotency_key: IdempotencyKey = None,
) -> JobObject:
    """Submit a job. It goes on when the client leaves."""
    if idempotency_key is not None:
        if body.idempotency_key not in (None, idempotency_key):
            raise InvalidRequest(
                "the header Idempotency-Key and the body's idempotency_key differ: send one of them, or both the same",
                param="idempotency_key",
            )
        body = body.model_copy(update={"idempotency_key": idempotency_key})
    digest = body_digest(body.model_copy(update={"idempotency_key": None}))
    note = DoorNote(door=Door.jobs, details={BODY_DIGEST: digest})
    job_id = await submit_noted(services, caller, body, note, notify=True)
    response.headers["Location"] = f"/v1/jobs/{job_id}"
    return await services.database.read(lambda connection: job_object(connection, job_id, tenant=caller.tenant))


@router.get("", responses=error_answers(400, 401, 403, 503))
async def list_jobs(
    caller: AnyCaller,
    services: TheServices,
    status: Annotated[JobStatus | None, Query(description="Only jobs in this state.")] = None,
    door: Annotated[Door | None, Query(description="Only jobs that came in there.")] = None,
    created_after: Annotated[
        float | None, Query(allow_inf_nan=False, description="Unix time in seconds, exclusive.")
    ] = None,
    created_before: Annotated[
        float | None, Query(allow_inf_nan=False, description="Unix time in seconds, exclusive.")
    ] = None,
    after: Annotated[
        str | None, Query(max_length=64, description="Last job of the page before: older ones follow.")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=PAGE_MAX, description="Jobs at most.")] = 20,
) -> JobList:
    """List jobs, newest first, without their results."""
    found, more = await services.database.read(
        lambda connection: list_job_objects(
            connection,
            tenant=caller.tenant,
            status=status,
            door=door,
            created_after=created_after,
            created_before=created_before,
            after=after,
            limit=limit,
        )
    )
    first, last = (found[0].id, found[-1].id) if found else (None, None)
    return JobList(data=tuple(found), first_id=first, last_id=last, has_more=more)


@router.get("/{job_id}", responses=error_answers(*LOOKING))
async def get_job(job_id: JobId, caller: AnyCaller, services: TheServices) -> JobObject:
    """Look at a job; once it is final, with its result."""
    return await services.database.read(lambda connection: job_object(connection, job_id, tenant=caller.tenant))


@router.post("/{job_id}/cancel", responses=error_answers(*LOOKING))
async def cancel_job(job_id: JobId, caller: AnyCaller, services: TheServices) -> JobObject:
    """End a job. One that has ended already is returned as it is."""
    found = await services.database.read(lambda connection: job_object(connection, job_id, tenant=caller.tenant))
    if found.status.final:
        return found
    await services.submitter.cancel(found.id)
    return await services.database.read(lambda connection: job_object(connection, found.id, tenant=caller.tenant))


@router.get(
    "/{job_id}/events",
    response_class=EventStream,
    responses={
        200: {
            "description": "JobEvent objects as server-sent events; the id of each is its seq. Ends after `finished`.",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        },
        **error_answers(*LOOKING),
    },
)
async def stream_events(
    job_id: JobId,
    caller: AnyCaller,
    services: TheServices,
    after: Annotated[int, Query(ge=0, le=SEQ_MAX, description="Only events with a higher seq.")] = 0,
    last_event_id: Annotated[
        int | None, Header(ge=0, le=SEQ_MAX, description="As `after`, and wins: browsers send it when they reconnect.")
    ] = None,
) -> EventStream:
    """Follow a job: what has happened so far, then what happens, up to its end."""
    found = await services.database.read(lambda connection: job_object(connection, job_id, tenant=caller.tenant))
    source = job_events(services, found.id, after=after if last_event_id is None else last_event_id)
    return EventStream(source, keepalive_s=services.settings.gateway.keepalive_s)


@router.get("/{job_id}/trace", responses=error_answers(*LOOKING))
async def get_trace(job_id: JobId, caller: AnyCaller, services: TheServices) -> JobTrace:
    """Everything about a job, with the models' text where it has passed the screening."""

    def read(connection: Connection) -> JobTrace:
        owned = job_object(connection, job_id, tenant=caller.tenant)
        return job_trace(connection, owned.id)

    return withhold(await services.database.read(read))
