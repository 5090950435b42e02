"""Whatever goes wrong between here and a gateway, in our own tree (`schemas/errors.py`)."""

import math
from collections.abc import Mapping

import httpx
from pydantic import ValidationError

from ..schemas.error_body import ErrorBody, ErrorObject
from ..schemas.errors import (
    AccessDenied,
    BrokerUnavailable,
    GatewayError,
    GatewayUnreachable,
    IdempotencyConflict,
    InvalidRequest,
    K2ThinkError,
    LimitReached,
    NotFound,
    QueueFull,
    StoreFull,
    StoreUnavailable,
)
from .flow import Answer

_AGAIN_STATUSES = (429, 502, 503, 504)
_RETRY_AFTER_S = 1.0
"""Of errors that carry one, where the gateway did not tell."""
_TEXT_CHARS_MAX = 300
_NOTHING_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol)


def error_of(answer: Answer) -> K2ThinkError:
    """Return the error that an answer of status 400 or above stands for."""
    told = _told(answer.content)
    if told is None:
        text = answer.content.decode("utf-8", "replace").strip()[:_TEXT_CHARS_MAX] or "an empty body"
        told = ErrorObject(message=f"HTTP {answer.status} without an error object, but with {text!r}", type="")
    message, later_s = told.message, retry_after_s(answer.headers)
    match told.code, answer.status:
        case IdempotencyConflict.code, _:
            return IdempotencyConflict(message, param=told.param)
        case QueueFull.code, _:
            return QueueFull(message, retry_after_s=_RETRY_AFTER_S if later_s is None else later_s)
        case StoreUnavailable.code, _:
            return StoreUnavailable(message)
        case StoreFull.code, _:
            return StoreFull(message)
        case BrokerUnavailable.code, _:
            return BrokerUnavailable(message)
        case _, 401:
            return AccessDenied(f"{message} (the client takes it as api_key)")
        case _, 403:
            return AccessDenied(message, known=True)
        case _, 404:
            return NotFound(message)
        case _, 429:
            return LimitReached(message, retry_after_s=_RETRY_AFTER_S if later_s is None else later_s)
        case _, status if status < 500:
            return InvalidRequest(message, param=told.param)
        case _, status:
            return GatewayError(message, status=status, retry_after_s=later_s)


def may_come_again(answer: Answer) -> bool:
    """Whether the same request may be answered otherwise later."""
    return answer.status in _AGAIN_STATUSES


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Return the seconds of Retry-After; None where it is missing or not in seconds."""
    try:
        seconds = float(headers.get("retry-after", ""))
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


def unreachable(exc: httpx.TransportError | httpx.DecodingError, root: str) -> GatewayUnreachable:
    """Return our error for one of httpx's. `root` is the gateway's address."""
    reason = str(exc) or type(exc).__name__
    match exc:
        case httpx.ConnectError() | httpx.ConnectTimeout():
            text = (
                f"no gateway answers at {root} ({reason}): start one with `k2think up`, or give the right address as "
                "base_url"
            )
        case httpx.ReadTimeout():
            text = f"the gateway at {root} is silent: give it more time with timeout_s, and see its log"
        case _:
            text = f"the connection to the gateway at {root} broke ({reason}): try again"
    return GatewayUnreachable(text, sent=not isinstance(exc, _NOTHING_SENT))


def not_understood(exc: ValidationError, what: str) -> GatewayError:
    """Return the error of an answer that is not what was asked for."""
    problem = exc.errors(include_url=False, include_input=False, include_context=False)[0]
    place = ".".join(str(part) for part in problem["loc"])
    return GatewayError(
        f"what came is not {what} ({place}: {problem['msg']}): see whether base_url is the root of a k2think gateway of "
        "this client's version"
    )


def _told(content: bytes) -> ErrorObject | None:
    try:
        return ErrorBody.model_validate_json(content, extra="ignore").error
    except ValidationError:
        return None
