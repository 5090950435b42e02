"""The body of a chat completion request, as OpenAI has it (api-reference/chat/create).

What a model is asked for that it cannot do is refused, never passed over in silence. Our own options travel in one field,
which the openai client sends by `extra_body={"k2think": {"policy": …, "checks": …}}`.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, cast

from pydantic import BeforeValidator, Field, StrictBool, StrictFloat, StrictInt, model_validator

from .base import Frozen
from .checks import Checks
from .completion import ChatMessage, Role
from .errors import InvalidRequest
from .jobs import MESSAGES_MAX
from .policy import ANSWER_STOP

CHOICES_MAX = 8
CHOICE_SEED_STEP = 1000
"""Between the seeds of two choices: more than any policy samples candidates, so that no two share a seed."""
STOPS_MAX = 7

ANY_VALUE: Any = object()
"""Stands in such a table for a parameter whose value never matters here."""
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "audio": (),
    "frequency_penalty": (0,),
    "function_call": ("none",),
    "functions": ([],),
    "logit_bias": ({},),
    "logprobs": (False,),
    "modalities": (["text"],),
    "moderation": (),
    "parallel_tool_calls": (True, False),
    "prediction": (),
    "presence_penalty": (0,),
    "prompt_cache_key": (ANY_VALUE,),
    "prompt_cache_options": (ANY_VALUE,),
    "prompt_cache_retention": (ANY_VALUE,),
    "response_format": ({"type": "text"},),
    "safety_identifier": (ANY_VALUE,),
    "service_tier": ("auto", "default"),
    "store": (False,),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "top_logprobs": (0,),
    "verbosity": ("medium",),
    "web_search_options": (),
}
"""Parameters of OpenAI's that are accepted only with the values that change nothing here."""
_NEUTRAL_IN_MESSAGES: dict[str, tuple[Any, ...]] = {
    "annotations": (ANY_VALUE,),
    "audio": (),
    "function_call": (),
    "name": (),
    "reasoning": (ANY_VALUE,),
    "reasoning_content": (ANY_VALUE,),
    "reasoning_details": (ANY_VALUE,),
    "refusal": (ANY_VALUE,),
    "tool_calls": ([],),
}
"""The same for a message. An answer's reasoning may be sent back, but is not shown to the model again."""
_EFFORTS: dict[str | None, dict[str, Any]] = {
    None: {},
    "none": {"n": 1, "plan": "off"},
    "minimal": {"n": 1, "plan": "off"},
    "low": {"n": 1},
    "medium": {},
    "high": {"n": 5},
    "xhigh": {"n": 9},
}
"""What an effort means for the policy."""


def _texts(content: Any) -> Any:
    """Join a content that comes as text parts."""
    if not isinstance(content, list):
        return content
    texts: list[str] = []
    for item in cast(list[Any], content):
        part = cast(dict[str, Any], item) if isinstance(item, dict) else {}
        text = part.get("refusal" if part.get("type") == "refusal" else "text")
        if part.get("type") not in ("text", "refusal") or not isinstance(text, str):
            raise ValueError("only parts of type text are supported")
        texts.append(text)
    return "".join(texts)


