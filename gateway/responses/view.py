"""A job as a response: what is shown of it at any moment, and how it is found again."""

import re
import uuid
from collections.abc import Sequence

from sqlalchemy import Connection

from ...schemas.chat_answers import created_at, refusal_text
from ...schemas.doors import Door
from ...schemas.errors import NotFound
from ...schemas.jobs import JobStatus, SolveResult
from ...schemas.response_objects import (
    IncompleteDetails,
    MessageItem,
    OutputItem,
    OutputRefusal,
    OutputText,
    OutputTokensDetails,
    ReasoningItem,
    ReasoningText,
    ResponseExtension,
    ResponseFailure,
    ResponseObject,
    ResponseReasoning,
    ResponseStatus,
    ResponseUsage,
    SummaryText,
    ending_of,
    response_id,
)
from ...schemas.responses import ResponseDetails
from ...schemas.trace import EventKind
from ...store.door_jobs import DoorJob, door_job, screened_plan
from ...store.jobs import events_after
from ...store.trace import EVENTS_MAX
from ..narration import Narrator

_ID = re.compile(r"resp_([0-9a-f]{32})")
_ID_CHARS_MAX = 64


def reasoning_id(job_id: str) -> str:
    """Return the id of its reasoning item."""
    return f"rs_{_hex(job_id)}"


def message_id(job_id: str) -> str:
    """Return the id of its message item."""
    return f"msg_{_hex(job_id)}"


def details_of(job: DoorJob) -> ResponseDetails:
    """Return what was kept of the body."""
    return ResponseDetails.model_validate(job.note.details)


def load_response(conn: Connection, job_id: str, *, tenant: str) -> DoorJob:
    """Return the job of a response by the job's id. Raises NotFound."""
    job = door_job(conn, job_id, tenant=tenant, door=Door.responses)
    if job is None:
        raise _no_such(response_id(job_id))
    return job


def find_response(conn: Connection, text: str, *, tenant: str) -> DoorJob:
    """Return the job of a stored response by the response's id. Raises NotFound."""
    found = _ID.fullmatch(text)
    job = None
    if found is not None:
        job = door_job(conn, str(uuid.UUID(found[1])), tenant=tenant, door=Door.responses)
    details = None if job is None else details_of(job)
    if job is None or details is None or details.deleted or not details.stored:
        raise _no_such(text)
    return job


def read_lines(conn: Connection, job: DoorJob) -> list[str]:
    """Return what has been told of the job so far."""
    narrator = Narrator(job.request.policy)
    lines: list[str] = []
    for event in events_after(conn, job.id, 0, limit=EVENTS_MAX):
        plan = screened_plan(conn, job.id) if narrator.wants_plan(event) else None
        result = job.result if event.kind is EventKind.finished else None
        lines.extend(narrator.lines(event, plan=plan, result=result))
    return lines


def shown_now(conn: Connection, job: DoorJob) -> ResponseObject:
    """Return the response as it is."""
    status: ResponseStatus = "queued" if job.status is JobStatus.queued else "in_progress"
    return response_object(
        job, status=status, lines=read_lines(conn, job), result=job.result, finished_at=job.finished_at
    )


def response_object(
    job: DoorJob,
    *,
    status: ResponseStatus,
    lines: Sequence[str] = (),
    result: SolveResult | None = None,
    finished_at: float | None = None,
) -> ResponseObject:
    """Return the response at a moment: after `lines` were told; with its result, if it has one by then.

    `status` counts while there is no result; `finished_at` is the Unix time in seconds of its end.
    """
    details = details_of(job)
    incomplete: IncompleteDetails | None = None
    if result is not None:
        status, reason = ending_of(result)
        incomplete = None if reason is None else IncompleteDetails(reason=reason)
    error = result.error if result is not None else None
    return ResponseObject(
        id=response_id(job.id),
        created_at=created_at(job.id),
        completed_at=int(finished_at) if status == "completed" and finished_at is not None else None,
        status=status,
        background=details.background,
        error=ResponseFailure(message=error.message) if status == "failed" and error is not None else None,
        incomplete_details=incomplete,
        instructions=details.instructions,
        max_output_tokens=details.max_output_tokens,
        model=job.note.model,
        output=output_items(job.id, lines, result),
        reasoning=ResponseReasoning(effort=details.effort),
        store=details.stored,
        temperature=details.temperature,
        top_p=details.top_p,
        usage=None if result is None else _usage(result),
        user=details.user,
        metadata=job.request.metadata,
        k2think=ResponseExtension(
            job_id=job.id,
            answer=None if result is None else result.answer,
            error_code=None if error is None else error.code,
            votes=result.selection.votes if result is not None and result.selection else 0,
        ),
    )


def output_items(job_id: str, lines: Sequence[str], result: SolveResult | None) -> tuple[OutputItem, ...]:
    """Return what was told and the answer, each if there is one."""
    items = (reasoning_item(job_id, lines, result), None if result is None else message_item(job_id, result))
    return tuple(item for item in items if item is not None)


def reasoning_item(job_id: str, lines: Sequence[str], result: SolveResult | None) -> ReasoningItem | None:
    """Return what was told so far and, at the end, the answer's reasoning; None = nothing."""
    reasoning = (result.reasoning if result is not None else None) or ""
    if not lines and not reasoning:
        return None
    return ReasoningItem(
        id=reasoning_id(job_id),
        status="in_progress" if result is None else "completed",
        summary=tuple(SummaryText(text=line) for line in lines),
        content=(ReasoningText(text=reasoning),) if reasoning else (),
    )


def message_item(job_id: str, result: SolveResult) -> MessageItem | None:
    """Return the answer, or why it is withheld; None = it came to neither."""
    status, _reason = ending_of(result)
    refusal = refusal_text(result)
    if refusal is None and result.content is None:
        return None
    part = OutputText(text=result.content or "") if refusal is None else OutputRefusal(refusal=refusal)
    return MessageItem(
        id=message_id(job_id), status="completed" if status == "completed" else "incomplete", content=(part,)
    )


def _usage(result: SolveResult) -> ResponseUsage:
    used = result.usage.total
    return ResponseUsage(
        input_tokens=used.prompt,
        output_tokens=used.completion,
        output_tokens_details=OutputTokensDetails(reasoning_tokens=used.reasoning),
        total_tokens=used.total,
    )


def _hex(job_id: str) -> str:
    return job_id.replace("-", "")


def _no_such(text: str) -> NotFound:
    return NotFound(
        f"no response {text[:_ID_CHARS_MAX]!r}: it does not exist, was deleted, or was made with `store` false"
    )
