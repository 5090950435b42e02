"""The simulated server's side of the wire: bodies and chunks, in OpenAI's form with Cerebras' and vLLM's additions."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from typing import Any

from .replies import ChatRequest, ReasoningField, Reply, tokenise

DONE = b"data: [DONE]\n\n"
KEEPALIVE = b": keepalive\n\n"


@dataclass(frozen=True)
class Piece:
    """One token of a reply."""

    text: str
    reasoning: bool
    """Whether it goes into the reasoning field."""


@dataclass(frozen=True)
class Plan:
    """The tokens that a reply comes to under the request's limits."""

    pieces: tuple[Piece, ...]
    finish_reason: str


def plan_reply(reply: Reply, request: ChatRequest) -> Plan:
    """Cut a reply at the stop strings (visible text only) and at max_tokens."""
    inline = reply.reasoning_field is ReasoningField.inline and reply.reasoning
    text = f"<think>{reply.reasoning}</think>{reply.text}" if inline else reply.text
    cuts = [at for at in (text.find(stop) for stop in request.stop) if at >= 0]
    text = text[: min(cuts)] if cuts else text
    pieces = [] if inline else [Piece(token, True) for token in tokenise(reply.reasoning)]
    pieces += [Piece(token, False) for token in tokenise(text)]
    if request.max_tokens is not None and len(pieces) > request.max_tokens:
        return Plan(tuple(pieces[: request.max_tokens]), "length")
    return Plan(tuple(pieces), "stop")


def grouped(plan: Plan, size: int, *, cut: int | None) -> Iterator[tuple[Piece, int, int]]:
    """Yield (text of a chunk, number of its first token, count of its tokens); no chunk goes across the token `cut`."""
    start = 0
    while start < len(plan.pieces):
        end = min(start + size, len(plan.pieces))
        if cut is not None and start < cut < end:
            end = cut
        reasoning, pieces = next(groupby(plan.pieces[start:end], key=attrgetter("reasoning")))
        run = list(pieces)
        yield Piece("".join(piece.text for piece in run), reasoning), start, len(run)
        start += len(run)


class Chunks:
    """Makes the chunks of one stream."""

    def __init__(self, *, call_id: str, model: str, reply: Reply) -> None:
        head = {
            "id": call_id,
            "object": "chat.completion.chunk",
            "created": 0,
            "model": model,
            "system_fingerprint": "sim",
        }
        self._head = json.dumps(head)[:-1].encode()
        self._reply = reply

    def start(self) -> bytes:
        """The chunk that names the role."""
        return self._choice({"role": "assistant", "content": None if self._reply.null_content else ""})

    def piece(self, piece: Piece) -> bytes:
        """The chunk of one token."""
        if not piece.reasoning:
            return self._choice({"content": piece.text})
        field = self._reply.reasoning_field
        names = ["reasoning", "reasoning_content"] if field is ReasoningField.both else [field.value]
        delta: dict[str, str | None] = dict.fromkeys(names, piece.text)
        if self._reply.null_content:
            delta["content"] = None
        return self._choice(delta)

    def end(self, finish_reason: str) -> bytes:
        """The chunk that tells why it ends."""
        return self._choice({"content": None} if self._reply.null_content else {}, finish_reason)

    def summary(self, facts: dict[str, Any]) -> bytes:
        """The last chunk: usage, times, no choices."""
        return self._line(b', "choices": [], ' + json.dumps(facts).encode()[1:])

    def _choice(self, delta: dict[str, Any], finish_reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
        return self._line(b', "choices": [' + json.dumps(choice).encode() + b"]}")

    def _line(self, rest: bytes) -> bytes:
        return b"data: " + self._head + rest + b"\n\n"


def logprobs_of(plan: Plan, *, wrong: bool) -> dict[str, Any]:
    """Return log-probabilities as a model that is sure of itself gives them; `wrong`: it was sure of other tokens."""
    probable = [
        {"token": f"t{place}", "logprob": logprob} for place, logprob in enumerate((-0.1, -3.0, -4.0, -5.0, -6.0))
    ]
    sampled = -20.0 if wrong else -0.1
    return {"content": [{"token": one.text, "logprob": sampled, "top_logprobs": probable} for one in plan.pieces]}


def plain_body(
    *, call_id: str, model: str, reply: Reply, plan: Plan, facts: dict[str, Any], logprobs: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Return the reply to a request that does not stream."""
    message: dict[str, Any] = {
        "role": "assistant",
        "content": "".join(one.text for one in plan.pieces if not one.reasoning),
    }
    reasoning = "".join(one.text for one in plan.pieces if one.reasoning)
    if reasoning:
        field = reply.reasoning_field
        names = ["reasoning", "reasoning_content"] if field is ReasoningField.both else [field.value]
        message.update(dict.fromkeys(names, reasoning))
    if reply.null_content and not message["content"]:
        message["content"] = None
    return {
        "id": call_id,
        "object": "chat.completion",
        "created": 0,
        "model": model,
        "system_fingerprint": "sim",
        "choices": [{"index": 0, "message": message, "logprobs": logprobs, "finish_reason": plan.finish_reason}],
        **facts,
    }


def error_body(message: str, *, kind: str, code: str | None = None) -> dict[str, Any]:
    """Return an error in OpenAI's form."""
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}
