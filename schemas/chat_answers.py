"""The answer to a chat completion request, as OpenAI has it (api-reference/chat/object), with one field of our own."""

from collections.abc import Sequence
from typing import Any, Literal

from .base import Frozen
from .completion import FinishReason
from .jobs import CUT_OFF, JobStatus, SolveResult

DEFAULT_MODEL = "k2think"
"""Model name of the default policy."""


class ModelObject(Frozen):
    """A model name that is served."""

    id: str
    """As callers write it."""
    object: Literal["model"] = "model"
    """Kind of the object."""
    created: int = 0
    """Unix time in seconds at which it was made: not known, always 0."""
    owned_by: str
    """`k2think`, or the backend whose own model it is."""


class ModelList(Frozen):
    """The model names that are served, ours first."""

    object: Literal["list"] = "list"
    """Kind of the object."""
    data: tuple[ModelObject, ...]
    """The names."""


def is_completion(result: SolveResult) -> bool:
    """Whether the result is shown as a completion: an answer, a refusal, or text that was cut off."""
    cut_off = result.error is not None and result.error.code == CUT_OFF
    return cut_off or result.status in (JobStatus.succeeded, JobStatus.refused)


def completion_id(job_id: str) -> str:
    """Return the id of a job's completion on the wire."""
    return f"chatcmpl-{job_id}"


def created_at(job_id: str) -> int:
    """Unix time in seconds at which the job was accepted: the first 48 bits of a UUIDv7 are its milliseconds."""
    return int(job_id.replace("-", "")[:12], 16) // 1000


def finish_reason(result: SolveResult) -> str:
    """Return how a completion ended: stop, length, or content_filter."""
    if result.status is JobStatus.refused:
        return "content_filter"
    cut_off = result.status is not JobStatus.succeeded or result.finish_reason is FinishReason.length
    return "length" if cut_off else "stop"


def refusal_text(result: SolveResult) -> str | None:
    """Return why the answer is withheld, in general words; None = it is not."""
    if result.status is not JobStatus.refused:
        return None
    return result.error.message if result.error else "the answer was withheld"


def chat_usage(results: Sequence[SolveResult]) -> dict[str, Any]:
    """Return the tokens paid for, by all agents together."""
    used = [result.usage.total for result in results]
    return {
        "prompt_tokens": sum(item.prompt for item in used),
        "completion_tokens": sum(item.completion for item in used),
        "total_tokens": sum(item.total for item in used),
        "completion_tokens_details": {"reasoning_tokens": sum(item.reasoning for item in used)},
    }


def extension(result: SolveResult) -> dict[str, Any]:
    """Return what we tell of a job besides its answer."""
    return {
        "job_id": result.job_id,
        "answer": result.answer,
        "votes": result.selection.votes if result.selection else 0,
        "calls": result.usage.calls,
        "seconds": round(result.timings.total, 3),
    }


def chat_completion(model: str, results: Sequence[SolveResult]) -> dict[str, Any]:
    """Return the `chat.completion` object; `results` in the order of the choices, of which those without text are left out.

    With several choices each has its own `k2think`; the one of the whole is the first's.
    """
    first = results[0]
    choices = [_choice(index, result) for index, result in enumerate(results) if is_completion(result)]
    if len(results) > 1:
        choices = [{**choice, "k2think": extension(results[choice["index"]])} for choice in choices]
    return {
        "id": completion_id(first.job_id),
        "object": "chat.completion",
        "created": created_at(first.job_id),
        "model": model,
        "choices": choices,
        "usage": chat_usage(results),
        "k2think": extension(first),
    }


def _choice(index: int, result: SolveResult) -> dict[str, Any]:
    refusal = refusal_text(result)
    return {
        "index": index,
        "message": {
            "role": "assistant",
            "content": None if refusal else result.content or "",
            "refusal": refusal,
            "reasoning": result.reasoning,
            "reasoning_content": result.reasoning,
        },
        "logprobs": None,
        "finish_reason": finish_reason(result),
    }


def chat_chunk(
    model: str,
    job_id: str,
    *,
    index: int | None = None,
    delta: dict[str, Any] | None = None,
    end: SolveResult | None = None,
    usage: dict[str, Any] | None = None,
    with_usage: bool = False,
) -> dict[str, Any]:
    """Return a `chat.completion.chunk`; `job_id` is that of the first choice.

    `index` and `delta` are a choice's next piece, None = the chunk has no choice (it brings the usage). `end` is what the
    choice came to, with its last chunk. `with_usage`: whether the stream ends with the usage, so that all before say null.
    """
    choice = {
        "index": index,
        "delta": delta or {},
        "logprobs": None,
        "finish_reason": None if end is None else finish_reason(end),
    }
    return {
        "id": completion_id(job_id),
        "object": "chat.completion.chunk",
        "created": created_at(job_id),
        "model": model,
        "choices": [] if index is None else [choice],
        **({"usage": usage} if with_usage else {}),
        **({"k2think": extension(end)} if end is not None else {}),
    }
