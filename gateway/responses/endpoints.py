"""The endpoints of /v1/responses."""

import contextlib
from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import JSONResponse, Response
from pydantic import ValidationError
from sqlalchemy import Connection

from ...schemas.doors import Door, DoorNote
from ...schemas.errors import InvalidRequest, explain
from ...schemas.jobs import SolveRequest
from ...schemas.response_objects import DeletedResponse, GivenItem, GivenItemList, GivenText, ResponseObject
from ...schemas.responses import ResponseBody, ResponseDetails
from ...store.door_jobs import DoorJob, change_note
from ..access import AnyCaller, Caller, Creator, TheServices
from ..attendance import CLIENT_LEFT, IdempotencyKey, attend, body_digest, submit_noted, while_connected
from ..chat.completions import NO_RETRY
from ..error_answers import CREATING, LOOKING, error_answers
from ..models import error_of, requests_of
from ..services import Services
from ..sse import EventStream
from .stream import response_stream
from .view import details_of, find_response, load_response, message_id, shown_now

PAGE_MAX = 100
SEQUENCE_MAX = 2**31
_STREAM = {"text/event-stream": {"schema": {"type": "string"}}}
_IN_OUR_WORDS = {
    "messages": "input",
    "reasoning_effort": "reasoning.effort",
    "max_completion_tokens": "max_output_tokens",
}
"""Parameters of a chat completion as they are called here."""

router = APIRouter(prefix="/v1/responses", tags=["responses"])

ResponseId = Annotated[str, Path(max_length=64, description="Id of the response.")]


