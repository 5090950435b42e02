"""The error tree. Foreign errors are mapped into it once, at the border where they arise.

K2ThinkError
├── UserError                 something the caller can put right (exit code 2)
│   ├── InvalidRequest        a request, policy or input line that cannot be understood
│   │   └── IdempotencyConflict   a key that stands for another request already
│   ├── ConfigurationError    settings that cannot work
│   ├── QueueFull             no more work is accepted for now
│   ├── LimitReached          the tenant has used up what it may
│   ├── AccessDenied          no key, a wrong one, or one that does not open this
│   └── NotFound              no such job, file, batch or key
├── StoreError                the database
│   ├── StoreUnavailable      cannot be reached just now; try again
│   ├── StoreFull             no space left
│   └── SchemaMismatch        written by another version
├── BrokerUnavailable         Redis cannot be reached just now; try again
├── Stopping                  the process that was asked is being stopped; ask again
├── GatewayError              the Python client got no usable answer from a gateway
│   └── GatewayUnreachable    no connection, or it broke; try again
├── WaitTimedOut              the caller's time to wait was over; what was waited for goes on
├── BackendError              a model server or engine
│   ├── retryable: RateLimited, Overloaded, Unreachable, StreamBroken, Stalled, MalformedResponse, BackendsResting
│   └── final: BadRequest, Unauthorized, PaymentRequired, ModelNotFound, ContextTooLong
└── GradingError              a check or comparison that crashed (an error, never a zero)
    └── SandboxUnavailable    code cannot be run safely here
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from pydantic import ValidationError

_NAME_CHARS_MAX = 64
_PROBLEMS_MAX = 10
_TEXT_CHARS_MAX = 300
_IN_PLAIN_WORDS = (
    (re.compile(r"Input should be a valid (dictionary|mapping).*"), "Input should be an object"),
    (re.compile(r"Input should be a valid (tuple|set|frozenset)$"), "Input should be a list"),
    (re.compile(r"(Tuple|Set|Frozenset) should have"), "List should have"),
)
"""Pydantic's words that only Python has, and what is said instead."""


class K2ThinkError(Exception):
    """Base of all our errors. `str(error)` says what happened, why, and what to do."""

    code: ClassVar[str] = "internal_error"
    """Stable machine-readable name, as it appears in results and the HTTP API."""


class UserError(K2ThinkError):
    """Something that the caller can put right."""

    code = "user_error"


class InvalidRequest(UserError):
    """A request that cannot be understood."""

    code = "invalid_request"

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param
        """Name of the parameter that is wrong; None = the request as a whole."""


class IdempotencyConflict(InvalidRequest):
    """The idempotency key stands for another request already."""

    code = "idempotency_conflict"


class ConfigurationError(UserError):
    """Settings that cannot work; the message names the variable."""

    code = "configuration_error"


class QueueFull(UserError):
    """No more work is accepted for now."""

    code = "queue_full"

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class LimitReached(UserError):
    """The tenant has used up what it may."""

    code = "rate_limit_exceeded"

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class AccessDenied(UserError):
    """No key, a wrong one, or one that does not open this."""

    code = "invalid_api_key"

    def __init__(self, message: str, *, known: bool = False) -> None:
        super().__init__(message)
        self.known = known
        """Whether the key as such is valid (403 rather than 401)."""


class NotFound(UserError):
    """No such job, file, batch or key."""

    code = "not_found"
    param: ClassVar[str | None] = None
    """Name of the parameter that named it; None = the path did."""


class StoreError(K2ThinkError):
    """The database failed."""

    code = "store_error"


class StoreUnavailable(StoreError):
    """The database cannot be reached just now."""

    code = "store_unavailable"


class StoreFull(StoreError):
    """No space is left for the database."""

    code = "store_full"


class SchemaMismatch(StoreError):
    """The database was written by another version of k2think."""

    code = "schema_mismatch"


class BrokerUnavailable(K2ThinkError):
    """Redis cannot be reached just now."""

    code = "broker_unavailable"


class Stopping(K2ThinkError):
    """The process that was asked is being stopped; another one, or its successor, answers."""

    code = "stopping"


