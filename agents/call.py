"""One model call as an agent makes it: streamed, recorded while it streams, retried where that costs nothing.

Only failures before the first token are tried again here (too many requests, overloaded, unreachable): nothing was paid for
them. Anything later is the step's to repeat. Inline `<think>` is split here, so that all backends behave alike.
"""

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import cast

from ..schemas.backend_settings import BackendSettings
from ..schemas.completion import CompletionRequest, Delta, Finish, StreamItem, TokenUsage
from ..schemas.errors import BackendError, Overloaded, RateLimited, Stalled, StreamBroken, Unreachable
from ..schemas.trace import CallTrace
from .backends.base import Backend
from .backends.thinking import ReasoningSplitter
from .backends.wire import estimate_prompt_tokens
from .limits import UNLIMITED, Limiter, Reservation

BACKOFF_BASE_S = 0.25
BACKOFF_MAX_S = 8.0
RETRY_AFTER_SPREAD = 0.1
"""Share of a Retry-After that is added at random, so that those who were told the same do not come back at once."""

_REFUSED = (RateLimited, Overloaded, Unreachable)
_FULL_STATUSES = (429, 503, 529)
"""Of an overloaded server, those that say that it has too much to do; the others tell of a defect."""


@dataclass(frozen=True)
class Completion:
    """A finished model call."""

    text: str
    """Visible text, without inline reasoning."""
    reasoning: str
    """Reasoning, from the server's own field or from inline `<think>`."""
    finish: Finish
    """End of the stream: reason, usage, timing."""


async def call_model(
    backend: Backend,
    request: CompletionRequest,
    *,
    record: CallTrace,
    settings: BackendSettings,
    limiter: Limiter = UNLIMITED,
    on_delta: Callable[[Delta], None] | None = None,
    on_turn: Callable[[], None] | None = None,
    on_first_token: Callable[[], None] | None = None,
) -> Completion:
    """Stream one completion from `backend` to its end.

    `record` is filled in whatever happens: a cancelled or failed call leaves its prompt, its partial text, the tokens counted
    so far, time to first token and duration. `on_delta` is given each delta, reasoning and text apart; `on_turn` is called
    when a try's turn at `limiter` has come, `on_first_token` when the first delta comes. Up to `settings.connect_retries` refusals before the first token are tried again, after the
    server's Retry-After where it gives one, else after full-jitter exponential back-off; a Retry-After above
    `settings.retry_after_max_s` is raised at once.
    Each try waits for its turn at `limiter` first, which counts neither as duration nor as time to first token.
    Raises BackendError; cancellation passes through and closes the stream.
    """
    call = _Call(
        backend,
        request,
        record=record,
        settings=settings,
        limiter=limiter,
        on_delta=on_delta,
        on_turn=on_turn,
        on_first_token=on_first_token,
    )
    try:
        while True:
            try:
                return await call.try_once()
            except _REFUSED as refusal:
                wait_s = call.retry_wait_s(refusal)
                if wait_s is None:
                    raise
                record.retries += 1
            await asyncio.sleep(wait_s)
    finally:
        call.close_record()


