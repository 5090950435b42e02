"""The OpenAPI document: what FastAPI derives from the endpoints, and what it cannot know."""

from collections.abc import Callable
from typing import Any

from fastapi import FastAPI

from .access import API
from .error_answers import error_answers

KEY_SCHEME = "key"
LOCKED_BESIDES = ("/metrics",)
"""Paths outside of /v1 that a key opens."""
_ERROR = "#/components/schemas/ErrorBody"
_INVALID = "HTTPValidationError"


def document(app: FastAPI) -> Callable[[], dict[str, Any]]:
    """Return what makes the application's document, once."""
    derive = app.openapi

    def complete() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _completed(derive())
        return app.openapi_schema

    return complete


def _completed(found: dict[str, Any]) -> dict[str, Any]:
    """Add the key, and take away FastAPI's own answer to what is invalid: ours is 400, in OpenAI's form."""
    components = found.setdefault("components", {})
    components["securitySchemes"] = {
        KEY_SCHEME: {
            "type": "http",
            "scheme": "bearer",
            "description": "An API key (`k2think keys create`). A gateway on loopback needs none until one was made.",
        }
    }
    for name in (_INVALID, "ValidationError"):
        components.get("schemas", {}).pop(name, None)
    late = {"description": error_answers(408)[408]["description"], "content": _error_content()}
    for path, operations in found["paths"].items():
        locked = path == API or path.startswith((f"{API}/", *LOCKED_BESIDES))
        for operation in operations.values():
            if locked:
                operation["security"] = [{KEY_SCHEME: []}]
            responses = operation["responses"]
            for status, answer in responses.items():
                if int(status) >= 400 and _ERROR in str(answer):
                    # FastAPI gives errors the media type of the endpoint's own answer.
                    answer["content"] = _error_content()
            if _INVALID in str(responses.get("422", "")):
                del responses["422"]
            if "requestBody" in operation:
                responses.setdefault("408", late)
    return found


def _error_content() -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": _ERROR}}}
