"""From the body of an OpenAI chat completion request (api-reference/chat/create) to the fields of ours.

A parameter that would change the answer and cannot be honoured is refused, never passed over in silence.
"""

from typing import Any, cast

from ..schemas.errors import InvalidRequest
from ..schemas.policy import ANSWER_STOP

_OURS = {"messages", "policy", "checks", "metadata"}
"""`policy` and `checks` are extensions (the openai client sends them by `extra_body`)."""
_SAMPLING = {"temperature", "top_p", "max_tokens", "max_completion_tokens", "stop", "seed"}
_WITHOUT_EFFECT = {
    "model",
    "prompt_cache_key",
    "reasoning_effort",
    "safety_identifier",
    "service_tier",
    "store",
    "stream_options",
    "user",
    "verbosity",
}
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "stream": (False,),
    "logprobs": (False,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "response_format": ({"type": "text"},),
    "logit_bias": ({},),
    "modalities": (["text"],),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "parallel_tool_calls": (True, False),
}
"""Parameters that are accepted only with the values that change nothing."""


def chat_fields(body: dict[str, Any]) -> dict[str, Any]:
    """Return `messages`, `policy`, `checks` and `metadata` for a SolveRequest. Raises InvalidRequest."""
    for name, value in body.items():
        if name in _NEUTRAL:
            if value is not None and value not in _NEUTRAL[name]:
                raise InvalidRequest(f"body.{name}: this value is not supported")
        elif name not in _OURS | _SAMPLING | _WITHOUT_EFFECT:
            raise InvalidRequest(f"body.{name}: this parameter is not supported")
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise InvalidRequest("body.messages: a list with at least one message is needed")
    fields: dict[str, Any] = {
        "messages": [_message(index, item) for index, item in enumerate(cast(list[Any], messages))],
        **{name: body[name] for name in ("checks", "metadata") if body.get(name) is not None},
    }
    policy = _with_sampling(body.get("policy"), _sampling(body))
    return fields if policy is None else {**fields, "policy": policy}


def _message(index: int, item: Any) -> dict[str, Any]:
    place = f"body.messages.{index}"
    if not isinstance(item, dict):
        raise InvalidRequest(f"{place}: it is not an object")
    message = cast(dict[str, Any], item)
    if message.get("role") not in ("system", "developer", "user", "assistant"):
        raise InvalidRequest(f"{place}.role: it must be system, developer, user or assistant")
    if message.get("tool_calls"):
        raise InvalidRequest(f"{place}.tool_calls: tools are not supported")
    content = message.get("content")
    if isinstance(content, list):
        content = "".join(_part(place, part) for part in cast(list[Any], content))
    if not isinstance(content, str):
        raise InvalidRequest(f"{place}.content: it must be a text, or a list of text parts")
    return {"role": message["role"], "content": content}


def _part(place: str, item: Any) -> str:
    part = cast(dict[str, Any], item) if isinstance(item, dict) else {}
    if part.get("type") != "text" or not isinstance(part.get("text"), str):
        raise InvalidRequest(f"{place}.content: only parts of type text are supported")
    return part["text"]


def _sampling(body: dict[str, Any]) -> dict[str, Any]:
    sampling = {name: body[name] for name in ("temperature", "top_p", "seed") if body.get(name) is not None}
    limit = body.get("max_completion_tokens", body.get("max_tokens"))
    if limit is not None:
        sampling["max_tokens"] = limit
    stop = body.get("stop")
    if stop is not None:
        own = [stop] if isinstance(stop, str) else stop
        if not isinstance(own, list):
            raise InvalidRequest("body.stop: it must be a text or a list of texts")
        # Ours ends the answer; theirs come on top.
        sampling["stop"] = [ANSWER_STOP, *cast(list[Any], own)]
    return sampling


def _with_sampling(policy: Any, sampling: dict[str, Any]) -> Any:
    if not sampling:
        return policy
    if isinstance(policy, str):
        policy = {"preset": policy}
    if policy is not None and not isinstance(policy, dict):
        return policy
    fields = cast(dict[str, Any], policy or {})
    own = fields.get("sampling")
    return {**fields, "sampling": {**sampling, **(cast(dict[str, Any], own) if isinstance(own, dict) else {})}}
