"""Signing in to the trace page with an API key, and out again. The browser keeps a session made from it, never the key."""

from typing import Annotated
from urllib.parse import urlsplit

from fastapi import APIRouter, Form, Query, Request
from fastapi.responses import RedirectResponse, Response

from ...schemas.doors import KeyScope
from ...schemas.errors import AccessDenied
from ..access import PAGES, SESSION_COOKIE, TheServices, find_caller, is_loopback, same_origin, valid_key
from ..keys import KEY_CHARS_MAX, session_of
from ..services import Services
from .rendering import SECURITY_HEADERS, page
from .routing import PageRoute

SIGNED_IN_S = 12 * 3_600
"""Seconds after which a browser forgets the session. Revoking the key ends it at once."""
NEXT_CHARS_MAX = 2_000

router = APIRouter(prefix="/ui", route_class=PageRoute, include_in_schema=False)


@router.get("/login")
async def ask(
    request: Request, services: TheServices, next: Annotated[str, Query(max_length=NEXT_CHARS_MAX)] = PAGES
) -> Response:
    """The form."""
    if await _keyless(request, services):
        return _to(_inside(next))
    return page("login.html", {"next": _inside(next), "message": None})


@router.post("/login")
async def sign_in(
    request: Request,
    services: TheServices,
    key: Annotated[str, Form(max_length=1_000)] = "",
    next: Annotated[str, Form(max_length=NEXT_CHARS_MAX)] = PAGES,
) -> Response:
    """Look at the key; on with where the browser wanted to go."""
    _refuse_forged(request)
    if await _keyless(request, services):
        return _to(_inside(next))
    text = key.strip()
    found = await valid_key(services, text) if len(text) <= KEY_CHARS_MAX else None
    if found is None or found.scope is not KeyScope.api:
        message = (
            "That key is wrong, has expired or was revoked."
            if found is None
            else "That key opens /metrics only: the trace page wants an API key."
        )
        return page("login.html", {"next": _inside(next), "message": message}, status=401)
    answer = _to(_inside(next))
    answer.set_cookie(
        SESSION_COOKIE,
        f"{found.id}.{session_of(text)}",
        max_age=SIGNED_IN_S,
        path=PAGES,
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="strict",
    )
    return answer


@router.post("/logout")
async def sign_out(request: Request) -> Response:
    """Make the browser forget the session."""
    _refuse_forged(request)
    answer = _to(f"{PAGES}/login")
    answer.delete_cookie(
        SESSION_COOKIE, path=PAGES, secure=request.url.scheme == "https", httponly=True, samesite="strict"
    )
    return answer


def _refuse_forged(request: Request) -> None:
    if not same_origin(request):
        raise AccessDenied("this was sent by the page of another site", known=True)


async def _keyless(request: Request, services: Services) -> bool:
    """Whether no key is needed here. Raises AccessDenied for another site's page."""
    if not is_loopback(services.settings.gateway.host) or await services.directory.keys_made():
        return False
    await find_caller(request, services)
    return True


def _inside(place: str) -> str:
    """Where to go after signing in: nowhere but below /ui, whatever the address said."""
    try:
        parts = urlsplit(place)
    except ValueError:
        return PAGES
    path = parts.path
    plain = place.isascii() and place.isprintable() and "\\" not in place and "//" not in path and " " not in place
    below = path == PAGES or path.startswith(f"{PAGES}/")
    on = below and plain and not parts.scheme and not parts.netloc and not path.startswith((f"{PAGES}/log",))
    return place if on else PAGES


def _to(place: str) -> RedirectResponse:
    return RedirectResponse(place, 303, {**SECURITY_HEADERS, "Cache-Control": "no-store"})
