"""API keys: made, found by their public part, listed, revoked. Only digests are kept."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, bindparam, delete, insert, select, update

from ..schemas.doors import KeyScope
from ..schemas.errors import NotFound
from .door_tables import keys
from .rows import storable

__all__ = ["Key", "add_key", "any_key", "any_valid_key", "find_key", "forget_key", "list_keys", "revoke_key"]


@dataclass(frozen=True, slots=True)
class Key:
    """One API key, without the key itself."""

    id: str
    """Public part, by which it is listed and revoked."""
    tenant: str
    """Whose key it is."""
    name: str
    """What its owner calls it; may be empty."""
    scope: KeyScope
    """What it opens."""
    digest: str
    """What is kept of the key: two rounds of SHA-256, hex."""
    created_at: float
    """Unix time in seconds."""
    expires_at: float | None
    """From when on it opens nothing, Unix time in seconds; None = never."""
    revoked_at: float | None = None
    """When it was revoked, Unix time in seconds; None = it was not."""

    def valid(self, now: float) -> bool:
        """Whether it opens anything at this time."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)

    def state(self, now: float) -> str:
        """Return `valid`, `expired` or `revoked`."""
        if self.revoked_at is not None:
            return "revoked"
        return "valid" if self.valid(now) else "expired"


_BY_ID = select(keys).where(keys.c.id == bindparam("id"))
_ALL = select(keys).order_by(keys.c.created_at, keys.c.id)
_REVOKE = (
    update(keys).where(keys.c.id == bindparam("b_id"), keys.c.revoked_at.is_(None)).values(revoked_at=bindparam("now"))
)
_VALID = (
    select(1)
    .select_from(keys)
    .where(
        keys.c.scope == bindparam("scope"),
        keys.c.revoked_at.is_(None),
        keys.c.expires_at.is_(None) | (keys.c.expires_at > bindparam("now")),
    )
    .limit(1)
)


_ANY = select(1).select_from(keys).where(keys.c.scope == bindparam("scope")).limit(1)


def add_key(conn: Connection, key: Key) -> None:
    """Keep a new key."""
    conn.execute(
        insert(keys),
        {
            "id": key.id,
            "tenant": key.tenant,
            "name": storable(key.name),
            "scope": str(key.scope),
            "digest": key.digest,
            "created_at": key.created_at,
            "expires_at": key.expires_at,
            "revoked_at": key.revoked_at,
        },
    )


def find_key(conn: Connection, key_id: str) -> Key | None:
    """Return the key with this public part, valid or not; None = there is none."""
    row = conn.execute(_BY_ID, {"id": key_id}).first()
    return None if row is None else _key(row)


def list_keys(conn: Connection, *, tenant: str | None = None) -> list[Key]:
    """Return all keys, oldest first, of one tenant or (None) of all."""
    query = _ALL if tenant is None else _ALL.where(keys.c.tenant == tenant)
    return [_key(row) for row in conn.execute(query)]


def revoke_key(conn: Connection, key_id: str, *, now: float) -> bool:
    """Make the key open nothing from now on. False when it was revoked already; raises NotFound."""
    if conn.execute(_REVOKE, {"b_id": key_id, "now": now}).rowcount:
        return True
    if find_key(conn, key_id) is None:
        raise NotFound(f"no key {key_id!r}: `k2think keys list` shows those that exist")
    return False


def forget_key(conn: Connection, key_id: str) -> None:
    """Remove a key that nobody was given, as if it had never been made: a revoked one would still close the doors."""
    conn.execute(delete(keys).where(keys.c.id == key_id))


def any_key(conn: Connection, *, scope: KeyScope = KeyScope.api) -> bool:
    """Whether a key of that scope was ever made: those that are revoked or expired count."""
    return conn.execute(_ANY, {"scope": str(scope)}).first() is not None


def any_valid_key(conn: Connection, *, now: float, scope: KeyScope = KeyScope.api) -> bool:
    """Whether a key of that scope exists that is neither revoked nor expired."""
    return conn.execute(_VALID, {"scope": str(scope), "now": now}).first() is not None


def _key(row: Row[Any]) -> Key:
    return Key(
        id=row.id,
        tenant=row.tenant,
        name=row.name,
        scope=KeyScope(row.scope),
        digest=row.digest,
        created_at=row.created_at,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
    )
