"""Calls as httpx's requests."""

import contextlib
from collections.abc import Generator
from typing import Any

import httpx

from .exchange import CONNECT_TIMEOUT_S, IDLE_CONNECTIONS_MAX, KEEPALIVE_EXPIRY_S, Exchange
from .flow import Call

_LOOPBACK = ("all://127.0.0.1", "all://localhost", "all://[::1]")


def options(exchange: Exchange) -> dict[str, Any]:
    """Return how an httpx client of our own is made."""
    return {
        "timeout": httpx.Timeout(exchange.timeout_s, connect=CONNECT_TIMEOUT_S),
        # Every one who waits holds a connection: their number is the caller's business.
        "limits": httpx.Limits(
            max_connections=None,
            max_keepalive_connections=IDLE_CONNECTIONS_MAX,
            keepalive_expiry=KEEPALIVE_EXPIRY_S,
        ),
        # A proxy of the environment leads to other machines, never to this one.
        "mounts": dict.fromkeys(_LOOPBACK),
    }


@contextlib.contextmanager
def request_of(http: httpx.Client | httpx.AsyncClient, exchange: Exchange, call: Call) -> Generator[httpx.Request]:
    """Make the request; a file that is sent stays open inside the `with` block. Raises OSError when it cannot be read."""
    with contextlib.ExitStack() as files:
        body: dict[str, Any] = {}
        if call.upload is not None:
            content = files.enter_context(call.upload.open())
            body = {"data": call.upload.fields, "files": {"file": (call.upload.filename, content)}}
        elif call.json is not None:
            body = {"json": call.json}
        silence_s = call.read_timeout_s or exchange.timeout_s
        yield http.build_request(
            call.method,
            exchange.base_url + call.path,
            params=dict(call.params) or None,
            headers={**exchange.headers, **call.headers},
            timeout=httpx.Timeout(exchange.timeout_s, connect=CONNECT_TIMEOUT_S, read=silence_s),
            **body,
        )
