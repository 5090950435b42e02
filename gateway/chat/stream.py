"""A chat completion as server-sent events: plan and progress as reasoning, then the screened answer."""

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import structlog

from ...schemas.chat_answers import chat_chunk, chat_usage, is_completion, refusal_text
from ...schemas.errors import K2ThinkError
from ...schemas.jobs import SolveRequest, SolveResult
from ...workers.ending import end_tasks
from ..attendance import Attendance
from ..errors import answer_of, error_object
from ..models import error_of
from ..narration import Told, narrate
from ..services import Services
from ..sse import sse

PIECE_CHARS = 400
"""Characters of an answer or its reasoning that one chunk carries."""
DONE = b"data: [DONE]\n\n"
log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Choice:
    """One choice of the answer, which is a job."""

    index: int
    job_id: str
    request: SolveRequest


async def chat_stream(
    services: Services, attendance: Attendance, choices: Sequence[Choice], *, model: str, with_usage: bool
) -> AsyncGenerator[bytes]:
    """Yield the events. What goes wrong after the first of them is an event with an error, and the last.

    A choice that comes to no completion is left without an end, as it is left out of a plain answer; the error is told
    when no choice comes to one.
    """
    first = choices[0].job_id

    def chunk(**fields: Any) -> bytes:
        return sse(json.dumps(chat_chunk(model, first, with_usage=with_usage, **fields), ensure_ascii=False))

    results: dict[int, SolveResult] = {}
    told_any: set[int] = set()
    try:
        for choice in choices:
            yield chunk(index=choice.index, delta={"role": "assistant", "content": ""})
        async with aclosing(_merged(services, choices)) as merged:
            async for index, told in merged:
                for line in told.lines:
                    told_any.add(index)
                    yield chunk(index=index, delta=_reasoning(f"{line}\n"))
                if told.result is None:
                    continue
                results[index] = told.result
                if is_completion(told.result):
                    for delta in _answer(told.result, after_lines=index in told_any):
                        yield chunk(index=index, delta=delta)
                    yield chunk(index=index, end=told.result)
        attendance.ended = True
        in_order = [results[choice.index] for choice in choices]
        failures = [error_of(result) for result in in_order]
        if failures[0] is not None and None not in failures:
            yield sse(json.dumps(failures[0][1]))
            return
        if with_usage:
            yield chunk(usage=chat_usage(in_order))
        yield DONE
    except K2ThinkError as exc:
        yield sse(json.dumps(answer_of(exc)[1]))
    except Exception:
        log.exception("stream_broke", job=first)
        yield sse(
            json.dumps(error_object("something broke inside the gateway; its log has the details", "server_error"))
        )


def pieces(text: str) -> list[str]:
    """Return the text in the pieces in which it is sent."""
    return [text[start : start + PIECE_CHARS] for start in range(0, len(text), PIECE_CHARS)]


def _reasoning(text: str) -> dict[str, str]:
    """A delta of reasoning, under both names that clients look for."""
    return {"reasoning_content": text, "reasoning": text}


def _answer(result: SolveResult, *, after_lines: bool) -> list[dict[str, str]]:
    refusal = refusal_text(result)
    if refusal is not None:
        return [{"refusal": refusal}]
    reasoning = result.reasoning or ""
    if reasoning and after_lines:
        reasoning = f"\n{reasoning}"
    return [*map(_reasoning, pieces(reasoning)), *({"content": piece} for piece in pieces(result.content or ""))]


async def _merged(services: Services, choices: Sequence[Choice]) -> AsyncGenerator[tuple[int, Told]]:
    """Yield what is told of all choices, as it comes, until all have ended."""
    queue: asyncio.Queue[tuple[int, Told | Exception | None]] = asyncio.Queue()

    async def pump(choice: Choice) -> None:
        try:
            async with aclosing(narrate(services, choice.job_id, choice.request)) as story:
                async for told in story:
                    queue.put_nowait((choice.index, told))
            queue.put_nowait((choice.index, None))
        except Exception as exc:
            queue.put_nowait((choice.index, exc))

    pumps = [asyncio.ensure_future(pump(choice)) for choice in choices]
    try:
        left = len(pumps)
        while left:
            index, item = await queue.get()
            if isinstance(item, Exception):
                raise item
            if item is None:
                left -= 1
            else:
                yield index, item
    finally:
        await end_tasks(*pumps)
