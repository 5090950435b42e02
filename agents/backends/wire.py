"""OpenAI's chat completions on the wire: the request body, and the reading of stream chunks and plain replies.

Written against the OpenAI API reference and the dialects of vLLM (`reasoning`, `metrics`), DeepSeek (`reasoning_content`)
and Cerebras (`reasoning`, `time_info`). Every backend that receives this wire form reads it here.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple, cast

from ...schemas.completion import CompletionRequest, Delta, Finish, FinishReason, TokenUsage
from ...schemas.errors import MalformedResponse, StreamBroken
from .errors import Origin, stream_error

CHARS_PER_TOKEN = 4
"""Rule of thumb for prompts whose tokens nobody counted; figures made with it are marked as estimated."""

_FINISH = {
    "length": FinishReason.length,
    "max_tokens": FinishReason.length,
    "content_filter": FinishReason.content_filter,
    "abort": FinishReason.cancelled,
    "cancelled": FinishReason.cancelled,
}


class Drafting(NamedTuple):
    """What speculation brought a call, or the calls of some time."""

    acceptance: float | None = None
    """Share of drafted tokens that were accepted, 0..1; None = nothing was drafted."""
    accepted_length: float | None = None
    """Mean tokens that one verification brought, the model's own included, from 1; None = nothing was drafted."""


NOT_TOLD = Drafting()


def encodable(text: str) -> str:
    """Return the text with halves of characters replaced, which no tokenizer takes."""
    return text.encode("utf-8", errors="replace").decode("utf-8")


def estimate_prompt_tokens(request: CompletionRequest) -> int:
    """Return a rough count of the prompt's tokens, by its length."""
    return sum(len(message.content) for message in request.messages) // CHARS_PER_TOKEN + len(request.messages)