@router.post(
    "",
    response_model=ResponseObject,
    responses={
        200: {"description": "The response; with `stream`, its events as server-sent events.", "content": _STREAM},
        **error_answers(*CREATING, 404, 422),
    },
)
async def create_response(
    request: Request,
    body: ResponseBody,
    caller: Creator,
    services: TheServices,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Solve the last user turn. In the background, or with an idempotency key, the work goes on when the client leaves."""
    solve = _request_of(body, services, idempotency_key)
    details = ResponseDetails.of(body, digest=body_digest(body))
    note = DoorNote(door=Door.responses, model=body.model, details=details.model_dump())
    if body.background:
        job_id = await submit_noted(services, caller, solve, note, notify=True)
        job = await _load(services, caller, job_id)
        if body.stream:
            return EventStream(response_stream(services, job), keepalive_s=services.settings.gateway.keepalive_s)
        return await _shown(services, job)
    async with contextlib.AsyncExitStack() as resources:
        attendance = await resources.enter_async_context(attend(services, caller, ((solve, note),)))
        (job_id,) = attendance.job_ids
        if body.stream:
            source = response_stream(services, await _load(services, caller, job_id), attendance=attendance)
            keepalive_s = services.settings.gateway.keepalive_s
            return EventStream(source, keepalive_s=keepalive_s, resources=resources.pop_all())
        result = await while_connected(request, services.submitter.wait(job_id))
        if result is None:
            return Response(status_code=CLIENT_LEFT)
        attendance.ended = True
    failed = error_of(result)
    if failed is not None:
        status, content = failed
        return JSONResponse(content, status, None if status == 503 else NO_RETRY)
    return await _shown(services, await _load(services, caller, job_id))


@router.get(
    "/{response_id}",
    response_model=ResponseObject,
    responses={
        200: {"description": "The response; with `stream`, its events as server-sent events.", "content": _STREAM},
        **error_answers(*LOOKING),
    },
)
async def get_response(
    response_id: ResponseId,
    caller: AnyCaller,
    services: TheServices,
    stream: Annotated[bool, Query(description="Whether to follow its events, from the first.")] = False,
    starting_after: Annotated[
        int | None, Query(ge=-1, le=SEQUENCE_MAX, description="With `stream`: only events with a higher number.")
    ] = None,
    include_obfuscation: Annotated[bool, Query(description="Accepted, and without effect.")] = False,
) -> Response:
    """Look at a stored response, or follow it: what has happened so far, then what happens, up to its end."""
    if starting_after is not None and not stream:
        raise InvalidRequest("starting_after: it counts events, so it needs stream=true", param="starting_after")
    job = await _find(services, caller, response_id)
    if not stream:
        return await _shown(services, job)
    source = response_stream(services, job, after=-1 if starting_after is None else starting_after)
    return EventStream(source, keepalive_s=services.settings.gateway.keepalive_s)


@router.post("/{response_id}/cancel", response_model=ResponseObject, responses=error_answers(*LOOKING))
async def cancel_response(response_id: ResponseId, caller: AnyCaller, services: TheServices) -> Response:
    """End a background response. One that has ended already is returned as it is."""
    job = await _find(services, caller, response_id)
    if not details_of(job).background:
        raise InvalidRequest("only a background response can be cancelled; any other ends when its client leaves")
    if not job.status.final:
        await services.submitter.cancel(job.id)
    return await _shown(services, await _load(services, caller, job.id))


@router.delete("/{response_id}", responses=error_answers(*LOOKING))
async def delete_response(response_id: ResponseId, caller: AnyCaller, services: TheServices) -> DeletedResponse:
    """End it if it is worked on, and serve it no more. Its job stays in the ledger, for /v1/jobs and the trace page."""
    job = await _find(services, caller, response_id)
    if not job.status.final:
        await services.submitter.cancel(job.id)
    details = details_of(job).model_copy(update={"deleted": True})
    note = job.note.model_copy(update={"details": details.model_dump()})
    await services.database.run(lambda connection: change_note(connection, job.id, note))
    return DeletedResponse(id=response_id)


@router.get("/{response_id}/input_items", responses=error_answers(*LOOKING))
async def list_input_items(
    response_id: ResponseId,
    caller: AnyCaller,
    services: TheServices,
    limit: Annotated[int, Query(ge=1, le=PAGE_MAX, description="Turns at most.")] = 20,
    order: Annotated[Literal["asc", "desc"], Query(description="Oldest or newest first.")] = "desc",
    after: Annotated[str | None, Query(max_length=64, description="Last turn of the page before.")] = None,
) -> GivenItemList:
    """List the turns that a stored response was asked with."""
    items = _given_items(await _find(services, caller, response_id))
    if order == "desc":
        items.reverse()
    if after is not None:
        ids = [item.id for item in items]
        if after not in ids:
            raise InvalidRequest("after: no such turn: give the last_id of the page before", param="after")
        items = items[ids.index(after) + 1 :]
    page = items[:limit]
    first, last = (page[0].id, page[-1].id) if page else (None, None)
    return GivenItemList(data=tuple(page), first_id=first, last_id=last, has_more=len(items) > limit)


def _request_of(body: ResponseBody, services: Services, key: str | None) -> SolveRequest:
    """Raises UnknownModel, InvalidRequest that names the parameter as it is called here."""
    defaults = {"show_plan": True} if body.stream or body.background else None
    try:
        (solve,) = requests_of(body.as_chat(), services.settings, idempotency_key=key, defaults=defaults)
    except ValidationError as exc:
        raise InvalidRequest(explain(exc), param="input") from exc
    except InvalidRequest as exc:
        raise InvalidRequest(str(exc), param=_IN_OUR_WORDS.get(exc.param or "", exc.param)) from exc
    return solve


async def _load(services: Services, caller: Caller, job_id: str) -> DoorJob:
    return await services.database.read(lambda connection: load_response(connection, job_id, tenant=caller.tenant))


async def _find(services: Services, caller: Caller, response_id: str) -> DoorJob:
    return await services.database.read(lambda connection: find_response(connection, response_id, tenant=caller.tenant))


async def _shown(services: Services, job: DoorJob) -> Response:
    def read(connection: Connection) -> ResponseObject:
        return shown_now(connection, job)

    shown = await services.database.read(read)
    return Response(shown.model_dump_json(), media_type="application/json")


def _given_items(job: DoorJob) -> list[GivenItem]:
    turns = job.request.conversation[1 if details_of(job).instructions else 0 :]
    return [
        GivenItem(
            id=f"{message_id(job.id)}_{index}",
            role=turn.role,
            content=(GivenText(type="output_text" if turn.role == "assistant" else "input_text", text=turn.content),),
        )
        for index, turn in enumerate(turns)
    ]
