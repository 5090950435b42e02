"""Every failure as an OpenAI error object: {"error": {"message", "type", "param", "code"}}."""

import math
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
)

UNAVAILABLE_RETRY_S = 2
"""What a caller is told to wait while the database or Redis is away, or the gateway is being stopped."""
_PROBLEMS_MAX = 10
_TEXT_CHARS_MAX = 300
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
            return 404, error_object(message, "invalid_request_error", code=error.code), {}
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
    async def invalid(_request: Request, exc: RequestValidationError) -> JSONResponse:
        places: list[str] = []
        problems: list[str] = []
        for error in exc.errors()[:_PROBLEMS_MAX]:
            place = ".".join(str(part)[:64] for part in error["loc"] if part not in ("body", "query", "path", "header"))
            text = error["msg"].removeprefix("Value error, ")[:_TEXT_CHARS_MAX]
            places.append(place)
            problems.append(f"{place}: {text}" if place else text)
        body = error_object(
            "; ".join(problems), "invalid_request_error", param=places[0] or None, code="invalid_request"
        )
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


def _retry_after(seconds: float) -> dict[str, str]:
    return {"Retry-After": str(max(1, math.ceil(seconds)))}