class GatewayError(K2ThinkError):
    """The Python client got no usable answer from a gateway."""

    code = "gateway_error"

    def __init__(self, message: str, *, status: int | None = None, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        """HTTP status, None where there was none."""
        self.retry_after_s = retry_after_s
        """Seconds to wait as told by the gateway; None = not told."""


class GatewayUnreachable(GatewayError):
    """No connection to the gateway, or it broke."""

    code = "gateway_unreachable"

    def __init__(self, message: str, *, sent: bool = False) -> None:
        super().__init__(message)
        self.sent = sent
        """Whether the request, or a part of it, may have arrived."""


class WaitTimedOut(K2ThinkError, TimeoutError):
    """The caller's time to wait was over; what was waited for goes on."""

    code = "wait_timed_out"


class BackendError(K2ThinkError):
    """A model server or engine failed."""

    code = "backend_error"
    retryable: ClassVar[bool] = False
    """Whether the same call may succeed later."""

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        retry_after_s: float | None = None,
        rate_limits: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        """HTTP status, None where there was none."""
        self.retry_after_s = retry_after_s
        """Seconds to wait as told by the server; None = not told."""
        self.rate_limits = dict(rate_limits or {})
        """The `x-ratelimit-…` headers of the refusal, names in lower case; empty = none came."""


class RateLimited(BackendError):
    """429: the caller sends too much."""

    code = "backend_rate_limited"
    retryable = True
    quota: Literal["requests", "tokens"] | None = None
    """Which quota is used up; None = not told."""


class Overloaded(BackendError):
    """5xx: the server cannot serve now."""

    code = "backend_overloaded"
    retryable = True


class Unreachable(BackendError):
    """No connection to the server."""

    code = "backend_unreachable"
    retryable = True


class StreamBroken(BackendError):
    """The response ended before it was complete."""

    code = "backend_stream_broken"
    retryable = True


class Stalled(BackendError):
    """No data for longer than the idle timeout."""

    code = "backend_stalled"
    retryable = True


class MalformedResponse(BackendError):
    """The response does not follow the protocol."""

    code = "backend_malformed_response"
    retryable = True


class BackendsResting(BackendError):
    """Every backend that may serve the call is left alone just now, after failures. No call was made."""

    code = "backends_resting"
    retryable = True


class BadRequest(BackendError):
    """400: the server refuses the request as such."""

    code = "backend_bad_request"


class Unauthorized(BackendError):
    """401 or 403: the key is missing, wrong, or lacks the right."""

    code = "backend_unauthorized"


class PaymentRequired(BackendError):
    """402: the account has no credit."""

    code = "backend_payment_required"


class ModelNotFound(BackendError):
    """404: the server does not serve the model."""

    code = "backend_model_not_found"


class ContextTooLong(BackendError):
    """The prompt and the requested completion do not fit the model's context."""

    code = "backend_context_too_long"


class GradingError(K2ThinkError):
    """A check or comparison crashed: an error that is counted, never a zero."""

    code = "grading_error"


class SandboxUnavailable(GradingError):
    """Code cannot be run safely on this machine."""

    code = "sandbox_unavailable"


def explain(exc: ValidationError) -> str:
    """Say in one line what is wrong with some input: at most ten problems, by field.

    Content is never repeated, it may be private; names are (of fields, kinds, policies), cut to what can be read.
    """
    found = problems_of(exc.errors(include_url=False, include_input=False, include_context=False))
    return "; ".join(f"{place}: {text}" if place else text for place, text in found)


def problems_of(errors: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Return places and texts of what pydantic found: at most ten, in words that are not Python's alone."""
    places: list[tuple[int | str, ...]] = [tuple(error["loc"]) for error in errors]
    problems: list[tuple[str, str]] = []
    for place, error in zip(places, errors, strict=True):
        # Items that failed are not counted: their list is called too short, however long it is.
        if error["type"] == "too_short" and any(item[: len(place)] == place != item for item in places):
            continue
        text = error["msg"].removeprefix("Value error, ")
        for words, plain in _IN_PLAIN_WORDS:
            text = words.sub(plain, text)
        problems.append((".".join(str(part)[:_NAME_CHARS_MAX] for part in place), text[:_TEXT_CHARS_MAX]))
    return problems[:_PROBLEMS_MAX]
