"""Who is calling, and whether they may: API keys, the trace page's cookie, and the keyless gateway on loopback.

A gateway on a loopback address asks for no key until the first API key is made on its database. Until then it must keep
out the web pages that its user's browser has open: they may send requests to this machine, too.
"""

from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Depends, Request
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from ..schemas.doors import KeyScope
from ..schemas.errors import AccessDenied, K2ThinkError
from ..store.keys import Key
from ..store.tenants import DEFAULT_TENANT
from .address import is_loopback
from .errors import answer_of
from .keys import id_of, matches, session_matches
from .limits import count_request
from .services import Services, services_of

SESSION_COOKIE = "k2think_session"
PAGES = "/ui"
"""Where the cookie is good; everything else wants the key."""
API = "/v1"
"""Where nothing is read of a request before its key was looked at."""
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_CALLER = "k2think.caller"
_NO_KEY = "send an API key as `Authorization: Bearer k2_…`: `k2think keys create` makes one"


@dataclass(frozen=True, slots=True)
class Caller:
    """The owner of whatever the request touches."""

    tenant: str
    """Every query is filtered by it."""
    key_id: str | None
    """The key that was shown; None = none is needed here."""
    scope: KeyScope = KeyScope.api
    """What the key opens."""


async def find_caller(connection: HTTPConnection, services: Services) -> Caller:
    """Return who sent the request, whatever they may do. Raises AccessDenied, StoreUnavailable."""
    host = services.settings.gateway.host
    if is_loopback(host) and not await services.directory.keys_made():
        _refuse_other_sites(connection, host)
        return Caller(DEFAULT_TENANT, None)
    scheme, _, text = connection.headers.get("authorization", "").partition(" ")
    if text:
        key = await valid_key(services, text.strip()) if scheme.lower() == "bearer" else None
        if key is None:
            raise AccessDenied("the API key is wrong, has expired or was revoked")
    else:
        path = connection.url.path
        on_pages = path == PAGES or path.startswith(PAGES + "/")
        key = await _signed_in(services, connection) if on_pages else None
        if key is None:
            raise AccessDenied(_NO_KEY)
    return Caller(key.tenant, key.id, key.scope)


def caller_of(scope: Scope) -> Caller | None:
    """Return who was found to have sent the request; None = nobody has looked yet, or needs to."""
    return scope.get(_CALLER)


async def valid_key(services: Services, text: str) -> Key | None:
    """Return the key that this is the text of; None = it is none, or opens nothing any more."""
    key_id = id_of(text)
    key = None if key_id is None else await services.directory.key(key_id)
    return key if key is not None and matches(text, key.digest) and _valid(services, key) else None


async def identify(request: Request, services: Annotated[Services, Depends(services_of)]) -> Caller:
    """Return the caller (a FastAPI dependency). Raises AccessDenied."""
    caller = request.scope[_CALLER] = caller_of(request.scope) or await find_caller(request, services)
    if caller.scope is not KeyScope.api:
        raise AccessDenied(f"a key with the scope {caller.scope.value} opens /{caller.scope.value} only", known=True)
    return caller


async def identify_monitor(request: Request, services: Annotated[Services, Depends(services_of)]) -> Caller:
    """As `identify`, for what tells of all tenants: it wants a key of scope metrics. Raises AccessDenied."""
    caller = await find_caller(request, services)
    if caller.key_id is not None and caller.scope is not KeyScope.metrics:
        raise AccessDenied(
            "this tells of all tenants, and the key is one tenant's: `k2think keys create --scope metrics` makes one",
            known=True,
        )
    return caller


async def identify_creator(
    caller: Annotated[Caller, Depends(identify)], services: Annotated[Services, Depends(services_of)]
) -> Caller:
    """As `identify`, for requests that create something: they count against the tenant's limits. Raises LimitReached."""
    tenant = await services.directory.tenant(caller.tenant)
    await count_request(services, tenant, now=services.database.now())
    return caller


AnyCaller = Annotated[Caller, Depends(identify)]
"""Parameter type of endpoints that look or change."""
Creator = Annotated[Caller, Depends(identify_creator)]
"""Parameter type of endpoints that create something."""
Monitor = Annotated[Caller, Depends(identify_monitor)]
"""Parameter type of endpoints that tell of all tenants."""
TheServices = Annotated[Services, Depends(services_of)]
"""Parameter type of endpoints that need the services."""


class KeyFirst:
    """Middleware that looks at the key of whatever goes to /v1 before its body is read, unknown paths included."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Find the caller and note them for `identify`, or answer at once."""
        if scope["type"] == "http" and (scope["path"] == API or scope["path"].startswith(API + "/")):
            try:
                scope[_CALLER] = await find_caller(HTTPConnection(scope), scope["app"].state.services)
            except K2ThinkError as exc:
                status, body, headers = answer_of(exc)
                await JSONResponse(body, status, headers)(scope, receive, send)
                return
        await self._app(scope, receive, send)


def same_origin(connection: HTTPConnection) -> bool:
    """Whether the request was not sent by the page of another site. Other programs than browsers name no origin."""
    origin = connection.headers.get("origin")
    if connection.scope["method"] in _SAFE_METHODS or origin is None:
        return True
    try:
        return urlsplit(origin).netloc.lower() == connection.headers.get("host", "").lower() != ""
    except ValueError:
        return False


def _refuse_other_sites(connection: HTTPConnection, host: str) -> None:
    """Without a key, only who is on this machine may ask: no page of another site, under whatever name it got here."""
    asked = _name_of(connection.headers.get("host", ""))
    if not is_loopback(asked) and asked != host.lower():
        raise AccessDenied(
            f"this gateway is {host}, and was asked for by another name: call it by that one, "
            "or make an API key (`k2think keys create`), which opens it under any name",
            known=True,
        )
    if not same_origin(connection):
        raise AccessDenied(
            "without an API key no web page but the gateway's own may send requests: `k2think keys create` makes one",
            known=True,
        )


def _name_of(host: str) -> str:
    """The name in a Host header, without port and brackets; empty for what is none."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


async def _signed_in(services: Services, connection: HTTPConnection) -> Key | None:
    key_id, _, session = _cookie(connection).partition(".")
    key = await services.directory.key(key_id) if key_id and session else None
    return key if key is not None and session_matches(session, key.digest) and _valid(services, key) else None


def _valid(services: Services, key: Key) -> bool:
    return key.valid(services.database.now())


def _cookie(connection: HTTPConnection) -> str:
    try:
        found = SimpleCookie(connection.headers.get("cookie", "")).get(SESSION_COOKIE)
    except CookieError:
        return ""
    return "" if found is None else found.value
