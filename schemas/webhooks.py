"""Webhooks on the wire: the target's URL and secret, and the signature (https://www.standardwebhooks.com, as OpenAI's)."""

import base64
import binascii
import hashlib
import hmac
import os
from typing import Literal
from urllib.parse import urlsplit

from .base import Frozen

SECRET_PREFIX = "whsec_"  # noqa: S105
SECRET_BYTES = 32
SECRET_BYTES_MIN = 16
URL_CHARS_MAX = 2_000


def check_webhook_url(url: str) -> str:
    """Return the URL; raise ValueError, without repeating it, for one that nothing can be posted to."""
    try:
        parts = urlsplit(url)
        host, _port = parts.hostname, parts.port
    except ValueError:
        host, parts = None, urlsplit("")
    printable = url.isascii() and url.isprintable() and " " not in url
    if not host or parts.scheme not in ("http", "https") or not printable or len(url) > URL_CHARS_MAX:
        raise ValueError("a webhook's URL must be http://… or https://… with a host")
    if parts.fragment:
        raise ValueError("a webhook's URL has no fragment (#…): it would never be sent")
    return url


def new_secret() -> str:
    """Return a fresh signing secret, whsec_ and base64."""
    return SECRET_PREFIX + base64.b64encode(os.urandom(SECRET_BYTES)).decode()


def secret_bytes(secret: str) -> bytes:
    """Return what signs; raise ValueError, without repeating it, for a text that is no secret."""
    try:
        if not secret.startswith(SECRET_PREFIX):
            raise ValueError
        raw = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
        if len(raw) < SECRET_BYTES_MIN:
            raise ValueError
    except (ValueError, binascii.Error):
        raw = b""
    # Outside the handler, so that no traceback carries the text.
    if not raw:
        raise ValueError(
            f"a webhook's secret is {SECRET_PREFIX} and at least {SECRET_BYTES_MIN} random bytes as base64: "
            f"`echo {SECRET_PREFIX}$(openssl rand -base64 {SECRET_BYTES})` makes one"
        )
    return raw


def signature(secret: str, *, webhook_id: str, timestamp: int, body: bytes) -> str:
    """Return the header webhook-signature; `timestamp` is a Unix time in seconds. Raises ValueError for a bad secret."""
    signed = f"{webhook_id}.{timestamp}.".encode() + body
    digest = hmac.new(secret_bytes(secret), signed, hashlib.sha256).digest()
    return "v1," + base64.b64encode(digest).decode()


class EventSubject(Frozen):
    """What an event tells of."""

    id: str
    """Id of the batch, the response or the job, by which it is looked at."""


class WebhookEvent(Frozen):
    """The body of a webhook. It says that something has ended, and not how: who wants to know asks, with a key."""

    id: str
    """The same in every try: who has seen it may leave it aside."""
    object: Literal["event"] = "event"
    """Kind of the object."""
    type: str
    """`batch.` or `response.` and OpenAI's word for how it ended; for jobs `job.` and the status."""
    created_at: int
    """Unix time in seconds of the end."""
    data: EventSubject
    """What has ended."""
