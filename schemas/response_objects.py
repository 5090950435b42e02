"""A response, as OpenAI has it (api-reference/responses/object), with one field of our own."""

from typing import Annotated, Any, Literal

from pydantic import Field

from .base import Frozen
from .completion import FinishReason, Role
from .jobs import CUT_OFF, JobStatus, SolveResult

ResponseStatus = Literal["queued", "in_progress", "completed", "failed", "incomplete", "cancelled"]
ItemStatus = Literal["in_progress", "completed", "incomplete"]


class SummaryText(Frozen):
    """A piece of a summary."""

    type: Literal["summary_text"] = "summary_text"
    """Kind of the piece."""
    text: str
    """The text."""


class ReasoningText(Frozen):
    """The reasoning of the answer."""

    type: Literal["reasoning_text"] = "reasoning_text"
    """Kind of the piece."""
    text: str
    """The text."""


class ReasoningItem(Frozen):
    """What was told before the answer, and the answer's own reasoning."""

    id: str
    """Id of the item."""
    type: Literal["reasoning"] = "reasoning"
    """Kind of the item."""
    status: ItemStatus
    """State."""
    summary: tuple[SummaryText, ...] = ()
    """The plan, once it was screened, and the progress so far."""
    content: tuple[ReasoningText, ...] = ()
    """The screened reasoning of the answer; empty = there is none, or not yet."""


class OutputText(Frozen):
    """The screened answer."""

    type: Literal["output_text"] = "output_text"
    """Kind of the piece."""
    text: str
    """The text."""
    annotations: tuple[str, ...] = ()
    """Always empty."""
    logprobs: tuple[float, ...] = ()
    """Always empty; would be natural logarithms, without unit (not seconds)."""


class OutputRefusal(Frozen):
    """Why the answer is withheld."""

    type: Literal["refusal"] = "refusal"
    """Kind of the piece."""
    refusal: str
    """The reason, in general words."""


class MessageItem(Frozen):
    """The answer."""

    id: str
    """Id of the item."""
    type: Literal["message"] = "message"
    """Kind of the item."""
    role: Literal["assistant"] = "assistant"
    """Who speaks."""
    status: ItemStatus
    """State."""
    content: tuple[Annotated[OutputText | OutputRefusal, Field(discriminator="type")], ...] = ()
    """One piece: the answer, or why it is withheld."""


OutputItem = Annotated[ReasoningItem | MessageItem, Field(discriminator="type")]


class ResponseFailure(Frozen):
    """Why there is no answer."""

    code: Literal["server_error"] = "server_error"
    """One of OpenAI's codes; our own is in `k2think.error_code`."""
    message: str
    """What happened, why, and what to do."""


class IncompleteDetails(Frozen):
    """Why the answer is not whole."""

    reason: Literal["max_output_tokens", "content_filter"]
    """The limit on tokens, or the safety agent."""


class InputTokensDetails(Frozen):
    """Of the prompts' tokens."""

    cached_tokens: int = 0
    """Always 0: not told by all backends."""
    cache_write_tokens: int = 0
    """Always 0: not told by all backends."""


class OutputTokensDetails(Frozen):
    """Of the tokens generated."""

    reasoning_tokens: int
    """Tokens of the reasoning."""


class ResponseUsage(Frozen):
    """Tokens paid for, by all agents together."""

    input_tokens: int
    """Tokens of the prompts."""
    input_tokens_details: InputTokensDetails = InputTokensDetails()
    """Of these, from a cache."""
    output_tokens: int
    """Tokens generated, reasoning included."""
    output_tokens_details: OutputTokensDetails
    """Of these, the reasoning."""
    total_tokens: int
    """Both together."""


class ResponseReasoning(Frozen):
    """How much thinking was asked for."""

    effort: str | None = None
    """As asked for; None = the policy's own."""
    summary: str | None = None
    """Always None."""


class ResponseExtension(Frozen):
    """What we tell besides OpenAI's fields."""

    job_id: str
    """UUIDv7 of the job, for /v1/jobs and the trace page."""
    answer: str | None = None
    """The final answer by itself; None = none, or not yet."""
    error_code: str | None = None
    """Why there is no answer; None = there is, or not yet."""
    votes: int = 0
    """Candidates that gave the answer."""


