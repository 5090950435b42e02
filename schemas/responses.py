"""The body of POST /v1/responses, as OpenAI has it (api-reference/responses/create).

Text in, text out, solved like a chat completion. What a model is asked for that it cannot do is refused.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, cast

from pydantic import BeforeValidator, Field, StrictBool, StrictFloat, StrictInt, model_validator

from .base import Frozen
from .chat import ANY_VALUE, ChatBody, ChatExtension, without_neutral
from .completion import Role
from .errors import InvalidRequest
from .jobs import MESSAGES_MAX, PROBLEM_CHARS_MAX

_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "access_programs": (),
    "background_options": (),
    "conversation": (),
    "context_management": ([],),
    "image": (),
    "include": ([],),
    "max_tool_calls": (ANY_VALUE,),
    "moderation": (),
    "parallel_tool_calls": (True, False),
    "previous_response_id": (),
    "prompt": (),
    "prompt_cache_key": (ANY_VALUE,),
    "prompt_cache_options": (ANY_VALUE,),
    "prompt_cache_retention": (ANY_VALUE,),
    "safety_identifier": (ANY_VALUE,),
    "service_tier": ("auto", "default"),
    "stream_options": (ANY_VALUE,),
    "text": ({}, {"format": {"type": "text"}}),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "top_logprobs": (0,),
    "truncation": ("disabled",),
}
"""Parameters of OpenAI's that are accepted only with the values that change nothing here."""
_NEUTRAL_IN_ITEMS: dict[str, tuple[Any, ...]] = {"id": (ANY_VALUE,), "status": (ANY_VALUE,), "phase": (ANY_VALUE,)}
_PARTS = ("input_text", "output_text", "text", "refusal")


def _texts(content: Any) -> Any:
    if not isinstance(content, list):
        return content
    texts: list[str] = []
    for item in cast(list[Any], content):
        part = cast(dict[str, Any], item) if isinstance(item, dict) else {}
        text = part.get("refusal" if part.get("type") == "refusal" else "text")
        if part.get("type") not in _PARTS or not isinstance(text, str):
            raise ValueError("only text parts are supported (input_text, output_text)")
        texts.append(text)
    return "".join(texts)


def _items(value: Any) -> Any:
    """A text is a list of one item; earlier reasoning may be sent back, but is not shown to the model again."""
    if isinstance(value, str):
        return [{"role": "user", "content": value}]
    if not isinstance(value, list):
        return value
    items = cast(list[Any], value)
    return [
        item for item in items if not (isinstance(item, dict) and cast(dict[str, Any], item).get("type") == "reasoning")
    ]


class InputPart(Frozen):
    """A piece of an item."""

    type: Literal["input_text", "output_text", "text", "refusal"]
    """Kind of the piece."""
    text: str
    """The text."""


class InputItem(Frozen):
    """One turn of the conversation."""

    type: Literal["message"] = "message"
    """Kind of the item."""
    role: Role
    """Who speaks."""
    content: Annotated[str, BeforeValidator(_texts, json_schema_input_type=str | list[InputPart])]
    """The text, whole or in parts."""

    @model_validator(mode="before")
    @classmethod
    def _known(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        return without_neutral(cast(Mapping[str, Any], value), _NEUTRAL_IN_ITEMS, param="input")


class ReasoningOptions(Frozen):
    """How much to think."""

    effort: Literal["none", "minimal", "low", "medium", "high", "xhigh"] | None = None
    """As a chat completion's reasoning_effort."""
    summary: Literal["auto", "concise", "detailed"] | None = None
    """Accepted, and without effect: the plan and the progress are always told."""
    generate_summary: Literal["auto", "concise", "detailed"] | None = None
    """The older name of summary."""


class ResponseBody(Frozen):
    """Body of POST /v1/responses. A parameter that is null counts as not given."""

    model: str = Field(min_length=1, max_length=500)
    """As in a chat completion."""
    input: Annotated[
        tuple[InputItem, ...],
        BeforeValidator(_items, json_schema_input_type=str | list[InputItem]),
        Field(min_length=1, max_length=MESSAGES_MAX),
    ]
    """The conversation, oldest first; the last item is the user's, and the problem."""
    instructions: str | None = Field(default=None, max_length=PROBLEM_CHARS_MAX)
    """A system message that goes before the conversation; None = none."""
    background: StrictBool = False
    """Whether the answer is fetched later: the work goes on when the client leaves."""
    stream: StrictBool = False
    """Whether the answer comes as server-sent events."""
    store: StrictBool = True
    """Whether the response can be fetched afterwards."""
    max_output_tokens: StrictInt | None = Field(default=None, ge=1, le=1_000_000)
    """Tokens of each candidate at most, reasoning included; None = the backend's own limit."""
    temperature: StrictFloat | None = Field(default=None, ge=0, le=2, allow_inf_nan=False)
    """Softmax temperature; 0 = greedy, None = the policy's."""
    top_p: StrictFloat | None = Field(default=None, gt=0, le=1, allow_inf_nan=False)
    """Nucleus mass; None = the policy's."""
    reasoning: ReasoningOptions = ReasoningOptions()
    """How much to think."""
    metadata: dict[str, str] = Field(default_factory=dict[str, str], max_length=64)
    """The caller's own notes; kept with the job."""
    user: str | None = Field(default=None, max_length=512)
    """The caller's name for its own user; kept with the job."""
    k2think: ChatExtension = ChatExtension()
    """Our own options, as in a chat completion."""

    @model_validator(mode="before")
    @classmethod
    def _known(cls, value: Any) -> Any:
        return without_neutral(cast(Mapping[str, Any], value), _NEUTRAL) if isinstance(value, Mapping) else value

    @model_validator(mode="after")
    def _kept_for_later(self) -> "ResponseBody":
        if self.background and not self.store:
            raise InvalidRequest(
                "store: a background response must be stored: leave `store` out or set it to true", param="store"
            )
        return self

    def as_chat(self) -> ChatBody:
        """Return the chat completion that asks for the same. Raises ValidationError."""
        system = [{"role": "system", "content": self.instructions}] if self.instructions else []
        given: dict[str, Any] = {
            "model": self.model,
            "messages": [*system, *({"role": item.role, "content": item.content} for item in self.input)],
            "max_completion_tokens": self.max_output_tokens,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "reasoning_effort": self.reasoning.effort,
            "metadata": self.metadata,
            "user": self.user,
            "k2think": self.k2think.model_dump(),
        }
        return ChatBody.model_validate(given)


class ResponseDetails(Frozen):
    """What is kept with the job of a response, so that any gateway can show it again: the `details` of its note."""

    body: str
    """Digest of the body that it came with."""
    background: bool
    """Whether the work goes on when the client leaves."""
    stored: bool
    """Whether it can be fetched afterwards."""
    deleted: bool = False
    """Whether it was deleted since."""
    instructions: str | None = None
    """As given."""
    max_output_tokens: int | None = None
    """As given."""
    temperature: float | None = None
    """As given."""
    top_p: float | None = None
    """As given."""
    effort: str | None = None
    """As given."""
    user: str | None = None
    """As given."""

    @classmethod
    def of(cls, body: ResponseBody, *, digest: str) -> "ResponseDetails":
        """Return what is kept of a body."""
        return cls(
            body=digest,
            background=body.background,
            stored=body.store,
            instructions=body.instructions,
            max_output_tokens=body.max_output_tokens,
            temperature=body.temperature,
            top_p=body.top_p,
            effort=body.reasoning.effort,
            user=body.user,
        )
