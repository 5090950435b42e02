"""The submit path that all doors share: check a request, commit it, ring the bell; then watch or cancel the job."""

import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator

from sqlalchemy import Connection

from ..agents.pipeline import first_step
from ..agents.templates import choose_set, known_sets, load_templates
from ..schemas.doors import DoorNote
from ..schemas.errors import InvalidRequest, QueueFull
from ..schemas.ids import uuid7
from ..schemas.jobs import JobStatus, SolveRequest, SolveResult
from ..schemas.messages import AgentKind
from ..schemas.policy import Selection
from ..schemas.settings import Settings
from ..schemas.trace import EventKind, JobEvent
from ..store.database import Database
from ..store.deliveries import notify_when_done
from ..store.jobs import Accepted, accept_job, events_after, job_result
from .coordinator import Coordinator
from .doorbells import Doorbells
from .queues import broker_url
from .telemetry import SpanHandle, telemetry

FULL_REMEMBERED_S = 0.25
"""Seconds for which a full queue is taken to be still full: who floods it is refused without asking the database."""


class Submitter:
    """Accepts jobs for one process; belongs to one event loop."""

    def __init__(self, settings: Settings, coordinator: Coordinator) -> None:
        self._settings = settings
        self._coordinator = coordinator
        self._database: Database = coordinator.database
        self.bells = Doorbells(broker_url(settings))
        """Of the jobs that this process waits for."""
        self._full_until = 0.0
        """Until when the queue is taken to be full, monotonic seconds."""
        self._full_words: tuple[str, float] = ("", 0.0)
        """What was said of it: message, and seconds to wait."""

    async def submit(
        self,
        request: SolveRequest,
        *,
        tenant: str = "default",
        attached: bool = False,
        reply_to: str | None = None,
        traceparent: str | None = None,
        job_id: str | None = None,
        door: DoorNote | None = None,
        notify: bool = False,
    ) -> Accepted:
        """Commit a job and ring for its first step. After this it will end, whatever dies.

        `attached`: the job is cancelled when no client is present (see `present`); without effect for one whose presence
        Redis has not confirmed, since it would be taken for gone. `reply_to`: Celery task id to answer.
        `door`: what the door wants to find again. `notify`: send a webhook when the job has ended, where the tenant or
        the settings name a target. `traceparent`: None = that of the request being served, if it has one. Raises InvalidRequest, QueueFull, LimitReached, StoreUnavailable, StoreFull.
        """
        request = resolve(request, self._settings)
        attached = attached and (job_id is None or self.bells.is_heard(job_id))
        # A key may stand for a job that was accepted long ago: that is looked up all the same.
        if request.idempotency_key is None and time.monotonic() < self._full_until:
            message, retry_after_s = self._full_words
            raise QueueFull(message, retry_after_s=retry_after_s)

        def accept(connection: Connection, span: SpanHandle) -> Accepted:
            now = self._database.now()
            accepted = accept_job(
                connection,
                request=request,
                first=first_step(request),
                tenant=tenant,
                now=now,
                attached=attached,
                reply_to=reply_to,
                traceparent=span.traceparent,
                queue_max=self._settings.queue_max,
                tenant_limit=True,
                job_id=job_id,
                door=None if door is None else door.model_dump_json(),
            )
            if notify and accepted.created:
                notify_when_done(
                    connection, self._settings, tenant=tenant, subject="job", subject_id=accepted.job_id, now=now
                )
            return accepted

        with telemetry().span("accept_job", kind="producer", traceparent=traceparent) as span:
            try:
                accepted = await self._database.run(lambda connection: accept(connection, span))
            except QueueFull as exc:
                self._full_until = time.monotonic() + FULL_REMEMBERED_S
                self._full_words = str(exc), exc.retry_after_s
                raise
            span.set(k2think__job_id=accepted.job_id, k2think__created=accepted.created)
        if accepted.message is not None:
            self._coordinator.dispatcher.publish([accepted.message])
        return accepted

    @contextlib.asynccontextmanager
    async def present(self) -> AsyncGenerator[str]:
        """Yield the id for a job to be submitted as `attached`; the client counts as present from before it exists."""
        job_id = uuid7(now_s=self._database.now())
        async with self.bells.at(job_id):
            yield job_id

    async def cancel(self, job_id: str, *, reason: str = "cancelled by the caller") -> bool:
        """End a job. False when it had ended already; raises NotFound."""
        return await self._coordinator.cancel(job_id, reason=reason)

    async def result(self, job_id: str) -> tuple[JobStatus, SolveResult | None]:
        """Return a job's status, and its result once it has ended. Raises NotFound."""
        return await self._database.read(lambda connection: job_result(connection, job_id))

    async def watch(self, job_id: str, *, after: int = 0) -> AsyncIterator[JobEvent]:
        """Yield the job's events with `seq` greater than `after`, as they happen, up to and with `finished`.

        While this runs, the job counts as watched (see `attached`).
        """
        async with self.bells.at(job_id) as bell:
            while True:
                events = await self._database.read(
                    lambda connection, last=after: events_after(connection, job_id, last)
                )
                for event in events:
                    after = event.seq
                    yield event
                    if event.kind is EventKind.finished:
                        return
                if not events:
                    await bell.ring()

    async def wait(self, job_id: str) -> SolveResult:
        """Wait for the result. Raises NotFound."""
        async with self.bells.at(job_id) as bell:
            while True:
                _status, result = await self.result(job_id)
                if result is not None:
                    return result
                await bell.end()


def resolve(request: SolveRequest, settings: Settings) -> SolveRequest:
    """Fill what the policy leaves to the settings, and refuse what they cannot serve. Raises InvalidRequest."""
    policy = request.policy
    if policy.backend is not None and not settings.serving(policy.backend):
        known = ", ".join(settings.generator_names) or "none is defined in K2THINK_BACKENDS"
        raise InvalidRequest(
            f"policy.backend: unknown backend {policy.backend!r}; known: {known}", param="policy.backend"
        )
    if policy.templates is not None and policy.templates not in known_sets():
        known = ", ".join(known_sets())
        raise InvalidRequest(
            f"policy.templates: unknown template set {policy.templates!r}; known: {known}", param="policy.templates"
        )
    if policy.selection is None:
        verifier = settings.role(AgentKind.verifier)
        judge = (
            verifier is not None
            and load_templates(choose_set(settings.resolve(verifier).template_set, policy.templates)).judge
        )
        selection = Selection.consensus_then_pairwise if judge else Selection.vote
        policy = policy.model_copy(update={"selection": selection})
    return request.model_copy(update={"policy": policy})
