"""What a backend is asked for and what it streams back."""

from enum import StrEnum
from typing import Any, Literal

from pydantic import Field

from .base import Frozen

Role = Literal["system", "developer", "user", "assistant"]


class ChatMessage(Frozen):
    """One turn of a conversation."""

    role: Role
    """Who speaks."""
    content: str
    """The text of the turn."""


class FinishReason(StrEnum):
    """Why a completion ended."""

    stop = "stop"
    length = "length"
    content_filter = "content_filter"
    cancelled = "cancelled"


class TokenUsage(Frozen):
    """Tokens of one or more model calls."""

    prompt: int = 0
    """Tokens of the prompt."""
    completion: int = 0
    """Tokens generated, reasoning included."""
    reasoning: int = 0
    """Of the completion, the tokens of the reasoning (where the backend tells, else estimated by length)."""

    def __add__(self, other: "TokenUsage") -> "TokenUsage":
        return TokenUsage(
            prompt=self.prompt + other.prompt,
            completion=self.completion + other.completion,
            reasoning=self.reasoning + other.reasoning,
        )

    @property
    def total(self) -> int:
        """Prompt and completion tokens together."""
        return self.prompt + self.completion


class CompletionRequest(Frozen):
    """One call to a model, in the terms of the OpenAI chat completions API."""

    messages: tuple[ChatMessage, ...] = Field(min_length=1)
    """The conversation, oldest first."""
    temperature: float = 1.0
    """Softmax temperature; 0 = greedy."""
    top_p: float = 0.95
    """Nucleus mass."""
    max_tokens: int | None = None
    """Completion tokens at most; None = the backend's own limit."""
    stop: tuple[str, ...] = ()
    """Strings that end the completion."""
    seed: int | None = None
    """Seed of the sampler; None = not reproducible."""
    json_schema: dict[str, Any] | None = None
    """Schema that the whole completion must satisfy (structured output); None = free text."""
    request_id: str = ""
    """Our id of the call, sent along for the engine's log; empty = none."""


class Delta(Frozen):
    """A piece of a streaming completion; either text may be empty."""

    text: str = ""
    """Visible text."""
    reasoning: str = ""
    """Text of the reasoning channel (`reasoning` or `reasoning_content`), where the engine separates it."""
    pieces: int = 1
    """Pieces of the engine's stream that it holds; more than one where nobody watches the stream."""


class Finish(Frozen):
    """The last item of every stream."""

    finish_reason: FinishReason
    """Why the completion ended."""
    usage: TokenUsage
    """Tokens as the engine counted them; where it is silent, as counted by us (see `usage_estimated`)."""
    usage_estimated: bool = False
    """True when the engine sent no usage and the figures are our count of the deltas."""
    model: str = ""
    """Model name as the engine reports it."""
    engine_queue_s: float | None = None
    """Seconds that the engine says the call waited in its queue; None = not told."""
    engine_prompt_s: float | None = None
    """Seconds of prompt processing, as told by the engine."""
    engine_completion_s: float | None = None
    """Seconds of decoding, as told by the engine."""
    cached_prompt_tokens: int | None = None
    """Of the prompt's tokens, those that the engine had from earlier calls; None = not told."""
    draft_acceptance: float | None = None
    """Share of speculated tokens that were accepted, 0..1; None = no speculation or not told."""
    accepted_length: float | None = None
    """Mean tokens that one verification of a draft brought, the model's own included, from 1; None = as above."""
    rate_limits: dict[str, str] = {}
    """The `x-ratelimit-…` headers of the response."""


StreamItem = Delta | Finish
