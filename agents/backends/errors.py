"""The border: what model servers say when they fail, mapped once into our error tree.

Statuses and codes follow the OpenAI API reference; the phrases for a full context are those of vLLM, llama.cpp, SGLang
and Cerebras. Text from a server is shortened, and the key is cut out of it, before it enters a message.
"""

import json
import math
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Literal, cast

from pydantic import SecretStr

from ...schemas.errors import (
    BackendError,
    BadRequest,
    ContextTooLong,
    ModelNotFound,
    Overloaded,
    PaymentRequired,
    RateLimited,
    StreamBroken,
    Unauthorized,
)

MESSAGE_CHARS_MAX = 500
HEADERS_MAX = 32
HEADER_CHARS_MAX = 200

_CONTEXT_CODES = {
    "context_length_exceeded",
    "exceed_context_size_error",
    "string_above_max_length",
    "context_window_exceeded",
}
_CONTEXT_PHRASES = re.compile(
    r"context (length|window|size|limit)|maximum model length|max_model_len|prompt is too long|input is too long"
    r"|too many (input )?tokens|reduce the length of the",
    re.IGNORECASE,
)
_OVERLOADED_TYPES = {"server_error", "internal_error", "internal_server_error", "overloaded_error", "engine_overloaded"}
_RATE_PREFIX = "x-ratelimit-"
_QUOTAS: dict[str, Literal["requests", "tokens"]] = {
    "request_quota_exceeded": "requests",
    "token_quota_exceeded": "tokens",
}
"""Cerebras' codes of a 429 that is about the caller's quota."""
_FULL_CODES = {"queue_exceeded"}
"""Cerebras' code of a 429 that is about the server's own load."""


@dataclass(frozen=True)
class Origin:
    """Whom the errors are about."""

    name: str
    """Name of the backend as configured."""
    address: str
    """URL of the server without credentials and query."""
    model: str
    """Model name as sent."""
    key_variable: str
    """Where the key is set, in words for the message."""
    secret: SecretStr | None = None
    """The key, to cut it out of what the server says; None = there is none."""

    def say(self, text: str) -> str:
        """Begin a message with whom it is about, and clean the server's words out of `text`."""
        return f"backend {self.name!r} at {self.address}: {self.clean(text)}"

    def clean(self, text: str) -> str:
        """Return `text` without the key, in one line, shortened."""
        key = self.secret.get_secret_value() if self.secret else ""
        if key:
            text = text.replace(key, "[key]")
        text = " ".join(text.split())
        return text if len(text) <= MESSAGE_CHARS_MAX else text[: MESSAGE_CHARS_MAX - 1] + "…"


@dataclass(frozen=True)
class ServerWords:
    """What a server's error body says, whichever of the usual shapes it has."""

    message: str
    code: str
    type: str
    status: int | None
    """A numeric `code` or `status_code` in the body, or beside `error` as Cerebras has it; None = none."""


def server_words(body: Any) -> ServerWords:
    """Read `{"error": {...}}`, `{"error": "…"}`, `{"message": …}`, `{"detail": …}`, or plain text (JSON decoded or not)."""
    if isinstance(body, bytes):
        body = body.decode("utf-8", errors="replace")
    if isinstance(body, str):
        try:
            body = json.loads(body)
        except ValueError:
            html = "<html" in body[:1000].lower() or "<!doctype" in body[:1000].lower()
            return ServerWords("an HTML page, no API error" if html else body, "", "", None)
    around: dict[str, Any] = {}
    if isinstance(body, dict) and "error" in body:
        around = cast(dict[str, Any], body)
        body = around["error"]
    if not isinstance(body, dict):
        return ServerWords("" if body is None else str(cast(object, body)), "", "", None)
    fields = cast(dict[str, Any], body)
    message = fields.get("message") or fields.get("detail") or ""
    code = fields.get("code")
    told = (code, fields.get("status_code"), around.get("status_code"))
    status = next((value for value in told if type(value) is int and 400 <= value < 600), None)
    return ServerWords(
        message if isinstance(message, str) else json.dumps(message),
        code if isinstance(code, str) else "",
        str(fields.get("type") or ""),
        status,
    )


def status_error(status: int, body: Any, *, headers: Mapping[str, str], origin: Origin) -> BackendError:
    """Return the error for an HTTP status other than 200; `body` is the error body, decoded or not."""
    words = server_words(body)
    kind, text = _meaning(status, words, origin=origin)
    limits = rate_limits(headers)
    wait = retry_after_s(headers)
    if wait is None and kind is RateLimited:
        wait = _reset_s(limits)
    if wait is not None and kind.retryable:
        text += f"; retry after {wait:g} s"
    said = f" ({words.message})" if words.message else ""
    error = kind(origin.say(text + said), status=status, retry_after_s=wait, rate_limits=limits)
    if isinstance(error, RateLimited):
        error.quota = _QUOTAS.get(words.code)
    return error