def chat_body(
    request: CompletionRequest,
    *,
    model: str,
    max_tokens: int,
    max_tokens_field: str = "max_tokens",
    options: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Return the JSON body of a streaming chat completion.

    `max_tokens` applies where the request names none. The field defaults to `max_tokens`: every compatible server knows
    it, while `max_completion_tokens` is unknown to older ones. `options`: the server's own fields, as they are.
    """
    body: dict[str, Any] = {
        "model": model,
        "messages": [{"role": message.role, "content": encodable(message.content)} for message in request.messages],
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": request.temperature,
        "top_p": request.top_p,
        max_tokens_field: request.max_tokens or max_tokens,
        **(options or {}),
    }
    if request.stop:
        body["stop"] = list(request.stop)
    if request.seed is not None:
        body["seed"] = request.seed
    if request.json_schema is not None:
        schema = {"name": "reply", "schema": request.json_schema, "strict": True}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    return body


class CompletionReader:
    """Reads the chunks of one completion, or one plain reply, and keeps what its end needs."""

    def __init__(self, request: CompletionRequest, *, origin: Origin) -> None:
        self._request = request
        self._origin = origin
        self._chunks = 0
        self._deltas = 0
        self._finish_reason: str | None = None
        self._usage: TokenUsage | None = None
        self._cached: int | None = None
        self._model = ""
        self._times: dict[str, float] = {}
        self._drafting: Drafting | None = None

    def read(self, payload: Any) -> Delta | None:
        """Return the text of a chunk, None when it carries none. Raises BackendError for error objects and nonsense."""
        if not isinstance(payload, dict):
            raise self._malformed("a chunk is no JSON object")
        chunk = cast(dict[str, Any], payload)
        if chunk.get("error"):
            raise stream_error(chunk, origin=self._origin)
        self._chunks += 1
        if isinstance(chunk.get("model"), str):
            self._model = chunk["model"]
        self._read_usage(chunk.get("usage"))
        self._read_times(chunk)
        choices = chunk.get("choices")
        if choices is None or choices == []:
            return None
        if not isinstance(choices, list) or not isinstance(cast(list[Any], choices)[0], dict):
            raise self._malformed("`choices` is no list of objects")
        return self._read_choice(cast(list[dict[str, Any]], choices)[0])

    def _read_choice(self, choice: dict[str, Any]) -> Delta | None:
        if choice.get("finish_reason"):
            self._finish_reason = str(choice["finish_reason"])
        part = choice.get("delta") or choice.get("message")
        if part is None:
            return None
        if not isinstance(part, dict):
            raise self._malformed("`delta` is no object")
        fields = cast(dict[str, Any], part)
        text = fields.get("content") or fields.get("refusal") or ""
        reasoning = fields.get("reasoning_content") or fields.get("reasoning") or ""
        if not isinstance(text, str) or not isinstance(reasoning, str):
            raise self._malformed("the text of a delta is no string")
        if not text and not reasoning:
            return None
        self._deltas += 1
        return Delta(text=text, reasoning=reasoning)

    def _read_usage(self, usage: Any) -> None:
        if not isinstance(usage, dict):
            return
        fields = cast(dict[str, Any], usage)
        reasoning = _detail(fields, "completion_tokens_details", "reasoning_tokens")
        cached = _detail(fields, "prompt_tokens_details", "cached_tokens")
        self._cached = None if cached is None else _count(cached)
        self._usage = TokenUsage(
            prompt=_count(fields.get("prompt_tokens")),
            completion=_count(fields.get("completion_tokens")),
            reasoning=_count(reasoning),
        )

    def _read_times(self, chunk: dict[str, Any]) -> None:
        cerebras, vllm = chunk.get("time_info"), chunk.get("metrics")
        if isinstance(cerebras, dict):
            self._keep_times(cast(dict[str, Any], cerebras), "queue_time", "prompt_time", "completion_time", scale=1.0)
        if isinstance(vllm, dict):
            fields = cast(dict[str, Any], vllm)
            self._keep_times(fields, "queue_time_ms", "time_to_first_token_ms", "generation_time_ms", scale=1e-3)
            if isinstance(fields.get("speculative_decoding"), dict):
                self._drafting = drafting_of(fields["speculative_decoding"])

    def _keep_times(self, fields: dict[str, Any], queue: str, prompt: str, completion: str, *, scale: float) -> None:
        for name, field in (("queue", queue), ("prompt", prompt), ("completion", completion)):
            value = fields.get(field)
            if isinstance(value, int | float):
                self._times[name] = value * scale

    def finish(self, *, done: bool, rate_limits: dict[str, str], drafting: Drafting = NOT_TOLD) -> Finish:
        """Return the end of the completion; `done` tells whether the server said that it was (`[DONE]`, or a plain reply).

        `drafting` serves where the reply itself tells none. Raises StreamBroken when neither `done` nor a finish
        reason came, MalformedResponse when nothing came at all.
        """
        if self._finish_reason is None and not done:
            raise StreamBroken(self._origin.say("closed the connection before the completion was complete"))
        if self._finish_reason == "error":
            raise StreamBroken(self._origin.say("ended the completion with finish_reason `error`"))
        if self._chunks == 0:
            raise self._malformed("the stream ended without a single chunk")
        usage = self._usage
        if usage is None:
            usage = TokenUsage(prompt=estimate_prompt_tokens(self._request), completion=self._deltas)
        drafting = drafting if self._drafting is None else self._drafting
        return Finish(
            finish_reason=_FINISH.get(self._finish_reason or "stop", FinishReason.stop),
            usage=usage,
            usage_estimated=self._usage is None,
            model=self._model or self._origin.model,
            engine_queue_s=self._times.get("queue"),
            engine_prompt_s=self._times.get("prompt"),
            engine_completion_s=self._times.get("completion"),
            cached_prompt_tokens=self._cached,
            draft_acceptance=drafting.acceptance,
            accepted_length=drafting.accepted_length,
            rate_limits=rate_limits,
        )

    def _malformed(self, what: str) -> MalformedResponse:
        return MalformedResponse(self._origin.say(f"the response does not follow the protocol: {what}"))


def _detail(usage: dict[str, Any], group: str, name: str) -> Any:
    details = usage.get(group)
    return cast(dict[str, Any], details).get(name) if isinstance(details, dict) else None


def drafting_of(fields: dict[str, Any]) -> Drafting:
    """Read vLLM's figures of one call (`--per-request-spec-decode-metrics`), which are 0 and 1 where nothing was drafted."""
    if fields.get("num_draft_tokens") == 0:
        return NOT_TOLD
    rate, length = fields.get("draft_acceptance_rate"), fields.get("mean_acceptance_length")
    return Drafting(
        float(rate) if isinstance(rate, int | float) else None,
        float(length) if isinstance(length, int | float) else None,
    )


def _count(value: Any) -> int:
    return max(0, value) if type(value) is int else 0
