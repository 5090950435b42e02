"""What an API key looks like: k2_<public part>_<secret>, 256 random bits.

    key ──SHA-256──► session: what a browser keeps, opens the trace page only ──SHA-256──► digest: what the database keeps

Neither arrow can be gone back: a cookie is no key, and what lies in the database is neither.
"""

import base64
import hashlib
import hmac
import os
import re
from dataclasses import dataclass

ID_CHARS = 10
SECRET_BYTES = 32
KEY_CHARS_MAX = 100
"""Longer texts are not looked at."""
_KEY = re.compile(r"k2_([a-z2-7]{10})_[a-z2-7]{52}")


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key that was just made: the one moment at which it can be shown."""

    id: str
    """Public part, by which it is listed and revoked."""
    text: str
    """The whole key."""
    digest: str
    """What is kept of it."""

    def __repr__(self) -> str:
        """Without the key."""
        return f"NewKey({self.id!r})"


def new_key() -> NewKey:
    """Make a key. A plain hash is enough for it: nobody can guess 256 random bits."""
    key_id = _base32(os.urandom(8))[:ID_CHARS]
    text = f"k2_{key_id}_{_base32(os.urandom(SECRET_BYTES))}"
    return NewKey(key_id, text, digest_of(text))


def session_of(text: str) -> str:
    """Return what a signed-in browser keeps in place of the key, hex."""
    return hashlib.sha256(text.encode()).hexdigest()


def digest_of(text: str) -> str:
    """Return what the database keeps of a key, hex."""
    return _digest_of_session(session_of(text))


def id_of(text: str) -> str | None:
    """Return the public part of what looks like a key; None = it does not."""
    found = _KEY.fullmatch(text) if len(text) <= KEY_CHARS_MAX else None
    return found[1] if found else None


def matches(text: str, digest: str) -> bool:
    """Whether the key is the one with this digest, in a time that tells nothing of how much of it is right."""
    return hmac.compare_digest(digest_of(text), digest)


def session_matches(session: str, digest: str) -> bool:
    """Whether the session was made from the key with this digest; as `matches`."""
    return hmac.compare_digest(_digest_of_session(session), digest)


def _digest_of_session(session: str) -> str:
    return hashlib.sha256(session.encode("utf-8", "replace")).hexdigest()


def _base32(raw: bytes) -> str:
    return base64.b32encode(raw).decode().rstrip("=").lower()
