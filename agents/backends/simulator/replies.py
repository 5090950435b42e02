"""What the simulated server is asked, and what it is told to answer: text, timing, and faults."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, cast

TOKEN = re.compile(r"\s*\w{1,4}|\s*[^\w\s]|\s+")
"""The simulated tokenizer: up to four letters or one sign, with the white space before it."""


class BadChatRequest(Exception):
    """The body is no chat completion request; the text says why."""


@dataclass(frozen=True)
class ChatRequest:
    """A chat completion request as it arrived."""

    body: Mapping[str, Any]
    """The JSON body, whole."""
    headers: Mapping[str, str]
    """Request headers, names in lower case, without the key."""
    model: str
    messages: tuple[tuple[str, str], ...]
    """(role, text) of each turn."""
    stream: bool
    include_usage: bool
    """Whether a stream ends with the usage; a plain reply always carries it."""
    max_tokens: int | None
    """Either name of the field; None = not given."""
    stop: tuple[str, ...]
    seed: int | None
    json_schema: Mapping[str, Any] | None
    """Schema of the structured output; None = free text."""

    @property
    def text(self) -> str:
        """All turns in one text."""
        return "\n".join(text for _, text in self.messages)

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the prompt by the simulated tokenizer."""
        return sum(len(tokenise(text)) for _, text in self.messages)


class ReasoningField(StrEnum):
    """Where the reasoning of a reply goes."""

    reasoning = "reasoning"
    """vLLM's and Cerebras' field."""
    reasoning_content = "reasoning_content"
    """DeepSeek's field."""
    both = "both"
    """Both fields, the same text."""
    inline = "inline"
    """`<think>…</think>` in the visible text."""


class FaultKind(StrEnum):
    """What goes wrong."""

    status = "status"
    """An HTTP status with an error body, before anything is streamed."""
    error_mid_stream = "error_mid_stream"
    """`data: {"error": …}` after `after_tokens` tokens."""
    reset = "reset"
    """The TCP connection is reset (RST) after `after_tokens` tokens; at 0 before the response begins."""
    truncated = "truncated"
    """The connection closes in the middle of the chunked body."""
    no_end = "no_end"
    """The body ends in good order, but without finish reason and `[DONE]`."""
    stall = "stall"
    """Silence after `after_tokens` tokens, until the client goes."""
    malformed_json = "malformed_json"
    """A `data:` line that is no JSON."""
    html = "html"
    """Status 200 with an HTML page."""
    endless_line = "endless_line"
    """A line without end."""


@dataclass(frozen=True)
class Fault:
    """One fault."""

    kind: FaultKind
    after_tokens: int = 0
    """Tokens sent before it happens."""
    status: int = 500
    """Of `status`."""
    code: str | None = None
    """Error code in the body."""
    message: str = "simulated fault"
    """Error message in the body."""
    headers: Mapping[str, str] | None = None
    """Headers of `status`, such as Retry-After."""

    @classmethod
    def rate_limited(cls, *, retry_after: str | None = None) -> "Fault":
        """429, with `Retry-After` as given (seconds or an HTTP date)."""
        headers = {"Retry-After": retry_after} if retry_after is not None else {}
        return cls(FaultKind.status, status=429, code="rate_limit_exceeded", message="slow down", headers=headers)

    @classmethod
    def context_too_long(cls) -> "Fault":
        """400 in vLLM's words."""
        text = "This model's maximum context length is 128 tokens. However, your request has 4096 input tokens."
        return cls(FaultKind.status, status=400, code="context_length_exceeded", message=text)


@dataclass(frozen=True)
class Reply:
    """What to answer."""

    text: str = ""
    """Visible text; cut at the request's stop strings and max_tokens."""
    reasoning: str = ""
    """Reasoning, streamed before the text."""
    reasoning_field: ReasoningField = ReasoningField.reasoning
    """Where the reasoning goes."""
    fault: Fault | None = None
    """What goes wrong; None = nothing."""
    token_s: float | None = None
    """Seconds per token; None = the engine's."""
    first_token_s: float = 0.0
    """Seconds before the first token, on top of the engine's."""
    keepalive_s: float | None = None
    """Seconds between `: keepalive` comments while a stall or `first_token_s` lasts; None = none are sent."""
    usage: bool = True
    """Whether the usage is sent; off = a server that does not count."""
    cached_prompt_tokens: int | None = None
    """Of the prompt's tokens, those told as cached; None = not told."""
    null_content: bool = False
    """Send chunks whose content is null, as some servers do beside every piece of reasoning and at the ends."""
    plain: bool = False
    """Answer a stream request with a plain JSON reply."""


Responder = Callable[[ChatRequest], Reply]


class Script:
    """A responder that gives its replies in order; the last one repeats."""

    def __init__(self, *replies: Reply) -> None:
        self._replies = list(replies)

    def __call__(self, request: ChatRequest) -> Reply:
        return self._replies.pop(0) if len(self._replies) > 1 else self._replies[0]


def tokenise(text: str) -> list[str]:
    """Cut `text` into simulated tokens; joined, they are the text."""
    return TOKEN.findall(text)


def read_request(body: Any, headers: Mapping[str, str]) -> ChatRequest:
    """Read a chat completion request. Raises BadChatRequest."""
    if not isinstance(body, dict):
        raise BadChatRequest("the body is no JSON object")
    fields = cast(dict[str, Any], body)
    if not isinstance(fields.get("model"), str):
        raise BadChatRequest("`model` is missing")
    if fields.get("n", 1) != 1:
        raise BadChatRequest("`n` other than 1 is not simulated")
    limit = fields.get("max_completion_tokens") or fields.get("max_tokens")
    if limit is not None and (type(limit) is not int or limit < 1):
        raise BadChatRequest("`max_tokens` must be a positive number")
    stop = fields.get("stop") or []
    form = fields.get("response_format") or {}
    options = fields.get("stream_options") or {}
    return ChatRequest(
        body=fields,
        headers={key.lower(): value for key, value in headers.items() if key.lower() != "authorization"},
        model=fields["model"],
        messages=_messages(fields.get("messages")),
        stream=bool(fields.get("stream")),
        include_usage=bool(options.get("include_usage")),
        max_tokens=limit,
        stop=(stop,) if isinstance(stop, str) else tuple(stop),
        seed=fields.get("seed"),
        json_schema=form["json_schema"]["schema"] if form.get("type") == "json_schema" else None,
    )


def _messages(value: Any) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, list) or not value:
        raise BadChatRequest("`messages` must be a list with at least one message")
    turns: list[tuple[str, str]] = []
    for message in cast(list[Any], value):
        fields = cast(dict[str, Any], message) if isinstance(message, dict) else {}
        if fields.get("role") not in ("system", "developer", "user", "assistant"):
            raise BadChatRequest("a message has no known `role`")
        if not isinstance(fields.get("content"), str):
            raise BadChatRequest("the `content` of a message is no text")
        turns.append((fields["role"], fields["content"]))
    return tuple(turns)