def _meaning(status: int, words: ServerWords, *, origin: Origin) -> tuple[type[BackendError], str]:
    """Return what a refusal is, and its words without the server's own."""
    if 300 <= status < 400:
        text = f"answered with a redirect ({status}), which is not followed; set base_url to the server's real address"
        return BadRequest, text
    if words.code == "insufficient_quota" or status == 402:
        return PaymentRequired, f"the account has no credit ({status})"
    if status in (401, 403):
        key = "the key is missing or wrong" if status == 401 else "the key lacks the right"
        return Unauthorized, f"{key} ({status}); set {origin.key_variable}"
    if status == 404 or words.code == "model_not_found":
        return (
            ModelNotFound,
            f"does not serve the model {origin.model!r} ({status}), or base_url is wrong (most end in /v1)",
        )
    if status == 413 or (status in (400, 422) and _is_context(words)):
        return ContextTooLong, f"the prompt does not fit the model's context ({status})"
    if status == 429 and words.code in _FULL_CODES:
        return Overloaded, f"its queue is full ({status})"
    if status == 429:
        quota = _QUOTAS.get(words.code)
        return RateLimited, f"the quota of {quota} is used up ({status})" if quota else f"too many requests ({status})"
    if status >= 500 or status in (408, 425):
        return Overloaded, f"cannot serve now ({status})"
    return BadRequest, f"refused the request ({status})"


def stream_error(body: Any, *, origin: Origin, headers: Mapping[str, str] | None = None) -> BackendError:
    """Return the error for an error object inside a response that began with status 200; `headers` are the response's."""
    words = server_words(body)
    status = words.status
    if status is None and (words.code in _QUOTAS or words.code in _FULL_CODES):
        status = 429
    if status is not None:
        return status_error(status, body, headers=headers or {}, origin=origin)
    if _is_context(words):
        return ContextTooLong(origin.say(f"the prompt does not fit the model's context ({words.message})"))
    if words.code in ("rate_limit_exceeded", "too_many_requests") or words.type == "rate_limit_error":
        return RateLimited(origin.say(f"too many requests ({words.message})"))
    if words.type in _OVERLOADED_TYPES or words.code in _OVERLOADED_TYPES:
        return Overloaded(origin.say(f"failed inside the stream ({words.message})"))
    return StreamBroken(origin.say(f"ended the stream with an error ({words.message or 'no message'})"))


def _is_context(words: ServerWords) -> bool:
    return bool({words.code, words.type} & _CONTEXT_CODES) or bool(_CONTEXT_PHRASES.search(words.message))


def retry_after_s(headers: Mapping[str, str], *, now_s: float | None = None) -> float | None:
    """Return the seconds to wait by `Retry-After` (seconds or HTTP date, RFC 9110 §10.2.3) or `retry-after-ms`; None = not told.

    A date is measured from the response's own `Date` header where there is one, so that clocks need not agree.
    `now_s` is a Unix time in seconds; None means the system clock.
    """
    lowered = {key.lower(): value for key, value in headers.items()}
    milliseconds = _number(lowered.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    text = lowered.get("retry-after")
    seconds = _number(text)
    if seconds is not None or not text:
        return seconds
    due = _date_s(text)
    if due is None:
        return None
    sent = _date_s(lowered.get("date"))
    here = time.time() if now_s is None else now_s
    return max(0.0, due - (here if sent is None else sent))


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return max(0.0, value) if math.isfinite(value) else None


def _date_s(text: str | None) -> float | None:
    try:
        return parsedate_to_datetime(text or "").timestamp()
    except (ValueError, TypeError, OverflowError):
        return None


def rate_limits(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the `x-ratelimit-…` headers, names in lower case."""
    found = {
        key.lower(): value[:HEADER_CHARS_MAX] for key, value in headers.items() if key.lower().startswith(_RATE_PREFIX)
    }
    return dict(list(found.items())[:HEADERS_MAX])


def _reset_s(limits: Mapping[str, str]) -> float | None:
    """Return the seconds until every quota of which nothing remains is there again; None = not told.

    Cerebras tells them in seconds. Other forms (OpenAI's `6m0s`) come with a Retry-After, which is read first.
    """
    spent = [name for name, value in limits.items() if "-remaining-" in name and _number(value) == 0]
    resets = [_number(limits.get(name.replace("-remaining-", "-reset-"))) for name in spent]
    return max((seconds for seconds in resets if seconds is not None), default=None)
