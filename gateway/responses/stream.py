"""A response as server-sent events (api-reference/responses-streaming), numbered from 0.

The sequence is a function of what is stored of the job: whoever lost a stream goes on after the last number that it saw,
at any gateway, and sees what it would have seen.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import structlog
from pydantic_core import to_json

from ...schemas.errors import K2ThinkError
from ...schemas.jobs import SolveResult
from ...schemas.response_objects import MessageItem, OutputText, ReasoningItem, ResponseStatus
from ...schemas.trace import EventKind
from ...store.door_jobs import DoorJob
from ..attendance import Attendance
from ..chat.stream import pieces
from ..errors import answer_of, error_object
from ..narration import Told, narrate
from ..services import Services
from ..sse import sse
from .view import details_of, message_item, reasoning_id, reasoning_item, response_object

log = structlog.stdlib.get_logger(__name__)
_Events = list[dict[str, Any]]


async def response_stream(
    services: Services, job: DoorJob, *, after: int = -1, attendance: Attendance | None = None
) -> AsyncGenerator[bytes]:
    """Yield the events with a number above `after`, as they come, to the end of the response."""
    script = Script(job)
    try:
        async with aclosing(narrate(services, job.id, job.request)) as story:
            async for told in story:
                if told.result is not None and attendance is not None:
                    attendance.ended = True
                for event in script.events(told):
                    if event["sequence_number"] > after:
                        yield _written(event)
    except K2ThinkError as exc:
        yield _written(_error(answer_of(exc)[1], script.number - 1))
    except Exception:
        log.exception("stream_broke", job=job.id)
        body = error_object("something broke inside the gateway; its log has the details", "server_error")
        yield _written(_error(body, script.number - 1))


class Script:
    """Turns what is told of a job, in order, into the events of its response."""

    def __init__(self, job: DoorJob) -> None:
        self._job = job
        self._lines: list[str] = []
        self._begun = False
        self.number = 0
        """Number of the next event."""

    def events(self, told: Told) -> _Events:
        """Return the events for what was told."""
        events: _Events = []
        kind = told.event.kind
        if kind is EventKind.accepted:
            events += self._state("queued", "response.created")
            if details_of(self._job).background:
                events += self._state("queued", "response.queued")
        if kind is EventKind.step_started and not self._begun:
            self._begun = True
            events += self._state("in_progress", "response.in_progress")
        for line in told.lines:
            events += self._line(line)
        if told.result is not None:
            events += self._end(told.result, told.event.at)
        for event in events:
            event["sequence_number"] = self.number
            self.number += 1
        return events

    def _state(self, status: ResponseStatus, kind: str) -> _Events:
        return [_event(kind, response=response_object(self._job, status=status))]

    def _line(self, line: str) -> _Events:
        """A part of the summary, whole."""
        place = {
            "item_id": reasoning_id(self._job.id),
            "output_index": 0,
            "summary_index": len(self._lines),
        }
        added = [] if self._lines else self._added()
        self._lines.append(line)
        return [
            *added,
            _event("response.reasoning_summary_part.added", **place, part={"type": "summary_text", "text": ""}),
            _event("response.reasoning_summary_text.delta", **place, delta=line),
            _event("response.reasoning_summary_text.done", **place, text=line),
            _event("response.reasoning_summary_part.done", **place, part={"type": "summary_text", "text": line}),
        ]

    def _added(self) -> _Events:
        item = ReasoningItem(id=reasoning_id(self._job.id), status="in_progress")
        return [_event("response.output_item.added", output_index=0, item=item)]

    def _end(self, result: SolveResult, at: float) -> _Events:
        reasoning = reasoning_item(self._job.id, self._lines, result)
        message = message_item(self._job.id, result)
        response = response_object(self._job, status="in_progress", lines=self._lines, result=result, finished_at=at)
        # There is no event for a response that was cancelled: its status tells.
        kind = {"completed": "response.completed", "incomplete": "response.incomplete"}.get(response.status)
        return [
            *([] if reasoning is None else self._reasoning(reasoning)),
            *([] if message is None else _message(message, 0 if reasoning is None else 1)),
            _event(kind or "response.failed", response=response),
        ]

    def _reasoning(self, item: ReasoningItem) -> _Events:
        """The end of the item, after the answer's own reasoning."""
        events = [] if self._lines else self._added()
        for content_index, part in enumerate(item.content):
            place = {"item_id": item.id, "output_index": 0, "content_index": content_index}
            empty = part.model_copy(update={"text": ""})
            events += [
                _event("response.content_part.added", **place, part=empty),
                *(_event("response.reasoning_text.delta", **place, delta=piece) for piece in pieces(part.text)),
                _event("response.reasoning_text.done", **place, text=part.text),
                _event("response.content_part.done", **place, part=part),
            ]
        return [*events, _event("response.output_item.done", output_index=0, item=item)]


def _message(item: MessageItem, output_index: int) -> _Events:
    (part,) = item.content
    place = {"item_id": item.id, "output_index": output_index, "content_index": 0}
    if isinstance(part, OutputText):
        empty = part.model_copy(update={"text": ""})
        told = [
            *(_event("response.output_text.delta", **place, delta=piece, logprobs=[]) for piece in pieces(part.text)),
            _event("response.output_text.done", **place, text=part.text, logprobs=[]),
        ]
    else:
        empty = part.model_copy(update={"refusal": ""})
        told = [
            _event("response.refusal.delta", **place, delta=part.refusal),
            _event("response.refusal.done", **place, refusal=part.refusal),
        ]
    begun = item.model_copy(update={"status": "in_progress", "content": ()})
    return [
        _event("response.output_item.added", output_index=output_index, item=begun),
        _event("response.content_part.added", **place, part=empty),
        *told,
        _event("response.content_part.done", **place, part=part),
        _event("response.output_item.done", output_index=output_index, item=item),
    ]


def _event(kind: str, **fields: Any) -> dict[str, Any]:
    return {"type": kind, **fields}


def _error(body: dict[str, Any], number: int) -> dict[str, Any]:
    """What went wrong with the stream, not with the response: it has no number of its own, and may be taken up again."""
    error = body["error"]
    told = {name: error[name] for name in ("code", "message", "param")}
    return {"type": "error", **told, "sequence_number": number}


def _written(event: dict[str, Any]) -> bytes:
    return sse(to_json(event).decode(), event=event["type"])
