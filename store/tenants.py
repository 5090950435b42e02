"""Tenants: what each may use, where its notices go, and how much it uses just now."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from sqlalchemy import Connection, Row, bindparam, func, select, text, union, update

from ..schemas.errors import LimitReached
from .door_tables import files, keys, tenants
from .rows import insert_or_ignore
from .tables import UNFINISHED_SQL, jobs

__all__ = [
    "DEFAULT_TENANT",
    "TENANT_PATTERN",
    "Tenant",
    "is_known",
    "jobs_in_flight",
    "list_tenants",
    "load_tenant",
    "require_job_room",
    "save_tenant",
    "stored_bytes",
    "tokens_since",
]

DEFAULT_TENANT = "default"
"""Owner of what comes in where no keys are needed."""
JOBS_FULL_RETRY_S = 5.0
"""What a caller is told to wait whose tenant has as many unfinished jobs as it may."""
TENANT_PATTERN = r"[a-z0-9][a-z0-9._-]{0,62}"
"""What a tenant may be called."""


@dataclass(frozen=True, slots=True)
class Tenant:
    """Limits and webhook target of one tenant; without a row of its own a tenant has none of these."""

    tenant: str
    """Name."""
    created_at: float | None = None
    """When its row was made, Unix time in seconds; None = it has none."""
    requests_per_minute: int | None = None
    """Requests that create something, per minute; None = no limit."""
    jobs_in_flight: int | None = None
    """Unfinished jobs at once; None = no limit."""
    tokens_per_day: int | None = None
    """Tokens of the jobs that finished in a UTC day; None = no limit."""
    stored_bytes: int | None = None
    """Bytes of all files together; None = no limit."""
    webhook_url: str | None = None
    """Where its notices go; None = to the settings' own target, if there is one."""
    webhook_secret: str | None = field(default=None, repr=False)
    """whsec_… that signs the notices; set with the URL and with nothing else."""


CHANGEABLE = (
    "requests_per_minute",
    "jobs_in_flight",
    "tokens_per_day",
    "stored_bytes",
    "webhook_url",
    "webhook_secret",
)
"""Columns that `save_tenant` changes."""

_BY_NAME = select(tenants).where(tenants.c.tenant == bindparam("tenant"))
_NAMES = union(select(tenants.c.tenant), select(keys.c.tenant)).order_by("tenant")
_ADD = insert_or_ignore(tenants, "tenant")
_IN_FLIGHT = select(func.count()).select_from(jobs).where(text(UNFINISHED_SQL), jobs.c.tenant == bindparam("tenant"))
_JOBS_LIMIT = (
    select(tenants.c.jobs_in_flight)
    .where(tenants.c.tenant == bindparam("tenant"), tenants.c.jobs_in_flight.is_not(None))
    .with_for_update()
)
_TOKENS = select(func.coalesce(func.sum(jobs.c.tokens), 0)).where(
    jobs.c.tenant == bindparam("tenant"), jobs.c.finished_at >= bindparam("since")
)
_STORED = select(func.coalesce(func.sum(files.c.bytes), 0)).where(files.c.tenant == bindparam("tenant"))


def load_tenant(conn: Connection, tenant: str) -> Tenant:
    """Return what is set for the tenant; a name without a row has no limits and no target of its own."""
    row = conn.execute(_BY_NAME, {"tenant": tenant}).first()
    return Tenant(tenant) if row is None else _tenant(row)


def list_tenants(conn: Connection) -> list[Tenant]:
    """Return the tenants that have a row or a key, by name."""
    rows = {row.tenant: _tenant(row) for row in conn.execute(select(tenants))}
    names = [cast(str, row.tenant) for row in conn.execute(_NAMES)]
    return [rows.get(name) or Tenant(name) for name in names]


def save_tenant(conn: Connection, tenant: str, changes: Mapping[str, Any], *, now: float) -> Tenant:
    """Set what `changes` names (of CHANGEABLE; None takes a limit away), leave the rest; return the whole."""
    unknown = set(changes) - set(CHANGEABLE)
    if unknown:
        raise ValueError(f"a tenant has no {', '.join(sorted(unknown))}")
    row: dict[str, Any] = dict.fromkeys(tenants.columns.keys())
    conn.execute(_ADD, row | {"tenant": tenant, "created_at": now})
    if changes:
        conn.execute(update(tenants).where(tenants.c.tenant == tenant).values(**changes))
    return load_tenant(conn, tenant)


def is_known(conn: Connection, tenant: str) -> bool:
    """Whether the tenant has a job, a key or limits of its own."""
    places = (tenants, keys, jobs)
    return any(conn.execute(select(1).where(table.c.tenant == tenant).limit(1)).first() for table in places)


def jobs_in_flight(conn: Connection, tenant: str) -> int:
    """Return how many jobs of the tenant have not ended."""
    return int(conn.execute(_IN_FLIGHT, {"tenant": tenant}).scalar_one())


def require_job_room(conn: Connection, tenant: str) -> None:
    """Raise LimitReached when the tenant has as many unfinished jobs as it may, in the transaction that adds one.

    The tenant's row stays locked where it has that limit: of two transactions that would use the last room, one waits.
    """
    limit = conn.execute(_JOBS_LIMIT, {"tenant": tenant}).scalar_one_or_none()
    if limit is not None and jobs_in_flight(conn, tenant) >= limit:
        raise LimitReached(
            f"this tenant may have {limit} unfinished jobs, and has them: wait for one to end, or cancel one "
            "(`k2think tenants set --jobs-in-flight` sets the limit)",
            retry_after_s=JOBS_FULL_RETRY_S,
        )


def tokens_since(conn: Connection, tenant: str, since: float) -> int:
    """Return the tokens of the tenant's jobs that ended at `since` (Unix time in seconds) or later."""
    return int(conn.execute(_TOKENS, {"tenant": tenant, "since": since}).scalar_one())


def stored_bytes(conn: Connection, tenant: str) -> int:
    """Return the bytes of the tenant's files."""
    return int(conn.execute(_STORED, {"tenant": tenant}).scalar_one())


def _tenant(row: Row[Any]) -> Tenant:
    return Tenant(**{name: getattr(row, name) for name in ("tenant", "created_at", *CHANGEABLE)})
