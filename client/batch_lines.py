"""The lines of a batch: what goes in, and what comes back."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from pydantic_core import to_json

from ..schemas.base import Frozen
from ..schemas.batches import ENDPOINTS, BatchObject
from ..schemas.completion import TokenUsage
from ..schemas.errors import InvalidRequest
from ..schemas.jobs import JobError
from .failures import not_understood
from .problems import ChecksLike, PolicyLike, Problem, solve_request


@dataclass(frozen=True, slots=True)
class BatchItem:
    """A problem of a batch with settings of its own."""

    problem: Problem
    """In words, or a conversation."""
    custom_id: str | None = None
    """What its result is found by; None = its number in the batch, from 0."""
    policy: PolicyLike | None = None
    """How to solve it; None = the batch's."""
    checks: ChecksLike | None = None
    """Its own checks; None = none."""
    metadata: Mapping[str, str] | None = None
    """The caller's own notes, kept with the job; None = none."""


class LineResult(Frozen):
    """What one problem of a batch came to."""

    custom_id: str
    """Which one."""
    job_id: str | None
    """Its job, for `get` and `trace`; None = it never got one."""
    status_code: int | None
    """HTTP status that the request would have had by itself; None = it was never run."""
    answer: str | None = None
    """The extracted final answer; None when there is none (a free text may have only `content`)."""
    content: str | None = None
    """The answer text."""
    reasoning: str | None = None
    """The winner's reasoning."""
    refusal: str | None = None
    """Why the answer is withheld; None = it is not."""
    finish_reason: str | None = None
    """stop, length or content_filter; None = there is no completion."""
    usage: TokenUsage = TokenUsage()
    """Tokens paid for, all agents together."""
    error: JobError | None = None
    """Why there is no answer; None = there is, or it is withheld."""

    @property
    def ok(self) -> bool:
        """Whether there is an answer."""
        return self.error is None and self.refusal is None


@dataclass(frozen=True, slots=True)
class SolvedBatch:
    """A batch that has ended."""

    batch: BatchObject
    """With its counts, its tokens, and the ids of its files."""
    results: dict[str, LineResult]
    """One for each problem, found by custom_id, in the order in which they were given."""


def input_line(item: BatchItem, custom_id: str, *, policy: PolicyLike | None, model: str) -> bytes:
    """Return the item as a line of the input file. Raises InvalidRequest that names the item."""
    try:
        request = solve_request(
            item.problem,
            policy=policy if item.policy is None else item.policy,
            checks=item.checks,
            metadata=item.metadata,
        )
    except InvalidRequest as exc:
        raise InvalidRequest(f"problem {custom_id!r}: {exc}", param=exc.param) from exc
    problem = request.get("problem")
    body: dict[str, Any] = {
        "model": model,
        "messages": request.get("messages") or [{"role": "user", "content": problem}],
        "k2think": {name: request[name] for name in ("policy", "checks") if name in request},
    }
    if item.metadata:
        body["metadata"] = request["metadata"]
    return to_json({"custom_id": custom_id, "method": "POST", "url": ENDPOINTS[0], "body": body}) + b"\n"


class _Message(Frozen):
    content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None


class _Choice(Frozen):
    message: _Message
    finish_reason: str | None = None


class _Tokens(Frozen):
    prompt_tokens: int = 0
    completion_tokens: int = 0
    completion_tokens_details: dict[str, int | None] = {}


class _Extension(Frozen):
    job_id: str | None = None
    answer: str | None = None


class _Error(Frozen):
    message: str
    code: str | None = None
    type: str | None = None


class _Body(Frozen):
    choices: tuple[_Choice, ...] = ()
    usage: _Tokens = _Tokens()
    k2think: _Extension = _Extension()
    error: _Error | None = None


class _Response(Frozen):
    status_code: int
    request_id: str | None = None
    body: _Body


class _Line(Frozen):
    custom_id: str
    response: _Response | None = None
    error: _Error | None = None


def output_line(raw: bytes) -> LineResult:
    """Understand a line of an output or error file. Raises GatewayError."""
    try:
        line = _Line.model_validate_json(raw, extra="ignore")
    except ValidationError as exc:
        raise not_understood(exc, "a line of a batch's output") from exc
    response = line.response
    body = _Body() if response is None else response.body
    error = line.error or body.error
    choice = body.choices[0] if body.choices else _Choice(message=_Message())
    return LineResult(
        custom_id=line.custom_id,
        job_id=None if response is None else body.k2think.job_id or response.request_id,
        status_code=None if response is None else response.status_code,
        answer=body.k2think.answer,
        content=choice.message.content,
        reasoning=choice.message.reasoning,
        refusal=choice.message.refusal,
        finish_reason=choice.finish_reason,
        usage=TokenUsage(
            prompt=body.usage.prompt_tokens,
            completion=body.usage.completion_tokens,
            reasoning=body.usage.completion_tokens_details.get("reasoning_tokens") or 0,
        ),
        error=None if error is None else JobError(code=error.code or error.type or "failed", message=error.message),
    )