class GivenText(Frozen):
    """The text of a turn that was sent."""

    type: Literal["input_text", "output_text"]
    """Kind of the piece: output_text in turns of the assistant."""
    text: str
    """The text."""
    annotations: tuple[str, ...] = ()
    """Always empty."""


class GivenItem(Frozen):
    """A turn that was sent."""

    id: str
    """Id of the item."""
    type: Literal["message"] = "message"
    """Kind of the item."""
    role: Role
    """Who speaks."""
    status: Literal["completed"] = "completed"
    """State."""
    content: tuple[GivenText, ...]
    """One piece."""


class GivenItemList(Frozen):
    """A page of the turns that a response was asked with; the instructions are not among them."""

    object: Literal["list"] = "list"
    """Kind of the object."""
    data: tuple[GivenItem, ...]
    """The turns."""
    first_id: str | None = None
    """Id of the first turn of the page; None = the page is empty."""
    last_id: str | None = None
    """Id of the last turn of the page, to be given as `after` for the next one; None = the page is empty."""
    has_more: bool = False
    """Whether more turns follow."""


class DeletedResponse(Frozen):
    """A response that is served no more."""

    id: str
    """Its id."""
    object: Literal["response"] = "response"
    """Kind of the object."""
    deleted: bool = True
    """Always true."""


class ResponseObject(Frozen):
    """A response."""

    id: str
    """resp_ and the job's id without dashes."""
    object: Literal["response"] = "response"
    """Kind of the object."""
    created_at: int
    """Unix time in seconds of its acceptance."""
    completed_at: int | None = None
    """Unix time in seconds at which it was completed; None = it is not."""
    status: ResponseStatus
    """State."""
    background: bool
    """Whether the work goes on when the client leaves."""
    error: ResponseFailure | None = None
    """Why there is no answer; None unless failed."""
    incomplete_details: IncompleteDetails | None = None
    """Why the answer is not whole; None unless incomplete."""
    instructions: str | None = None
    """The system message as given."""
    max_output_tokens: int | None = None
    """As asked for."""
    max_tool_calls: None = None
    """Always None."""
    model: str
    """As asked for."""
    output: tuple[OutputItem, ...] = ()
    """The reasoning's summary and the answer."""
    parallel_tool_calls: bool = True
    """Without effect."""
    previous_response_id: None = None
    """Always None."""
    prompt_cache_key: None = None
    """Always None."""
    reasoning: ResponseReasoning = ResponseReasoning()
    """How much thinking was asked for."""
    safety_identifier: None = None
    """Always None."""
    service_tier: Literal["default"] = "default"
    """Always default."""
    store: bool = True
    """Whether it can be fetched afterwards."""
    temperature: float | None = None
    """As asked for; None = the policy's own."""
    text: dict[str, Any] = {"format": {"type": "text"}}
    """Always plain text."""
    tool_choice: Literal["auto"] = "auto"
    """Without effect."""
    tools: tuple[str, ...] = ()
    """Always empty."""
    top_logprobs: int = 0
    """Always 0."""
    top_p: float | None = None
    """As asked for; None = the policy's own."""
    truncation: Literal["disabled"] = "disabled"
    """Always disabled."""
    usage: ResponseUsage | None = None
    """Tokens; None = not finished."""
    user: str | None = None
    """As given."""
    metadata: dict[str, str] = {}
    """The caller's own notes."""
    k2think: ResponseExtension
    """What we tell besides."""


def response_id(job_id: str) -> str:
    """Return the id of a job's response."""
    return f"resp_{job_id.replace('-', '')}"


def ending_of(result: SolveResult) -> tuple[ResponseStatus, Literal["max_output_tokens", "content_filter"] | None]:
    """Return how a response ended, and why it is incomplete; None = it is not."""
    code = result.error.code if result.error else None
    match result.status:
        case JobStatus.succeeded if result.finish_reason is FinishReason.length:
            return "incomplete", "max_output_tokens"
        case JobStatus.succeeded:
            return "completed", None
        case JobStatus.refused:
            return "incomplete", "content_filter"
        case JobStatus.cancelled:
            return "cancelled", None
        case _:
            return ("incomplete", "max_output_tokens") if code == CUT_OFF else ("failed", None)
