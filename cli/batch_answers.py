"""What is written for each input line: OpenAI lines in the OpenAI batch shape, plain lines in a flat one of ours."""

import json
import re
from typing import Any

from ..schemas.chat_answers import DEFAULT_MODEL, chat_completion
from ..schemas.ids import uuid7
from ..schemas.jobs import JobStatus, SolveResult
from .batch_input import BadLine, InputLine, id_digest

BAD_LINE_CODE = "invalid_request"
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def answer_line(line: InputLine, result: SolveResult) -> dict[str, Any]:
    """Return the output line of a job that has ended, however it ended."""
    if line.openai:
        return _openai_answer(line, result)
    return {
        "id": line.id,
        "status": result.status.value,
        "answer": result.answer,
        "content": result.content,
        "reasoning": result.reasoning,
        "job_id": result.job_id or None,
        "error": result.error.model_dump() if result.error else None,
        "votes": result.selection.votes if result.selection else 0,
        "usage": result.usage.total.model_dump(),
        "calls": result.usage.calls,
        "seconds": round(result.timings.total, 3),
        "metadata": result.metadata,
    }


def bad_line(line: BadLine) -> dict[str, Any]:
    """Return the output line of an input line that could not be understood; `error.line` is its number."""
    error = {"code": BAD_LINE_CODE, "message": f"line {line.number}: {line.reason}", "line": line.number}
    if line.openai:
        return {"id": f"batch_req_{uuid7()}", "custom_id": line.id, "response": None, "error": error}
    return {"id": line.id, "status": "invalid", "answer": None, "content": None, "job_id": None, "error": error}


def encode(value: dict[str, Any]) -> bytes:
    """Return the line as it is written. Lone surrogates, which UTF-8 cannot carry, are replaced."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return _LONE_SURROGATE.sub("\N{REPLACEMENT CHARACTER}", text).encode() + b"\n"


def keys_of_input(line: InputLine | BadLine) -> tuple[bytes, ...]:
    """Return what a line may be found again by in the output: its number if it was bad, else its id."""
    by_number = _line_key(line.number)
    return (by_number,) if isinstance(line, BadLine) else (by_number, id_digest(line.id))


def key_of_output(value: dict[str, Any]) -> bytes | None:
    """Return the key of an output line; None when it is none of ours."""
    error = value.get("error")
    if isinstance(error, dict) and isinstance(error.get("line"), int):
        return _line_key(error["line"])
    line_id = value["custom_id"] if "custom_id" in value else value.get("id")
    return None if line_id is None else id_digest(line_id)


def succeeded(value: dict[str, Any]) -> bool:
    """Whether an output line holds an answer."""
    return value.get("status") == JobStatus.succeeded.value or bool(value.get("response"))


def _line_key(number: int) -> bytes:
    return b"line %d" % number


def _openai_answer(line: InputLine, result: SolveResult) -> dict[str, Any]:
    answer: dict[str, Any] = {"id": f"batch_req_{result.job_id}", "custom_id": line.id, "response": None, "error": None}
    if result.status is JobStatus.succeeded:
        body = chat_completion(line.model or DEFAULT_MODEL, [result])
        answer["response"] = {"status_code": 200, "request_id": result.job_id, "body": body}
    else:
        error = result.error
        code, message = (error.code, error.message) if error else (result.status.value, "no reason was recorded")
        answer["error"] = {"code": code, "message": message}
    return answer
