"""Whether requests are worth sending here: database, Redis, schema, and a living process for each role that jobs need."""

import asyncio

import redis
from sqlalchemy import Connection

from ...schemas.errors import StoreError
from ...schemas.health import Health, HealthCheck
from ...store.migrate import SchemaState, schema_state
from ...store.workers import ROLES_NEEDED, living_roles
from ..services import Services
from .once import AskedOnce

TIMEOUT_S = 1.5
"""Seconds that each service gets to answer; both are asked at once."""
MAX_AGE_S = 0.5
_SCHEMA_WORDS = {
    SchemaState.current: "up to date",
    SchemaState.behind: "written by an older version: run `k2think db upgrade`",
    SchemaState.newer: "written by a newer version: install that one",
    SchemaState.empty: "has no tables yet: run `k2think db upgrade`",
}
_Found = tuple[SchemaState, dict[str, int]]
"""The schema's state, and how many processes serve each role."""


class Readiness:
    """The checks of one gateway; belongs to one event loop."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._store: AskedOnce[_Found] = AskedOnce(self._ask_store, max_age_s=MAX_AGE_S)
        self._redis: AskedOnce[None] = AskedOnce(self._ask_redis, max_age_s=MAX_AGE_S)

    async def look(self) -> Health:
        """Make all checks, in TIMEOUT_S each at most."""
        redis_check, (database, found) = await asyncio.gather(self._check_redis(), self._check_store())
        checks = [database, redis_check]
        if found is None:
            unknown = "not known while the database does not answer"
            checks += [HealthCheck(name=name, ok=False, detail=unknown) for name in ("schema", *ROLES_NEEDED)]
        else:
            state, living = found
            checks.append(HealthCheck(name="schema", ok=state is SchemaState.current, detail=_SCHEMA_WORDS[state]))
            checks += [_role_check(role, living.get(role, 0)) for role in ROLES_NEEDED]
        return Health(ready=all(check.ok for check in checks), checks=tuple(checks))

    async def _check_store(self) -> tuple[HealthCheck, _Found | None]:
        try:
            found = await self._store.get(timeout_s=TIMEOUT_S)
        except TimeoutError:
            return HealthCheck(name="database", ok=False, detail=_silent()), None
        except StoreError:
            return HealthCheck(name="database", ok=False, detail="cannot be reached"), None
        return HealthCheck(name="database", ok=True, detail="answers"), found

    async def _check_redis(self) -> HealthCheck:
        try:
            await self._redis.get(timeout_s=TIMEOUT_S)
        except (TimeoutError, redis.TimeoutError):
            return HealthCheck(name="redis", ok=False, detail=_silent())
        except (redis.RedisError, OSError):
            return HealthCheck(name="redis", ok=False, detail="cannot be reached")
        return HealthCheck(name="redis", ok=True, detail="answers")

    async def _ask_store(self) -> _Found:
        database = self._services.database

        def read(connection: Connection) -> _Found:
            # As with the leases: a process that has not been heard of for that long counts as dead.
            since = database.now() - self._services.settings.lease_s
            state = schema_state(connection)
            return state, living_roles(connection, since=since) if state is SchemaState.current else {}

        return await database.read(read)

    async def _ask_redis(self) -> None:
        await self._services.redis.ping()  # pyright: ignore[reportGeneralTypeIssues]


def _role_check(role: str, count: int) -> HealthCheck:
    return HealthCheck(name=role, ok=count > 0, detail=f"{count} alive" if count else "none alive")


def _silent() -> str:
    return f"no answer within {TIMEOUT_S:g} s"
