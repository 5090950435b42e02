"""Each HTTP request is counted, traced, and told in one line of the log: never by its path, its query or its body.

Pure ASGI: the span is the current one for whatever the request does, and streams are watched to their end.
"""

import time
from typing import Any

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..workers.counters import counters
from ..workers.telemetry import telemetry
from .access import caller_of

CLIENT_LEFT = 499
"""nginx's status of a request whose client left before it was answered."""
UNMATCHED = "unmatched"
"""Route of requests for what does not exist: paths are anyone's choice, and would grow without limit."""
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_PROBES = ("/health/", "/metrics")
"""Asked for every few seconds: counted, but not traced, and logged for those who look for it."""
log = structlog.stdlib.get_logger(__name__)


class Observe:
    """Middleware that goes around all others, so that what these refuse is seen, too."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on and watch it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if scope["path"].startswith(_PROBES):
            await _watched(self._app, scope, receive, send, _Seen(scope))
            return
        seen = _Seen(scope)
        with telemetry().span(
            seen.method,
            kind="server",
            traceparent=_traceparent(scope),
            attributes={"http.request.method": seen.method, "url.scheme": scope.get("scheme")},
        ) as span:
            try:
                await _watched(self._app, scope, receive, send, seen)
            finally:
                route = seen.route
                span.set_all({"http.response.status_code": seen.status, "http.route": route})
                span.rename(f"{seen.method} {route}")
                if seen.status >= 500:
                    span.fail(str(seen.status))


class _Seen:
    """What is known of a request."""

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self.method = scope["method"] if scope["method"] in _METHODS else "OTHER"
        self.status = CLIENT_LEFT

    @property
    def route(self) -> str:
        """The template that the path matched, known once it was routed."""
        return getattr(self._scope.get("route"), "path", None) or UNMATCHED


async def _watched(app: ASGIApp, scope: Scope, receive: Receive, send: Send, seen: _Seen) -> None:
    began = time.monotonic()

    async def watched_send(message: Message) -> None:
        if message["type"] == "http.response.start":
            seen.status = message["status"]
        await send(message)

    try:
        await app(scope, receive, watched_send)
    except Exception:
        if seen.status == CLIENT_LEFT:
            seen.status = 500  # as it is going to be answered by who catches this
        raise
    finally:
        seconds = time.monotonic() - began
        counters().request_answered(seen.method, seen.route, seen.status, seconds=seconds)
        _tell(scope, seen, seconds)


def _tell(scope: Scope, seen: _Seen, seconds: float) -> None:
    caller = caller_of(scope)
    facts: dict[str, Any] = {"method": seen.method, "route": seen.route, "status": seen.status}
    tell = log.debug if scope["path"].startswith(_PROBES) else log.info
    tell("request", **facts, seconds=round(seconds, 4), tenant=None if caller is None else caller.tenant)


def _traceparent(scope: Scope) -> str | None:
    found = [value for name, value in scope["headers"] if name == b"traceparent"]
    # Two of them are none, says the W3C.
    return found[0].decode("latin-1") if len(found) == 1 else None
