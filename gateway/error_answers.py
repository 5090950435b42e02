"""The error answers of endpoints, for the OpenAPI document."""

from typing import Any

from ..schemas.error_body import ErrorBody

_MEANING = {
    400: "The request cannot be understood, or asks for what is not supported.",
    401: "No key, or a wrong one.",
    403: "The key does not open this.",
    404: "No such thing, or it is another tenant's.",
    408: "The body did not come in time.",
    409: "The idempotency key stands for another request, or the state does not allow this.",
    413: "The body is too large.",
    422: "The work was done and came to no answer: `code` says why, and sending it again is unlikely to help.",
    429: "A limit of the tenant is reached: Retry-After says when to come back.",
    503: "The queue is full, or the database or Redis is away: Retry-After says when to come back.",
}
LOOKING = (400, 401, 403, 404, 503)
"""Statuses of endpoints that look at one thing, or change it."""
CREATING = (400, 401, 403, 409, 413, 429, 503)
"""Statuses of endpoints that create."""


def error_answers(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return what FastAPI's `responses` takes."""
    return {status: {"model": ErrorBody, "description": _MEANING[status]} for status in statuses}
