"""The simulated server itself: HTTP by aiohttp.web, and an exact ledger of every call."""

import asyncio
import json
import secrets
import socket
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Self

from aiohttp import web

from .engine import SimulatedEngine
from .rates import Admission, Refusal, ServerRates
from .replies import BadChatRequest, ChatRequest, FaultKind, Reply, Responder, read_request
from .responders import detect_role
from .wire import DONE, KEEPALIVE, Chunks, Plan, error_body, grouped, logprobs_of, plain_body, plan_reply

SHUTDOWN_S = 1.0
STALL_S = 86_400.0
RATE_HEADERS = {
    "x-ratelimit-limit-requests-day": "14400",
    "x-ratelimit-remaining-requests-day": "14399",
    "x-ratelimit-limit-tokens-minute": "60000",
    "x-ratelimit-remaining-tokens-minute": "59000",
    "x-ratelimit-reset-tokens-minute": "11.5",
}
COMPLETION_TOKENS_MAX = 4_096
"""Taken of a quota for a call that names no limit of its completion."""
_ENDLESS_BYTES = 65_536


class CallOutcome(StrEnum):
    """How a call ended, seen from the server."""

    open = "open"
    """It has not ended."""
    completed = "completed"
    refused = "refused"
    """Answered with an error status."""
    faulted = "faulted"
    """Broken off as its reply's fault says."""
    aborted = "aborted"
    """The client closed the connection first."""


@dataclass
class CallRecord:
    """One call in the ledger."""

    request: ChatRequest
    role: str
    """Which agent asked, by the server's `role_of`."""
    opened_at: float
    """Monotonic seconds at arrival."""
    prompt_tokens: int
    sent_tokens: int = 0
    """Tokens written to the connection, reasoning included."""
    rate_headers: dict[str, str] = field(default_factory=lambda: dict(RATE_HEADERS))
    """Of its answer."""
    admission: Admission | None = None
    """What it took of the quotas; None = there are none."""
    outcome: CallOutcome = CallOutcome.open
    closed_at: float | None = None
    """Monotonic seconds at the end; None = still open."""


