"""The endpoint of /v1/chat/completions."""

import asyncio
import contextlib
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from ...schemas.chat import ChatBody
from ...schemas.doors import Door, DoorNote
from ...schemas.jobs import SolveRequest, SolveResult
from ..access import Creator, TheServices
from ..attendance import BODY_DIGEST, CLIENT_LEFT, Attendance, IdempotencyKey, attend, body_digest, while_connected
from ..error_answers import CREATING, error_answers
from ..models import completion, error_of, requests_of
from ..services import Services
from ..sse import EventStream
from .stream import Choice, chat_stream

NO_RETRY = {"x-should-retry": "false"}
"""Header that keeps the openai client from sending again what would come to the same."""
_SHOWN_WHILE_STREAMING = {"show_plan": True}

router = APIRouter(prefix="/v1/chat", tags=["chat"])


@router.post(
    "/completions",
    response_model=None,
    responses={
        200: {
            "description": "A `chat.completion`; with `stream`, `chat.completion.chunk` objects as server-sent events.",
            "content": {
                "application/json": {"schema": {"type": "object"}},
                "text/event-stream": {"schema": {"type": "string"}},
            },
        },
        **error_answers(*CREATING, 404, 422),
    },
)
async def create_chat_completion(
    request: Request,
    body: ChatBody,
    caller: Creator,
    services: TheServices,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Solve the last user turn of a conversation. Without an idempotency key the work ends when the client leaves."""
    requests = requests_of(
        body,
        services.settings,
        idempotency_key=idempotency_key,
        defaults=_SHOWN_WHILE_STREAMING if body.stream else None,
    )
    details: dict[str, Any] = {"user": body.user, BODY_DIGEST: body_digest(body)}
    submissions = [
        (each, DoorNote(door=Door.chat, model=body.model, index=index, details=details))
        for index, each in enumerate(requests)
    ]
    async with contextlib.AsyncExitStack() as resources:
        attendance = await resources.enter_async_context(attend(services, caller, submissions))
        if not body.stream:
            results = await while_connected(request, _results(services, attendance))
            return Response(status_code=CLIENT_LEFT) if results is None else _answer(body.model, results)
        source = chat_stream(
            services,
            attendance,
            _choices(attendance, requests),
            model=body.model,
            with_usage=body.stream_options.include_usage,
        )
        return EventStream(source, keepalive_s=services.settings.gateway.keepalive_s, resources=resources.pop_all())


async def _results(services: Services, attendance: Attendance) -> list[SolveResult]:
    results = await asyncio.gather(*(services.submitter.wait(job_id) for job_id in attendance.job_ids))
    attendance.ended = True
    return results


def _answer(model: str, results: list[SolveResult]) -> Response:
    failures = [error_of(result) for result in results]
    if failures[0] is None or None in failures:
        return JSONResponse(completion(model, results))
    status, content = failures[0]
    return JSONResponse(content, status, None if status == 503 else NO_RETRY)


def _choices(attendance: Attendance, requests: tuple[SolveRequest, ...]) -> list[Choice]:
    return [Choice(index, *pair) for index, pair in enumerate(zip(attendance.job_ids, requests, strict=True))]