def _list_of_one(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class TextPart(Frozen):
    """A piece of a message."""

    type: Literal["text", "refusal"]
    """Kind of the piece."""
    text: str
    """The text."""


class ChatTurn(Frozen):
    """One message of the conversation."""

    role: Role
    """Who speaks."""
    content: Annotated[str, BeforeValidator(_texts, json_schema_input_type=str | list[TextPart])]
    """The text, whole or in parts."""

    @model_validator(mode="before")
    @classmethod
    def _known(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        given = cast(Mapping[str, Any], value)
        turn = without_neutral(given, _NEUTRAL_IN_MESSAGES, param="messages")
        if "content" not in turn and isinstance(given.get("refusal"), str):
            turn["content"] = given["refusal"]
        return turn


class StreamOptions(Frozen):
    """What a stream brings along."""

    include_usage: StrictBool = False
    """Whether a last chunk tells the tokens."""
    include_obfuscation: StrictBool = False
    """Accepted, and without effect."""


class ChatExtension(Frozen):
    """Our own options."""

    policy: dict[str, Any] | str = Field(default_factory=dict[str, Any])
    """How to solve it: fields of the policy, or a preset's name. They win over what the rest of the body implies."""
    checks: Checks = Checks()
    """The task's own checks."""


class ChatBody(Frozen):
    """Body of POST /v1/chat/completions. A parameter that is null counts as not given."""

    messages: tuple[ChatTurn, ...] = Field(min_length=1, max_length=MESSAGES_MAX)
    """The conversation, oldest first; the last turn is the user's, and the problem."""
    model: str = Field(min_length=1, max_length=500)
    """`k2think`, `k2think-paper`, or a backend's own model for a single sample without plan and selection."""
    n: StrictInt = Field(default=1, ge=1, le=CHOICES_MAX)
    """Choices: each is solved by itself."""
    max_completion_tokens: StrictInt | None = Field(default=None, ge=1, le=1_000_000)
    """Tokens of each candidate at most, reasoning included; None = the backend's own limit."""
    max_tokens: StrictInt | None = Field(default=None, ge=1, le=1_000_000)
    """The older name of max_completion_tokens."""
    temperature: StrictFloat | None = Field(default=None, ge=0, le=2, allow_inf_nan=False)
    """Softmax temperature; 0 = greedy, None = the policy's."""
    top_p: StrictFloat | None = Field(default=None, gt=0, le=1, allow_inf_nan=False)
    """Nucleus mass; None = the policy's."""
    seed: StrictInt | None = Field(default=None, ge=0, lt=2**31)
    """Base seed; choice i counts from seed + 1000 i. None = not reproducible."""
    stop: Annotated[
        tuple[Annotated[str, Field(min_length=1)], ...],
        BeforeValidator(_list_of_one, json_schema_input_type=str | list[str]),
        Field(max_length=STOPS_MAX),
    ] = ()
    """Texts that end a completion, besides our own."""
    user: str | None = Field(default=None, max_length=512)
    """The caller's name for its own user; kept with the job."""
    metadata: dict[str, str] = Field(default_factory=dict[str, str], max_length=64)
    """The caller's own notes; kept with the job."""
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh"] | None = None
    """Candidates and plan: none and minimal 1 without plan, low 1, medium the default policy's, high 5, xhigh 9."""
    stream: StrictBool = False
    """Whether the answer comes as server-sent events."""
    stream_options: StreamOptions = StreamOptions()
    """What a stream brings along."""
    k2think: ChatExtension = ChatExtension()
    """Our own options."""

    @model_validator(mode="before")
    @classmethod
    def _known(cls, value: Any) -> Any:
        return without_neutral(cast(Mapping[str, Any], value), _NEUTRAL) if isinstance(value, Mapping) else value

    @model_validator(mode="after")
    def _one_limit(self) -> "ChatBody":
        limits = {self.max_completion_tokens, self.max_tokens} - {None}
        if len(limits) > 1:
            raise InvalidRequest(
                "max_tokens: it is the older name of max_completion_tokens, and the two differ: give one of them",
                param="max_tokens",
            )
        return self

    @property
    def conversation(self) -> tuple[ChatMessage, ...]:
        """The messages in our own form."""
        return tuple(ChatMessage(role=turn.role, content=turn.content) for turn in self.messages)

    @property
    def own_policy(self) -> dict[str, Any]:
        """The policy's fields as given in `k2think.policy`."""
        given = self.k2think.policy
        return {"preset": given} if isinstance(given, str) else given

    def policy_fields(self, *, defaults: Mapping[str, Any] | None = None, answer_stop: bool = True) -> dict[str, Any]:
        """Return the fields of the policy that the body asks for, laid over `defaults`.

        `answer_stop`: whether the tag that ends our answers ends a completion, too.
        """
        fields = {**(defaults or {}), **_EFFORTS[self.reasoning_effort], **self.own_policy}
        sampling: dict[str, Any] = {
            "temperature": self.temperature,
            "top_p": self.top_p,
            "seed": self.seed,
            "max_tokens": self.max_completion_tokens or self.max_tokens,
        }
        sampling = {name: value for name, value in sampling.items() if value is not None}
        if self.stop or not answer_stop:
            sampling["stop"] = [*([ANSWER_STOP] if answer_stop else []), *self.stop]
        for given in ((defaults or {}).get("sampling"), self.own_policy.get("sampling")):
            if given is not None and not isinstance(given, Mapping):
                return {**fields, "sampling": given}
        below = cast(Mapping[str, Any], (defaults or {}).get("sampling") or {})
        above = cast(Mapping[str, Any], self.own_policy.get("sampling") or {})
        sampling = {**below, **sampling, **above}
        return {**fields, "sampling": sampling} if sampling else fields


def without_neutral(
    given: Mapping[str, Any], neutral: Mapping[str, tuple[Any, ...]], *, param: str | None = None
) -> dict[str, Any]:
    """Return what is left without nulls and values that change nothing. Raises InvalidRequest that names the parameter."""
    left: dict[str, Any] = {}
    for name, value in given.items():
        if value is None:
            continue
        if name not in neutral:
            left[name] = value
        elif ANY_VALUE not in neutral[name] and not any(
            value == accepted and isinstance(value, bool) == isinstance(accepted, bool) for accepted in neutral[name]
        ):
            place = f"{param}.{name}" if param else name
            kind = "parameter" if not neutral[name] else "value"
            raise InvalidRequest(f"{place}: this {kind} is not supported: leave it out", param=param or name)
    return left
