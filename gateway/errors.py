"""Every failure as an OpenAI error object: {"error": {"message", "type", "param", "code"}}."""

import math
from collections.abc import Sequence
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from ..schemas.errors import (
    AccessDenied,
    BrokerUnavailable,
    IdempotencyConflict,
    InvalidRequest,
    K2ThinkError,
    LimitReached,
    NotFound,
    QueueFull,
    Stopping,
    StoreError,
    problems_of,
)

UNAVAILABLE_RETRY_S = 2
"""What a caller is told to wait while the database or Redis is away, or the gateway is being stopped."""
_PARTS_OF_A_REQUEST = ("body", "query", "path", "header")
log = structlog.stdlib.get_logger(__name__)


def error_object(message: str, kind: str, *, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    """Return the body of an error answer."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def answer_of(error: K2ThinkError) -> tuple[int, dict[str, Any], dict[str, str]]:
    """Return status, body and headers for one of our errors."""
    message = str(error)
    match error:
        case IdempotencyConflict():
            return 409, error_object(message, "invalid_request_error", param=error.param, code=error.code), {}
        case InvalidRequest():
            return 400, error_object(message, "invalid_request_error", param=error.param, code=error.code), {}
        case NotFound():
            return 404, error_object(message, "invalid_request_error", param=error.param, code=error.code), {}
        case AccessDenied():
            if error.known:
                return 403, error_object(message, "permission_error", code="access_denied"), {}
            headers = {"WWW-Authenticate": "Bearer"}
            return 401, error_object(message, "authentication_error", code=error.code), headers
        case LimitReached():
            return 429, error_object(message, "rate_limit_error", code=error.code), _retry_after(error.retry_after_s)
        case QueueFull():
            return 503, error_object(message, "server_error", code=error.code), _retry_after(error.retry_after_s)
        case StoreError() | BrokerUnavailable() | Stopping():
            return 503, error_object(message, "server_error", code=error.code), _retry_after(UNAVAILABLE_RETRY_S)
        case _:
            return 500, error_object(message, "server_error", code=error.code), {}


def install_error_handlers(app: FastAPI) -> None:
    """Answer all failures of this application in that form."""

    @app.exception_handler(K2ThinkError)
    async def ours(_request: Request, exc: K2ThinkError) -> JSONResponse:
        status, body, headers = answer_of(exc)
        if status == 500:
            log.error("request_failed", code=exc.code, reason=str(exc))
        return JSONResponse(body, status, headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, exc: RequestValidationError) -> JSONResponse:
        errors = [{**error, "loc": _within(error["loc"])} for error in exc.errors()]
        problems = problems_of(errors)
        text = "; ".join(f"{place}: {what}" if place else what for place, what in problems)
        if isinstance(exc.body, bytes) and exc.body and any(not error["loc"] for error in errors):
            text = _not_sent_as_json(request)
        body = error_object(text, "invalid_request_error", param=problems[0][0] or None, code="invalid_request")
        return JSONResponse(body, 400)

    @app.exception_handler(HTTPException)
    async def http(_request: Request, exc: HTTPException) -> JSONResponse:
        kind = "invalid_request_error" if exc.status_code < 500 else "server_error"
        return JSONResponse(error_object(str(exc.detail), kind), exc.status_code, dict(exc.headers or {}))

    @app.exception_handler(Exception)
    async def unexpected(request: Request, exc: Exception) -> JSONResponse:
        log.error("request_broke", path=request.url.path, error=type(exc).__name__, exc_info=exc)
        return JSONResponse(
            error_object("something broke inside the gateway; its log has the details", "server_error"), 500
        )

    _ = ours, invalid, http, unexpected


def _within(place: Sequence[int | str]) -> tuple[int | str, ...]:
    """The place in what the caller sent, without the name of the request's part."""
    return tuple(part for part in place if part not in _PARTS_OF_A_REQUEST)


def _not_sent_as_json(request: Request) -> str:
    kind = request.headers.get("content-type", "").partition(";")[0].strip()[:64]
    sent = f"was sent as {kind!r}" if kind else "came without a content type"
    return f"the body {sent} and was not read: send `Content-Type: application/json`"


def _retry_after(seconds: float) -> dict[str, str]:
    return {"Retry-After": str(max(1, math.ceil(seconds)))}
