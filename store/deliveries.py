"""Webhooks to send: asked for with the job or batch they will tell of, claimed once that has ended, sent or given up."""

from dataclasses import dataclass
from typing import Literal

from sqlalchemy import Connection, and_, bindparam, case, or_, select, text, update

from ..schemas.errors import ConfigurationError
from ..schemas.ids import uuid7
from ..schemas.settings import Settings
from .door_tables import OPEN_BATCH_SQL, OPEN_DELIVERY_SQL, batches, deliveries
from .rows import insert_or_ignore, storable
from .tables import UNFINISHED_SQL, jobs
from .tenants import Tenant, load_tenant

__all__ = [
    "Claimed",
    "Subject",
    "Target",
    "add_delivery",
    "any_due",
    "check_webhook_settings",
    "claim_due",
    "mark_delivered",
    "mark_failed",
    "notify_when_done",
    "webhook_target",
]

Subject = Literal["job", "batch"]
"""What a notice tells of."""
ERROR_CHARS_MAX = 300


@dataclass(frozen=True, slots=True)
class Target:
    """Where notices go."""

    url: str
    """http or https."""
    secret: str
    """whsec_… that signs them."""

    def __repr__(self) -> str:
        """Without the secret, and without what may be secret in the URL."""
        return "Target(…)"


@dataclass(frozen=True, slots=True)
class Claimed:
    """A notice to send now; nobody else sends it before the lease is over."""

    id: str
    """The webhook's id, the same in every try."""
    tenant: str
    subject: Subject
    subject_id: str
    attempt: int
    """Number of this try, from 1; what is noted about an older one is refused."""
    status: str | None
    """Final JobStatus or BatchStatus; None = the subject was deleted."""
    door: str | None
    """The job's DoorNote as JSON; None = it has none, or the subject is a batch."""
    ended_at: float | None
    """When the subject ended, Unix time in seconds; None = it was deleted."""


_ADD = insert_or_ignore(deliveries, "subject", "subject_id")
_JOINED = deliveries.outerjoin(
    jobs, and_(deliveries.c.subject == "job", jobs.c.id == deliveries.c.subject_id)
).outerjoin(batches, and_(deliveries.c.subject == "batch", batches.c.id == deliveries.c.subject_id))
_OPEN = text("deliveries.delivered_at IS NULL AND deliveries.given_up_at IS NULL")
_ENDED = and_(
    or_(jobs.c.id.is_(None), text(f"NOT (jobs.{UNFINISHED_SQL})")),
    or_(batches.c.id.is_(None), text(f"NOT (batches.{OPEN_BATCH_SQL})")),
)
"""The subject has ended, or is gone."""
_DUE = (
    select(
        deliveries.c.id,
        deliveries.c.tenant,
        deliveries.c.subject,
        deliveries.c.subject_id,
        deliveries.c.attempts,
        case((deliveries.c.subject == "job", jobs.c.status), else_=batches.c.status).label("status"),
        jobs.c.door,
        jobs.c.finished_at,
        batches.c.completed_at,
        batches.c.failed_at,
        batches.c.expired_at,
        batches.c.cancelled_at,
    )
    .select_from(_JOINED)
    .where(_OPEN, deliveries.c.due_at <= bindparam("now"), _ENDED)
    .order_by(deliveries.c.due_at)
    .limit(bindparam("limit"))
)
_CLAIMABLE = _DUE.with_for_update(of=deliveries, skip_locked=True)
_LEASE = (
    update(deliveries)
    .where(deliveries.c.id == bindparam("b_id"), deliveries.c.attempts == bindparam("b_attempts"))
    .values(attempts=deliveries.c.attempts + 1, due_at=bindparam("until"))
)
_OF_TRY = (
    deliveries.c.id == bindparam("b_id"),
    deliveries.c.attempts == bindparam("b_attempt"),
    text(OPEN_DELIVERY_SQL),
)
_DELIVERED = update(deliveries).where(*_OF_TRY).values(delivered_at=bindparam("now"), last_error=None)
_AGAIN = update(deliveries).where(*_OF_TRY).values(due_at=bindparam("due"), last_error=bindparam("error"))
_GIVEN_UP = update(deliveries).where(*_OF_TRY).values(given_up_at=bindparam("now"), last_error=bindparam("error"))