class _Call:
    """What is known about a call while it runs."""

    def __init__(
        self,
        backend: Backend,
        request: CompletionRequest,
        *,
        record: CallTrace,
        settings: BackendSettings,
        limiter: Limiter,
        on_delta: Callable[[Delta], None] | None,
        on_turn: Callable[[], None] | None,
        on_first_token: Callable[[], None] | None,
    ) -> None:
        self._backend = backend
        self._request = request
        self._record = record
        self._settings = settings
        self._limiter = limiter
        self._on_delta = on_delta
        self._on_turn = on_turn
        self._on_first_token = on_first_token
        self._began = time.monotonic()
        self._waits_since: float | None = None
        """Since when a turn is waited for; None = it is not."""
        self._turn_at = self._began
        self._first_token_s: float | None = None
        """Seconds from the turn to the first token."""
        self._prompt_tokens = estimate_prompt_tokens(request)
        self._sent = False
        """Whether a try was sent, and not refused."""
        self._splitter = ReasoningSplitter()
        self._raw: list[str] = []
        self._deltas = 0
        self._finish: Finish | None = None
        record.backend = backend.name
        record.model = backend.model
        record.prompt = list(request.messages)
        record.parameters = {
            "temperature": request.temperature,
            "top_p": request.top_p,
            "max_tokens": request.max_tokens or settings.max_tokens,
            "stop": list(request.stop),
            "seed": request.seed,
            "json_schema": request.json_schema,
        }

    async def try_once(self) -> Completion:
        """Wait for a turn and try the call."""
        self._waits_since = time.monotonic()
        most = self._prompt_tokens + (self._request.max_tokens or self._settings.max_tokens)
        async with self._limiter.reserve(tokens=most) as turn:
            self._waits_since = None
            self._waited(turn.waited_s)
            self._turn_at = time.monotonic()
            if self._on_turn is not None:
                self._on_turn()
            self._sent = True
            try:
                return await self._stream()
            except BaseException as exc:
                self._tell_failure(turn, exc)
                self._sent = turn.used_tokens is not None
                raise
            finally:
                if self._first_token_s is not None:
                    turn.first_token(self._first_token_s)
                if self._finish is not None:
                    turn.told(self._finish.rate_limits)
                    turn.settle(self._finish.usage.total)

    def _waited(self, seconds: float | None) -> None:
        if seconds is not None:
            self._began += seconds
            self._record.limit_wait_s = (self._record.limit_wait_s or 0.0) + seconds

    def _tell_failure(self, turn: Reservation, exc: BaseException) -> None:
        if isinstance(exc, BackendError):
            turn.told(exc.rate_limits)
        if isinstance(exc, RateLimited):
            turn.refused(exc.retry_after_s)
        elif isinstance(exc, Overloaded) and exc.status in _FULL_STATUSES:
            turn.overloaded(exc.retry_after_s)
        # Refused calls cost nothing; one that was begun has at least had its prompt read.
        if self._deltas or not isinstance(exc, BackendError) or isinstance(exc, StreamBroken | Stalled):
            turn.settle(self._prompt_tokens + self._deltas)

    async def _stream(self) -> Completion:
        # The protocol says iterator; every backend's is a generator, whose closing closes the connection.
        unseen: list[Delta] | None = [] if self._on_delta is None else None
        stream = cast(AsyncGenerator[StreamItem, None], self._backend.stream(self._request, unseen=unseen))
        try:
            async with aclosing(stream):
                async for item in stream:
                    if isinstance(item, Finish):
                        self._finish = item
                        break
                    self._take(item)
        finally:
            for delta in unseen or ():
                self._take(delta)
        if self._finish is None:
            raise StreamBroken(f"backend {self._backend.name!r} ended its stream without saying so")
        self._tell(self._splitter.finish())
        self._finish = self._finish.model_copy(update={"usage": self._with_reasoning(self._finish.usage)})
        return Completion(text=self._splitter.text, reasoning=self._splitter.reasoning, finish=self._finish)

    def retry_wait_s(self, refusal: BackendError) -> float | None:
        """Return the seconds to wait before the next try; None = give up."""
        tried = self._record.retries
        if self._deltas or tried >= self._settings.connect_retries:
            return None
        if refusal.retry_after_s is None:
            return random.uniform(0.0, min(BACKOFF_MAX_S, BACKOFF_BASE_S * 2**tried))
        if refusal.retry_after_s > self._settings.retry_after_max_s:
            return None
        return refusal.retry_after_s * (1 + random.uniform(0.0, RETRY_AFTER_SPREAD))

    def close_record(self) -> None:
        """Write down how far the call came."""
        record = self._record
        if self._waits_since is not None:
            self._waited(time.monotonic() - self._waits_since)
        record.model = self._backend.model
        record.duration_s = time.monotonic() - self._began
        record.raw_text = "".join(self._raw)
        if self._finish is None:
            self._splitter.finish()
        record.reasoning = self._splitter.reasoning
        if self._finish is not None:
            record.usage = self._finish.usage
            record.usage_estimated = self._finish.usage_estimated
            record.finish_reason = str(self._finish.finish_reason)
            record.engine_queue_s = self._finish.engine_queue_s
            record.engine_prompt_s = self._finish.engine_prompt_s
            record.engine_completion_s = self._finish.engine_completion_s
            record.cached_prompt_tokens = self._finish.cached_prompt_tokens
            record.draft_acceptance = self._finish.draft_acceptance
            record.accepted_length = self._finish.accepted_length
            record.rate_limits = self._finish.rate_limits
            record.model = self._finish.model or record.model
        elif self._sent:
            counted = TokenUsage(prompt=self._prompt_tokens, completion=self._deltas)
            record.usage, record.usage_estimated = self._with_reasoning(counted), True

    def _take(self, delta: Delta) -> None:
        if self._record.time_to_first_token_s is None:
            now = time.monotonic()
            self._record.time_to_first_token_s = now - self._began
            self._first_token_s = now - self._turn_at
            if self._on_first_token is not None:
                self._on_first_token()
        self._deltas += delta.pieces
        self._raw.append(delta.text)
        self._tell(self._splitter.feed(delta))

    def _tell(self, delta: Delta | None) -> None:
        if delta is not None and self._on_delta is not None:
            self._on_delta(delta)

    def _with_reasoning(self, usage: TokenUsage) -> TokenUsage:
        """Estimate the reasoning's share by its length, where the server did not tell it."""
        reasoning, text = len(self._splitter.reasoning), len(self._splitter.text)
        if usage.reasoning or not reasoning:
            return usage
        share = round(usage.completion * reasoning / (reasoning + text))
        return usage.model_copy(update={"reasoning": share})
