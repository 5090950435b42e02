"""One request and its answer, tried again where that is safe."""

import random
import time
import uuid
from collections.abc import Generator, Mapping
from dataclasses import replace
from typing import Any, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel, ValidationError

from .. import __version__
from ..schemas.errors import (
    BrokerUnavailable,
    ConfigurationError,
    GatewayError,
    GatewayUnreachable,
    InvalidRequest,
    K2ThinkError,
    LimitReached,
    QueueFull,
    StoreUnavailable,
)
from .failures import error_of, may_come_again, not_understood
from .flow import Answer, Call, Flow, Open, Pause, Send

DEFAULT_URL = "http://127.0.0.1:8400"
TIMEOUT_S = 30.0
PATIENCE_S = 60.0
FIRST_CONTACT_S = 2.0
"""Seconds that a gateway is looked for which never answered this client: most likely the address is wrong."""
LAST_LOOK_S = 2.0
"""Seconds that an answer may take which was asked for just before a deadline: a result that is there is not missed."""
LEAST_S = 0.05
CONNECT_TIMEOUT_S = 5.0
BACKOFF_FIRST_S = 0.1
BACKOFF_MAX_S = 5.0
KEEPALIVE_EXPIRY_S = 2.0
"""Seconds after which an idle connection is not used again: less than any server keeps one."""
IDLE_CONNECTIONS_MAX = 100
MAY_PASS = (GatewayError, StoreUnavailable, BrokerUnavailable, QueueFull, LimitReached)
"""Errors that the same request may not meet later."""

M = TypeVar("M", bound=BaseModel)


class Patience:
    """How long something is tried again, with pauses that grow."""

    def __init__(self, exchange: "Exchange", *, deadline: float | None = None) -> None:
        """`deadline`: of `time.monotonic`, in seconds, at which it ends in any case; None = there is none."""
        self._exchange = exchange
        self._deadline = deadline
        self.renew()

    def renew(self) -> None:
        """Count from now on: there was a sign of life."""
        self._start = time.monotonic()
        self._backoff_s = BACKOFF_FIRST_S

    def read_timeout_s(self, *, least_s: float = LEAST_S) -> float:
        """Seconds that an answer may take: the client's own, or what is left to the deadline, but at least `least_s`."""
        if self._deadline is None:
            return self._exchange.timeout_s
        return min(self._exchange.timeout_s, max(least_s, self._deadline - time.monotonic()))

    def pause(self, error: K2ThinkError) -> Generator[Pause, None, None]:
        """Wait before the next try; raise the error when there is no time for one."""
        stranger = isinstance(error, GatewayUnreachable) and not error.sent and not self._exchange.reached
        patience_s = min(self._exchange.patience_s, FIRST_CONTACT_S) if stranger else self._exchange.patience_s
        now = time.monotonic()
        left_s = self._start + patience_s - now
        told_s = error.retry_after_s if isinstance(error, QueueFull | LimitReached | GatewayError) else None
        time_left_s = left_s if self._deadline is None else self._deadline - now
        if min(left_s, time_left_s) <= 0 or (told_s or 0.0) > left_s:
            raise error
        # Many who were told the same shall not come at the same moment.
        pause_s = (self._backoff_s if told_s is None else told_s) * random.uniform(1.0, 1.2)
        self._backoff_s = min(2 * self._backoff_s, BACKOFF_MAX_S)
        yield Pause(min(pause_s, left_s, time_left_s))


class Exchange:
    """What both clients know: where the gateway is, who asks, and how long they are patient."""

    def __init__(self, base_url: str, api_key: str | None, timeout_s: float, patience_s: float) -> None:
        """Raises ConfigurationError for what is not an address or a number of seconds."""
        try:
            url = httpx.URL(base_url)
        except (httpx.InvalidURL, TypeError) as exc:
            raise ConfigurationError(f"base_url: this is not an address: {exc}") from exc
        if url.scheme not in ("http", "https") or not url.host:
            raise ConfigurationError(f"base_url: give the address of a gateway, such as {DEFAULT_URL}")
        if not (timeout_s > 0 and patience_s >= 0):
            raise ConfigurationError("timeout_s must be above 0, and patience_s not below it: both are seconds")
        # Who has the address of an OpenAI client at hand has /v1 at its end.
        self.base_url = base_url.rstrip("/").removesuffix("/v1")
        """Root of the gateway."""
        self.timeout_s = timeout_s
        """Seconds of silence after which an answer is given up."""
        self.patience_s = patience_s
        """Seconds that something is tried again."""
        self.reached = False
        """Whether the gateway has ever answered."""
        self.headers = {"User-Agent": f"k2think/{__version__}"}
        """Of every request."""
        if api_key is not None:
            self.headers["Authorization"] = f"Bearer {api_key}"

    def __repr__(self) -> str:
        """Without the key."""
        return f"{type(self).__name__}({self.base_url!r})"

    def ask(self, call: Call, *, deadline: float | None = None, stream: bool = False) -> Flow[Answer]:
        """Make a request; a call that is repeatable is tried again while the gateway is away or says "later".

        Ends with an answer of a status below 400. `deadline` is a time of `time.monotonic`. Raises what `error_of` makes.
        """
        patience = Patience(self, deadline=deadline)
        while True:
            read_timeout_s = call.read_timeout_s or patience.read_timeout_s(least_s=LAST_LOOK_S)
            timed = replace(call, read_timeout_s=read_timeout_s)
            try:
                answer: Answer = yield Open(timed) if stream else Send(timed)
            except GatewayUnreachable as exc:
                if exc.sent and not call.repeatable:
                    raise
                yield from patience.pause(exc)
                continue
            self.reached = True
            if answer.status < 300:
                return answer
            if answer.status < 400:
                raise GatewayError(
                    f"{self.base_url} sends its callers elsewhere (HTTP {answer.status}): give the gateway's own address",
                    status=answer.status,
                )
            error = error_of(answer)
            if not (call.repeatable and may_come_again(answer)):
                raise error
            yield from patience.pause(error)

    def ask_for(self, kind: type[M], call: Call, *, deadline: float | None = None) -> Flow[M]:
        """As `ask`, for an answer of that type. What a newer gateway tells besides is passed over."""
        answer = yield from self.ask(call, deadline=deadline)
        try:
            return kind.model_validate_json(answer.content, extra="ignore")
        except ValidationError as exc:
            raise not_understood(exc, f"a {kind.__name__}") from exc


def creating(path: str, *, body: Any = None, key: str | None = None, **more: Any) -> Call:
    """Return the call that creates something, safe to repeat: its idempotency key is the caller's or a new one."""
    return Call("POST", path, json=body, headers={"Idempotency-Key": key or uuid.uuid4().hex}, **more)


def segment(name: str) -> str:
    """Return an id as a part of a path. Raises InvalidRequest when it is empty."""
    if not name:
        raise InvalidRequest("the id is empty")
    return quote(name, safe="").replace(".", "%2E")


def given(**params: str | float | None) -> Mapping[str, str | float]:
    """Return what is not None, as a query."""
    return {name: value for name, value in params.items() if value is not None}