def webhook_target(settings: Settings, tenant: Tenant) -> Target | None:
    """Return where the tenant's notices go: its own target, else the settings'; None = nowhere."""
    if tenant.webhook_url is not None and tenant.webhook_secret is not None:
        return Target(tenant.webhook_url, tenant.webhook_secret)
    url, secret = settings.gateway.webhook_url, settings.gateway.webhook_secret
    return None if url is None or secret is None else Target(url, secret.get_secret_value())


def check_webhook_settings(settings: Settings) -> None:
    """Raise ConfigurationError for a target whose notices could not be signed: nothing would ever be sent there."""
    if settings.gateway.webhook_url is not None and settings.gateway.webhook_secret is None:
        raise ConfigurationError(
            "K2THINK_GATEWAY__WEBHOOK_URL needs K2THINK_GATEWAY__WEBHOOK_SECRET, which signs what is sent there: "
            "`echo whsec_$(openssl rand -base64 32)` makes one"
        )


def notify_when_done(
    conn: Connection, settings: Settings, *, tenant: str, subject: Subject, subject_id: str, now: float
) -> None:
    """Ask for a notice where the tenant has a target; to be called in the transaction that accepts the subject."""
    if webhook_target(settings, load_tenant(conn, tenant)) is not None:
        add_delivery(conn, tenant=tenant, subject=subject, subject_id=subject_id, now=now)


def add_delivery(conn: Connection, *, tenant: str, subject: Subject, subject_id: str, now: float) -> None:
    """Ask for a notice about the subject; does nothing when there is one already."""
    row = {
        "id": f"evt_{uuid7(now_s=now).replace('-', '')}",
        "tenant": tenant,
        "subject": subject,
        "subject_id": subject_id,
        "created_at": now,
        "due_at": now,
        "attempts": 0,
        "delivered_at": None,
        "given_up_at": None,
        "last_error": None,
    }
    conn.execute(_ADD, row)


def any_due(conn: Connection, *, now: float) -> bool:
    """Whether `claim_due` would find something; reads only."""
    return conn.execute(_DUE, {"now": now, "limit": 1}).first() is not None


def claim_due(conn: Connection, *, now: float, lease_s: float, limit: int) -> list[Claimed]:
    """Claim notices whose subject has ended and whose time has come; each counts as tried from here on."""
    claimed: list[Claimed] = []
    for row in conn.execute(_CLAIMABLE, {"now": now, "limit": limit}).all():
        taken = conn.execute(_LEASE, {"b_id": row.id, "b_attempts": row.attempts, "until": now + lease_s})
        if not taken.rowcount:
            continue
        batch_times = (row.completed_at, row.failed_at, row.expired_at, row.cancelled_at)
        ended_at = row.finished_at or next((at for at in batch_times if at is not None), None)
        claimed.append(
            Claimed(
                id=row.id,
                tenant=row.tenant,
                subject=row.subject,
                subject_id=row.subject_id,
                attempt=row.attempts + 1,
                status=row.status,
                door=row.door,
                ended_at=ended_at,
            )
        )
    return claimed


def mark_delivered(conn: Connection, claim: Claimed, *, now: float) -> None:
    """Note that the target took the notice."""
    conn.execute(_DELIVERED, {"b_id": claim.id, "b_attempt": claim.attempt, "now": now})


def mark_failed(conn: Connection, claim: Claimed, *, error: str, now: float, due_at: float | None) -> None:
    """Note that a try failed: the next one is at `due_at` (Unix time in seconds); None = it is given up."""
    values = {"b_id": claim.id, "b_attempt": claim.attempt, "error": storable(error)[:ERROR_CHARS_MAX]}
    if due_at is None:
        conn.execute(_GIVEN_UP, values | {"now": now})
    else:
        conn.execute(_AGAIN, values | {"due": due_at})
