"""Keys and tenants as the database has them, remembered for a moment: most requests ask it nothing.

What one process remembers, another may have read earlier or later. That costs at most REMEMBERED_S of staleness.
"""

import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from ..store.database import Database
from ..store.keys import Key, any_key, find_key
from ..store.tenants import Tenant, load_tenant, tokens_since

REMEMBERED_S = 3.0
"""`k2think keys` and `k2think tenants` promise that every gateway notices within five seconds."""
REMEMBERED_MAX = 10_000
"""Names at most: whoever tries made-up keys fills no memory."""
DAY_S = 86_400
T = TypeVar("T")


class _Recent(Generic[T]):
    """Values by name, each read again once it is older than REMEMBERED_S."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[float, T]] = {}

    async def get(self, name: str, read: Callable[[], Awaitable[T]]) -> T:
        now = time.monotonic()
        known = self._found.get(name)
        if known is not None and now < known[0]:
            return known[1]
        value = await read()
        if len(self._found) >= REMEMBERED_MAX:
            self._found.clear()
        # From before it was read: what changed meanwhile may not be in it.
        self._found[name] = (now + REMEMBERED_S, value)
        return value


class Directory:
    """The keys and tenants of one database, for one process. Raises StoreUnavailable where it must ask and cannot."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._keys: _Recent[Key | None] = _Recent()
        self._keys_made: _Recent[bool] = _Recent()
        self._tenants: _Recent[Tenant] = _Recent()
        self._tokens: _Recent[int] = _Recent()

    async def key(self, key_id: str) -> Key | None:
        """Return the key with this public part, valid or not; None = there is none."""
        return await self._keys.get(
            key_id, lambda: self._database.read(lambda connection: find_key(connection, key_id))
        )

    async def keys_made(self) -> bool:
        """Whether an API key was ever made; revoked and expired ones count."""
        return await self._keys_made.get("", lambda: self._database.read(any_key))

    async def tenant(self, name: str) -> Tenant:
        """Return the tenant's limits and webhook target."""
        return await self._tenants.get(
            name, lambda: self._database.read(lambda connection: load_tenant(connection, name))
        )

    async def tokens_today(self, name: str, *, now: float) -> int:
        """Return the tokens of the tenant's jobs that ended in the UTC day of `now` (Unix time in seconds)."""
        day = now - now % DAY_S
        return await self._tokens.get(
            f"{name} {day}",
            lambda: self._database.read(lambda connection: tokens_since(connection, name, day)),
        )
