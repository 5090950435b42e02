"""Failures under /ui are pages, too."""

from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import quote

import structlog
from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse, Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from ...schemas.errors import AccessDenied, K2ThinkError, NotFound
from ..errors import answer_of
from .rendering import SECURITY_HEADERS, page

_TITLES = {
    400: "That cannot be read",
    403: "Not with this key",
    404: "Nothing here",
    429: "Too much at once",
    503: "Not just now",
}
log = structlog.stdlib.get_logger(__name__)


class PageRoute(APIRoute):
    """A route whose failures are shown as pages; who is not known is asked for a key."""

    def get_route_handler(self) -> Callable[[Request], Awaitable[Response]]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return the handler with our failures around it."""
        inner = super().get_route_handler()

        async def handler(request: Request) -> Response:
            try:
                return await inner(request)
            except AccessDenied as exc:
                return _sign_in(request) if not exc.known else error_page(403, str(exc))
            except NotFound:
                return error_page(404, "There is no such run: it never was, it has been deleted, or it is not yours.")
            except K2ThinkError as exc:
                status, _, headers = answer_of(exc)
                if status >= 500 and status != 503:
                    log.error("page_failed", code=exc.code, reason=str(exc))
                return error_page(status, str(exc), headers)
            except RequestValidationError as exc:
                names = sorted({str(error["loc"][-1])[:64] for error in exc.errors()})
                return error_page(400, f"The address holds something that does not fit: {', '.join(names)}.")
            except HTTPException as exc:
                return error_page(exc.status_code, str(exc.detail), dict(exc.headers or {}))
            except Exception as exc:
                log.error("page_broke", path=request.url.path, error=type(exc).__name__, exc_info=exc)
                return error_page(500, "Something broke inside the gateway; its log has the details.")

        return handler


def error_page(status: int, message: str, headers: dict[str, Any] | None = None) -> Response:
    """Return a failure as a page: what happened, why, what to do."""
    title = _TITLES.get(status, "That went wrong")
    return page("error.html", {"status": status, "title": title, "message": message}, status=status, headers=headers)


def _sign_in(request: Request) -> Response:
    wanted = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    if "hx-request" in request.headers:
        # A part of a page was asked for: the whole of it must go.
        return Response(status_code=401, headers={**SECURITY_HEADERS, "HX-Redirect": "/ui/login"})
    return RedirectResponse(f"/ui/login?next={quote(wanted, safe='')}", 303, SECURITY_HEADERS)