class SimulatedServer:
    """A model server on loopback. `async with SimulatedServer(responder) as server: server.url`."""

    def __init__(
        self,
        responder: Responder,
        *,
        engine: SimulatedEngine | None = None,
        models: tuple[str, ...] = ("simulated",),
        api_key: str | None = None,
        context_tokens: int | None = None,
        rates: ServerRates | None = None,
        role_of: Callable[[ChatRequest], str] = detect_role,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        """Prepare a server; `async with`, or `start` and `stop`, runs it.

        `api_key`: required as bearer key; None = none. `context_tokens`: prompt and max_tokens above it are refused; None =
        no limit. `rates`: quotas per minute; None = none, and headers that say always the same. `role_of`: which agent asked, for the ledger. `port` 0 = a free one.
        """
        self.calls: list[CallRecord] = []
        """Every call that was understood, in order of arrival."""
        self.warm_ups = 0
        """Requests by which Cerebras' SDK opens a connection before it is needed."""
        self.engine = engine or SimulatedEngine()
        self._responder = responder
        self._models = models
        self._api_key = api_key
        self._context_tokens = context_tokens
        self.rates = rates
        """Quotas per minute; None = none."""
        self._role_of = role_of
        self._address = (host, port)
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        """Base URL for OpenAI clients, with /v1."""
        return f"{self.root_url}/v1"

    @property
    def root_url(self) -> str:
        """Base URL for Cerebras' SDK, without /v1."""
        host, port = self._address
        return f"http://{host}:{port}"

    @property
    def open_streams(self) -> int:
        """Calls that have not ended."""
        return sum(call.outcome is CallOutcome.open for call in self.calls)

    @property
    def sent_tokens(self) -> int:
        """Tokens of all calls."""
        return sum(call.sent_tokens for call in self.calls)

    async def start(self) -> None:
        """Listen."""
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_get("/v1/models", self._list_models)
        app.router.add_get("/v1/tcp_warming", self._warm_up)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/health", self._health)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=SHUTDOWN_S, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, *self._address, backlog=4096)
        await site.start()
        self._address = (self._address[0], self._runner.addresses[0][1])

    async def stop(self) -> None:
        """Close the listener and what is still open."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()

    async def _list_models(self, request: web.Request) -> web.Response:
        if (refusal := self._unauthorized(request)) is not None:
            return refusal
        rows = [{"id": name, "object": "model", "created": 0, "owned_by": "simulator"} for name in self._models]
        if self._context_tokens is not None:
            rows = [{**row, "max_model_len": self._context_tokens} for row in rows]
        return web.json_response({"object": "list", "data": rows})

    async def _warm_up(self, request: web.Request) -> web.Response:
        self.warm_ups += 1
        return web.Response(text="ok")

    async def _health(self, request: web.Request) -> web.Response:
        return web.Response()

    async def _metrics(self, request: web.Request) -> web.Response:
        return web.Response(text=self.engine.metrics(), content_type="text/plain")

    def _unauthorized(self, request: web.Request) -> web.Response | None:
        given = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if self._api_key is None or secrets.compare_digest(given.encode(), self._api_key.encode()):
            return None
        # Echoed in full, as careless servers do: a client must not pass it on.
        body = error_body(f"Incorrect API key provided: {given}", kind="invalid_request_error", code="invalid_api_key")
        return web.json_response(body, status=401)

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        if (refusal := self._unauthorized(request)) is not None:
            return refusal
        try:
            chat = read_request(await request.json(), request.headers)
        except (BadChatRequest, json.JSONDecodeError, KeyError, TypeError, AttributeError) as exc:
            return web.json_response(error_body(str(exc), kind="invalid_request_error"), status=400)
        if chat.model not in self._models:
            body = error_body(f"The model `{chat.model}` does not exist.", kind="NotFoundError", code="model_not_found")
            return web.json_response(body, status=404)
        record = CallRecord(chat, self._role_of(chat), time.monotonic(), chat.prompt_tokens)
        self.calls.append(record)
        wanted = record.prompt_tokens + (chat.max_tokens or 1)
        if self._context_tokens is not None and wanted > self._context_tokens:
            text = (
                f"This model's maximum context length is {self._context_tokens} tokens. You requested {wanted} tokens."
            )
            body = error_body(text, kind="BadRequestError", code="context_length_exceeded")
            self._close(record, CallOutcome.refused)
            return web.json_response(body, status=400)
        if self.rates is not None:
            wish = chat.max_tokens or COMPLETION_TOKENS_MAX
            taken = self.rates.admit(prompt_tokens=record.prompt_tokens, completion_max=wish)
            record.rate_headers = taken.headers
            if isinstance(taken, Refusal):
                self._close(record, CallOutcome.refused)
                body = error_body("Too many requests.", kind="too_many_requests_error", code=taken.code)
                headers = {**taken.headers, "Retry-After": str(taken.retry_after_s)}
                return web.json_response(body, status=429, headers=headers)
            record.admission = taken
        try:
            return await self._answer(request, record, self._responder(chat))
        except (asyncio.CancelledError, ConnectionError):
            self._close(record, CallOutcome.aborted)
            raise

    async def _answer(self, request: web.Request, record: CallRecord, reply: Reply) -> web.StreamResponse:
        fault = reply.fault
        if fault is not None and fault.kind is FaultKind.status:
            self._close(record, CallOutcome.refused)
            body = error_body(fault.message, kind="simulated", code=fault.code)
            return web.json_response(
                body, status=fault.status, headers={**record.rate_headers, **(fault.headers or {})}
            )
        if fault is not None and fault.kind is FaultKind.html:
            self._close(record, CallOutcome.faulted)
            return web.Response(text="<!DOCTYPE html><html><body>Welcome</body></html>", content_type="text/html")
        if fault is not None and fault.kind is FaultKind.reset and fault.after_tokens == 0:
            return self._reset(request, record)
        plan = plan_reply(reply, record.request)
        async with self.engine.slot() as queued_s:
            if record.request.stream and not reply.plain:
                return await self._stream(request, record, reply, plan, queued_s)
            token_s = self.engine.token_s if reply.token_s is None else reply.token_s
            await asyncio.sleep(self.engine.prefill_s + reply.first_token_s + token_s * len(plan.pieces))
            record.sent_tokens = len(plan.pieces)
            self.engine.tokens_sent += len(plan.pieces)
            facts = self._facts(record, reply, plan, queued_s)
            wanted = record.request.body.get("logprobs")
            logprobs = logprobs_of(plan, wrong=self.engine.samples_wrongly) if wanted else None
            body = plain_body(
                call_id=_call_id(), model=record.request.model, reply=reply, plan=plan, facts=facts, logprobs=logprobs
            )
            self._close(record, CallOutcome.completed)
            return web.json_response(body, headers=record.rate_headers)

    async def _stream(
        self, request: web.Request, record: CallRecord, reply: Reply, plan: Plan, queued_s: float
    ) -> web.StreamResponse:
        headers = {"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-cache"}
        headers |= record.rate_headers
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        chunks = Chunks(call_id=_call_id(), model=record.request.model, reply=reply)
        await response.write(chunks.start())
        await self._wait(response, self.engine.prefill_s + reply.first_token_s, reply.keepalive_s)
        token_s = self.engine.token_s if reply.token_s is None else reply.token_s
        due = time.monotonic()
        fault = reply.fault
        for piece, number, count in grouped(plan, self.engine.chunk_tokens, cut=fault.after_tokens if fault else None):
            if fault is not None and number == fault.after_tokens:
                return await self._break_off(request, response, record, reply)
            due += token_s * count
            if (wait := due - time.monotonic()) > 0:
                await asyncio.sleep(wait)
            await response.write(chunks.piece(piece))
            record.sent_tokens += count
            self.engine.tokens_sent += count
        if fault is not None:
            return await self._break_off(request, response, record, reply)
        await response.write(chunks.end(plan.finish_reason))
        facts = self._facts(record, reply, plan, queued_s)
        if not record.request.include_usage:
            facts.pop("usage", None)
        if facts:
            await response.write(chunks.summary(facts))
        await response.write(DONE)
        await response.write_eof()
        self._close(record, CallOutcome.completed)
        return response

    async def _break_off(
        self, request: web.Request, response: web.StreamResponse, record: CallRecord, reply: Reply
    ) -> web.StreamResponse:
        fault = reply.fault
        if fault is None:
            return response
        match fault.kind:
            case FaultKind.reset:
                return self._reset(request, record, response)
            case FaultKind.stall:
                await self._wait(response, STALL_S, reply.keepalive_s)
            case FaultKind.endless_line:
                await response.write(b"data: ")
                while True:
                    await response.write(b"x" * _ENDLESS_BYTES)
            case FaultKind.malformed_json:
                await response.write(b'data: {"choices": [{"index": 0, "delta": {"content": "cut\n\n')
                await response.write(DONE)
            case FaultKind.error_mid_stream:
                body = error_body(fault.message, kind="server_error", code=fault.code)
                await response.write(b"data: " + json.dumps(body).encode() + b"\n\n")
            case _:
                pass
        self._close(record, CallOutcome.faulted)
        if fault.kind is FaultKind.truncated and request.transport is not None:
            request.transport.close()
        return response

    async def _wait(self, response: web.StreamResponse, seconds: float, keepalive_s: float | None) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            await asyncio.sleep(left if keepalive_s is None else min(left, keepalive_s))
            if keepalive_s is not None:
                await response.write(KEEPALIVE)

    def _reset(
        self, request: web.Request, record: CallRecord, response: web.StreamResponse | None = None
    ) -> web.StreamResponse:
        """Answer with a TCP reset instead of an orderly close."""
        self._close(record, CallOutcome.faulted)
        transport = request.transport
        if transport is not None:
            link = transport.get_extra_info("socket")
            with suppress(OSError):
                link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            transport.abort()
        return response or web.Response()

    def _close(self, record: CallRecord, outcome: CallOutcome) -> None:
        if record.outcome is CallOutcome.open:
            record.outcome, record.closed_at = outcome, time.monotonic()
            if record.admission is not None and self.rates is not None:
                self.rates.settle(record.admission, used_tokens=record.prompt_tokens + record.sent_tokens)

    def _facts(self, record: CallRecord, reply: Reply, plan: Plan, queued_s: float) -> dict[str, Any]:
        """Return usage, Cerebras' `time_info` and vLLM's `metrics`."""
        spent = time.monotonic() - record.opened_at
        facts: dict[str, Any] = {
            "time_info": {
                "queue_time": queued_s,
                "prompt_time": self.engine.prefill_s,
                "completion_time": max(0.0, spent - queued_s - self.engine.prefill_s),
                "total_time": spent,
            }
        }
        if reply.usage:
            completion = len(plan.pieces)
            reasoning = sum(piece.reasoning for piece in plan.pieces)
            facts["usage"] = {
                "prompt_tokens": record.prompt_tokens,
                "completion_tokens": completion,
                "total_tokens": record.prompt_tokens + completion,
                "completion_tokens_details": {"reasoning_tokens": reasoning} if reasoning else None,
            }
            if reply.cached_prompt_tokens is not None:
                facts["usage"]["prompt_tokens_details"] = {"cached_tokens": reply.cached_prompt_tokens}
        if self.engine.per_request_acceptance:
            facts["metrics"] = {"speculative_decoding": self.engine.drafting()}
        return facts


def _call_id() -> str:
    return f"chatcmpl-{secrets.token_hex(8)}"
