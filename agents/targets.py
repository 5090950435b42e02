"""One backend as a route sees it: made at first use, behind a breaker and its limits, its calls noted in the record."""

from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Protocol

from ..schemas.backend_settings import BackendSettings
from ..schemas.completion import CompletionRequest
from ..schemas.errors import (
    BackendError,
    BadRequest,
    ContextTooLong,
    MalformedResponse,
    ModelNotFound,
    Overloaded,
    PaymentRequired,
    Stalled,
    StreamBroken,
    Unauthorized,
    Unreachable,
)
from ..schemas.trace import CallTrace, LeftCall
from .backends.base import Backend
from .breaker import Breaker, Ticket
from .call import Completion, call_model
from .limits import UNLIMITED, Limiter
from .pace import Pace

_ABOUT_BACKEND = (Unreachable, Overloaded, Stalled, StreamBroken, MalformedResponse)
_FOR_ALL_CALLS = (Unauthorized, PaymentRequired, ModelNotFound)
ABOUT_REQUEST = (BadRequest, ContextTooLong)
"""Errors that another backend would give as well."""

AroundCall = Callable[[BackendSettings, CompletionRequest, CallTrace], AbstractContextManager[object]]
"""Makes what is entered around each model call; when it is left, the record is complete."""


def unwatched(
    _settings: BackendSettings, _request: CompletionRequest, _record: CallTrace
) -> AbstractContextManager[object]:
    """Enter nothing."""
    return nullcontext()


class RouteWatcher(Protocol):
    """Who is told what a route does, for logs and metrics."""

    def rests(self, backend: str, *, seconds: float, reason: str) -> None:
        """A backend is left alone for a while."""

    def returned(self, backend: str) -> None:
        """A backend that had been left alone serves again."""

    def fell_back(self, backend: str, to: str, *, reason: str) -> None:
        """A call went to another backend."""

    def hedged(self, backend: str, to: str, *, won: bool) -> None:
        """A second stream was begun; `won`: its token came first."""


class Unwatched:
    """Nobody is told."""

    def rests(self, backend: str, *, seconds: float, reason: str) -> None:
        """See RouteWatcher."""

    def returned(self, backend: str) -> None:
        """See RouteWatcher."""

    def fell_back(self, backend: str, to: str, *, reason: str) -> None:
        """See RouteWatcher."""

    def hedged(self, backend: str, to: str, *, won: bool) -> None:
        """See RouteWatcher."""


@dataclass(eq=False)
class Target:
    """One backend of a route, with what is known about it. Shared by all steps of a process."""

    name: str
    """As configured."""
    settings: BackendSettings
    make: Callable[[], Awaitable[Backend]]
    """Creates it at first use, and gives the same one ever after."""
    limiter: Limiter = UNLIMITED
    """Whose turns its calls wait for."""
    watcher: RouteWatcher = field(default_factory=Unwatched)
    """Who is told."""
    breaker: Breaker = field(init=False)
    """Leaves it alone when it fails."""
    pace: Pace = field(init=False)
    """How soon its first tokens come."""

    def __post_init__(self) -> None:
        settings = self.settings
        self.breaker = Breaker(
            failures=settings.breaker_failures,
            rest_s=settings.breaker_rest_s,
            rest_max_s=settings.breaker_rest_max_s,
        )
        self.pace = Pace(hedge_share_max=settings.hedge_share_max)

    def judge(self, ticket: Ticket, exc: BackendError | None, *, alone: bool) -> None:
        """Tell the breaker how a call went. `alone`: there is no other backend, so a wrong key must show at once."""
        if exc is None or isinstance(exc, ABOUT_REQUEST):
            if ticket.succeeded():
                self.watcher.returned(self.name)
            return
        at_once = isinstance(exc, _FOR_ALL_CALLS) and not alone
        if not at_once and not isinstance(exc, _ABOUT_BACKEND):
            ticket.left()
        elif ticket.failed(at_once=at_once):
            self.watcher.rests(self.name, seconds=self.breaker.rest_s, reason=str(exc))

    async def call(
        self,
        request: CompletionRequest,
        *,
        record: CallTrace,
        around_call: AroundCall,
        on_turn: Callable[[], None] | None = None,
        on_first_token: Callable[[], None] | None = None,
    ) -> Completion:
        """Call this backend once. Raises BackendError, ConfigurationError."""
        backend = await self.make()
        with around_call(self.settings, request, record):
            try:
                return await call_model(
                    backend,
                    request,
                    record=record,
                    settings=self.settings,
                    limiter=self.limiter,
                    on_turn=on_turn,
                    on_first_token=on_first_token,
                )
            finally:
                if record.time_to_first_token_s is not None:
                    self.pace.saw(record.time_to_first_token_s)


def leave(record: CallTrace, *, reason: str) -> None:
    """Begin the record anew for another call; what the one so far was and cost stays noted in it."""
    so_far = record.model_copy()
    take(record, CallTrace())
    note_left(record, so_far, reason=reason)


def take(record: CallTrace, call: CallTrace) -> None:
    """Make the record that of another call, save for the calls that were left before."""
    for name in CallTrace.model_fields:
        if name != "left_calls":
            setattr(record, name, getattr(call, name))


def note_left(record: CallTrace, call: CallTrace, *, reason: str) -> None:
    """Write into the record what a call was and cost that came to nothing."""
    if call.called:
        record.left_calls.append(
            LeftCall(
                backend=call.backend, model=call.model, reason=reason, usage=call.usage, duration_s=call.duration_s
            )
        )
