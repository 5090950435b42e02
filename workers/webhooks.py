"""Sends the webhooks of what has ended. Any number of processes may do it: each claims what it sends, under a lease.

At least once: a process that dies between the target's answer and its own note sends again, under the same webhook-id.
"""

import asyncio
import contextlib
import random
import time

import aiohttp
import structlog

from .. import __version__
from ..schemas.doors import Door, DoorNote
from ..schemas.errors import StoreError
from ..schemas.response_objects import ending_of, response_id
from ..schemas.settings import Settings
from ..schemas.webhooks import EventSubject, WebhookEvent, signature
from ..store.database import Database
from ..store.deliveries import (
    Claimed,
    Target,
    any_due,
    claim_due,
    mark_delivered,
    mark_failed,
    webhook_target,
)
from ..store.jobs import job_result
from ..store.tenants import load_tenant
from .counters import counters
from .outage import DATABASE, outage_of

POLL_S = 0.5
POLL_SHARE = 20
"""A look that takes long, because very many notices wait for their jobs, is taken less often: a twentieth of the time."""
SENDING_MAX = 64
"""Notices under way at once."""
TIMEOUT_S = 10.0
"""Seconds that a target has for its answer."""
LEASE_S = 30.0
"""Seconds after which somebody else may send a claimed notice."""
BACKOFF_FIRST_S = 2.0
BACKOFF_MAX_S = 3_600.0
JITTER = 0.2
GONE = 410
"""A target's way to say that it never wants to hear of this again."""
log = structlog.stdlib.get_logger(__name__)


class WebhookSender:
    """Sends for ever; belongs to one event loop."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._settings = settings
        self._database = database
        self._sending: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Send what is due until cancelled; what is under way then is sent again by another, after its lease."""
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        headers = {"User-Agent": f"k2think/{__version__}", "Content-Type": "application/json"}
        # No cookies and no proxy of the environment: a notice goes to its target and carries nothing else.
        jar = aiohttp.DummyCookieJar()
        async with aiohttp.ClientSession(timeout=timeout, headers=headers, cookie_jar=jar) as session:
            try:
                while True:
                    pause_s = await self._round(session)
                    await asyncio.sleep(pause_s)
            finally:
                for task in self._sending:
                    task.cancel()
                await asyncio.gather(*self._sending, return_exceptions=True)

    async def _round(self, session: aiohttp.ClientSession) -> float:
        """Begin to send what is due, as far as there is room; return the seconds until the next look."""
        room = SENDING_MAX - len(self._sending)
        if room <= 0:
            return POLL_S
        began = time.monotonic()
        try:
            if not await self._database.read(lambda connection: any_due(connection, now=self._database.now())):
                return max(POLL_S, (time.monotonic() - began) * POLL_SHARE)
            claims = await self._database.run(
                lambda connection: claim_due(connection, now=self._database.now(), lease_s=LEASE_S, limit=room)
            )
        except StoreError as exc:
            outage_of(DATABASE).lost(exc)
            return POLL_S
        except Exception:
            log.exception("webhooks_failed", hint="the next look tries again")
            return POLL_S
        outage_of(DATABASE).back()
        for claim in claims:
            task = asyncio.get_running_loop().create_task(self._deliver(session, claim))
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)
        return POLL_S

    async def _deliver(self, session: aiohttp.ClientSession, claim: Claimed) -> None:
        try:
            await self._try(session, claim)
        except StoreError as exc:
            outage_of(DATABASE).lost(exc)
        except Exception:
            log.exception("webhook_failed", webhook=claim.id, hint="it is tried again after its lease")

    async def _try(self, session: aiohttp.ClientSession, claim: Claimed) -> None:
        tenant = await self._database.read(lambda connection: load_tenant(connection, claim.tenant))
        target = webhook_target(self._settings, tenant)
        if target is None:
            await self._failed(claim, "nothing is set any more where it could go", final=True)
            return
        event = await self._event(claim)
        if event is None:
            await self._failed(claim, "what it would tell of was deleted", final=True)
            return
        error, wait_s = await self._post(session, target, event)
        if error is None:
            await self._database.run(lambda connection: mark_delivered(connection, claim, now=self._database.now()))
            counters().webhook_tried("delivered")
            log.info("webhook_delivered", webhook=claim.id, subject=event.data.id, attempt=claim.attempt)
        else:
            await self._failed(claim, error, wait_s=wait_s, final=error == str(GONE))

    async def _event(self, claim: Claimed) -> WebhookEvent | None:
        """Return what is told, in the words of the door that the subject came in by; None = the subject is gone."""
        if claim.status is None or claim.ended_at is None:
            return None
        subject_id, kind = claim.subject_id, f"{claim.subject}.{claim.status}"
        note = None if claim.door is None else DoorNote.model_validate_json(claim.door)
        if note is not None and note.door is Door.responses:
            _status, result = await self._database.read(lambda connection: job_result(connection, claim.subject_id))
            if result is None:
                return None
            subject_id, kind = response_id(claim.subject_id), f"response.{ending_of(result)[0]}"
        return WebhookEvent(id=claim.id, type=kind, created_at=int(claim.ended_at), data=EventSubject(id=subject_id))

    async def _post(
        self, session: aiohttp.ClientSession, target: Target, event: WebhookEvent
    ) -> tuple[str | None, float]:
        """Send it; return what went wrong (None = nothing), and for how many seconds the target wants to be left alone."""
        body = event.model_dump_json().encode()
        now = int(self._database.now())
        headers = {
            "webhook-id": event.id,
            "webhook-timestamp": str(now),
            "webhook-signature": signature(target.secret, webhook_id=event.id, timestamp=now, body=body),
        }
        try:
            # A redirect would go to where no administrator has sent it. The answer's body is of no interest.
            async with session.post(target.url, data=body, headers=headers, allow_redirects=False) as answer:
                ok = 200 <= answer.status < 300
                return None if ok else str(answer.status), _seconds(answer.headers.get("Retry-After", ""))
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as exc:
            # Its words may hold the URL, which may hold a secret.
            return type(exc).__name__, 0.0

    async def _failed(self, claim: Claimed, error: str, *, wait_s: float = 0.0, final: bool = False) -> None:
        now = self._database.now()
        final = final or claim.attempt >= self._settings.gateway.webhook_attempts_max
        due_at = None if final else now + backoff_s(claim.attempt, wait_s=wait_s)
        await self._database.run(lambda connection: mark_failed(connection, claim, error=error, now=now, due_at=due_at))
        counters().webhook_tried("given_up" if final else "retried")
        if final:
            log.warning(
                "webhook_given_up", webhook=claim.id, subject=claim.subject_id, attempts=claim.attempt, reason=error
            )


def backoff_s(attempt: int, *, wait_s: float = 0.0) -> float:
    """Return the seconds after the failed try number `attempt`, from 1; at least `wait_s`, and never over an hour."""
    doubled = BACKOFF_FIRST_S * 2.0 ** min(attempt - 1, 30)
    return min(BACKOFF_MAX_S, max(doubled * random.uniform(1 - JITTER, 1 + JITTER), wait_s))


def _seconds(text: str) -> float:
    with contextlib.suppress(ValueError):
        return max(0.0, float(text)) if len(text) < 10 else 0.0
    return 0.0
