"""One step, from its message to its committed end: claim, acknowledge, run the agent, commit with what follows."""

import asyncio
import contextlib
import random
import time
from collections.abc import Awaitable, Callable, Generator
from functools import partial
from typing import Any

import structlog
from pydantic import ValidationError
from structlog.contextvars import bound_contextvars

from ..agents.context import AgentContext
from ..agents.generator import generate
from ..agents.planner import make_plan
from ..agents.safety import screen
from ..agents.verifier import compare
from ..schemas.backend_settings import BackendSettings
from ..schemas.completion import CompletionRequest
from ..schemas.errors import BackendError, BackendsResting, K2ThinkError, RateLimited
from ..schemas.messages import (
    AGENT_OF_KIND,
    AgentKind,
    Body,
    ComparePair,
    Envelope,
    GenerateCandidate,
    MakePlan,
    ScreenInput,
    ScreenOutput,
    ScreenPlan,
    queue_of,
)
from ..schemas.outcomes import StepFailure, StepResult
from ..schemas.settings import Settings
from ..schemas.trace import AttemptOutcome, CallTrace
from ..store.steps import Claim, claim_step, drop_step, fail_step, finish_step
from .backends import BackendPool
from .coordinator import Coordinator
from .counters import counters
from .leases import Leases, Stopped, Work
from .outage import DATABASE, outage_of, patiently
from .telemetry import SpanHandle, telemetry

BACKOFF_MAX_S = 60.0
DOZE_S = 1.0
"""Seconds that a slot takes no message after it has handed one on."""
log = structlog.stdlib.get_logger(__name__)


class StepRunner:
    """Runs steps of any kind; one per worker process."""

    def __init__(
        self, settings: Settings, coordinator: Coordinator, leases: Leases, backends: BackendPool, *, worker: str
    ) -> None:
        self._settings = settings
        self._coordinator = coordinator
        self._database = coordinator.database
        self._leases = leases
        self._backends = backends
        self._worker = worker
        self._outage = outage_of(DATABASE)

    async def run(self, message: Any, *, acknowledge: Callable[[], None]) -> None:
        """Handle one message. Never raises for what the message or the agent does."""
        try:
            envelope = Envelope.model_validate(message)
        except ValidationError as exc:
            problems = [
                f"{'.'.join(map(str, error['loc']))}: {error['msg']}" for error in exc.errors(include_input=False)
            ]
            log.error("message_refused", problems=problems, hint="sent by another version, or not by k2think")
            acknowledge()
            return
        with bound_contextvars(job=envelope.job_id, step=envelope.step, attempt=envelope.attempt):
            if not self._backends.admits(AGENT_OF_KIND[envelope.body.kind]):
                await self._hand_on(envelope, acknowledge)
                return
            counters().received(envelope)
            with self._leases.claiming():
                claim = await self._claim(envelope)
                acknowledge()
                if claim is None:
                    log.debug("message_ignored", reason="its step is done, claimed by another, or no longer wanted")
                    return
                counters().started(envelope, waited_s=claim.claimed_at - claim.queued_at)
                work = Work(claim)
                self._leases.add(work)
            try:
                with _step_span(claim, self._worker) as span:
                    await self._work(work, span)
            finally:
                self._leases.remove(work)

    async def _hand_on(self, envelope: Envelope, acknowledge: Callable[[], None]) -> None:
        """Leave the step to workers that can do it. The slot dozes, so that this one does not take all messages first."""
        self._coordinator.dispatcher.publish([envelope])
        acknowledge()
        await asyncio.sleep(DOZE_S * random.uniform(0.5, 1.0))

    async def _claim(self, envelope: Envelope) -> Claim | None:
        return await patiently(
            self._outage,
            lambda: self._database.run(
                lambda connection: claim_step(
                    connection, envelope, worker=self._worker, now=self._database.now(), lease_s=self._settings.lease_s
                )
            ),
        )

    async def _work(self, work: Work, span: SpanHandle) -> None:
        record = CallTrace()
        work.task = asyncio.get_running_loop().create_task(self._agent(work.claim.envelope, record))
        if work.stopped is not None:
            work.task.cancel()
        try:
            result = await work.task
        except asyncio.CancelledError:
            span.set(k2think__outcome=(work.stopped or AttemptOutcome.released).value)
            await self._drop(work, record)
        except BackendsResting as exc:
            log.info("step_handed_back", reason=str(exc))
            span.set(k2think__outcome=AttemptOutcome.released.value)
            await self._drop(work, record)
        except Exception as exc:
            span.fail(_failure(exc).code)
            await self._fail(work, record, exc)
        else:
            kept = await self._finish(work, record, result)
            span.set(k2think__outcome=(AttemptOutcome.done if kept else AttemptOutcome.stale).value)

    async def _agent(self, envelope: Envelope, record: CallTrace) -> StepResult:
        agent = AGENT_OF_KIND[envelope.body.kind]
        context = AgentContext(
            job_id=envelope.job_id,
            step=envelope.step,
            attempt=envelope.attempt,
            route=await self._backends.route(agent),
            record=record,
            around_call=partial(_model_call, agent),
        )
        return await _call_agent(envelope.body, context, fail_open=self._settings.safety_fail_open)

    async def _finish(self, work: Work, record: CallTrace, result: StepResult) -> bool:
        claim = work.claim
        kept = await self._coordinator.advance(
            claim.envelope.job_id,
            lambda connection: finish_step(
                connection, claim, result=result, call=_used(record), now=self._database.now()
            ),
        )
        if kept:
            seconds = time.monotonic() - work.began
            counters().succeeded(claim.envelope, result, seconds=seconds)
            log.info("step_finished", kind=claim.envelope.body.kind, seconds=round(seconds, 3))
        else:
            counters().revoked(claim.envelope)
            log.info("result_refused", reason="the lease had passed to another, or the step was cancelled")
        return kept

    async def _fail(self, work: Work, record: CallTrace, exc: Exception) -> None:
        claim = work.claim
        failure = _failure(exc)
        if not isinstance(exc, K2ThinkError):
            log.exception("agent_crashed", kind=claim.envelope.body.kind)
        # Who is told to wait has not failed; the job's deadline ends that.
        counts = not isinstance(exc, RateLimited)
        retry_at = self._retry_at(claim.starts if counts else 1, exc)
        log.warning(
            "step_failed",
            code=failure.code,
            reason=failure.message,
            retry_in_s=None if retry_at is None else round(retry_at - self._database.now(), 1),
        )
        kept = await self._coordinator.advance(
            claim.envelope.job_id,
            lambda connection: fail_step(
                connection,
                claim,
                failure=failure,
                call=_used(record),
                retry_at=retry_at,
                now=self._database.now(),
                counts=counts,
            ),
        )
        if kept and retry_at is None:
            counters().failed(claim.envelope, code=failure.code)
        elif kept:
            counters().retried(claim.envelope)
        else:
            counters().revoked(claim.envelope)

    def _retry_at(self, starts: int, exc: Exception) -> float | None:
        if isinstance(exc, K2ThinkError) and not (isinstance(exc, BackendError) and exc.retryable):
            return None
        if starts >= self._settings.attempts_max:
            return None
        backoff_s = min(BACKOFF_MAX_S, self._settings.retry_base_s * 2 ** (starts - 1)) * random.uniform(0.5, 1.0)
        told_s = exc.retry_after_s if isinstance(exc, BackendError) else None
        return self._database.now() + max(backoff_s, told_s or 0.0)

    async def _drop(self, work: Work, record: CallTrace) -> None:
        """The step was cancelled, or cannot be done here now: record what was paid for, and hand back what is still wanted."""
        outcome: Stopped = work.stopped or AttemptOutcome.released
        again = await patiently(
            self._outage,
            lambda: self._database.run(
                lambda connection: drop_step(
                    connection, work.claim, outcome=outcome, call=_used(record), now=self._database.now()
                )
            ),
        )
        log.info("step_stopped", outcome=outcome.value, completion_tokens=record.usage.completion)
        if again is not None:
            counters().retried(work.claim.envelope)
            self._coordinator.dispatcher.publish([again])
        else:
            counters().revoked(work.claim.envelope)


def _call_agent(body: Body, context: AgentContext, *, fail_open: bool) -> Awaitable[StepResult]:
    match body:
        case MakePlan():
            return make_plan(body, context)
        case GenerateCandidate():
            return generate(body, context)
        case ComparePair():
            return compare(body, context)
        case ScreenInput() | ScreenPlan() | ScreenOutput():
            return screen(body, context, fail_open=fail_open)


def _step_span(claim: Claim, worker: str) -> contextlib.AbstractContextManager[SpanHandle]:
    envelope = claim.envelope
    return telemetry().span(
        envelope.body.kind,
        kind="consumer",
        traceparent=envelope.traceparent,
        attributes={
            "messaging.system": "celery",
            "messaging.operation.type": "process",
            "messaging.destination.name": queue_of(envelope.body),
            "messaging.message.id": envelope.message_id,
            "k2think.job_id": envelope.job_id,
            "k2think.step": envelope.step,
            "k2think.attempt": envelope.attempt,
            "k2think.worker": worker,
            "k2think.queue_wait_s": max(0.0, claim.claimed_at - claim.queued_at),
        },
    )


@contextlib.contextmanager
def _model_call(
    agent: AgentKind, settings: BackendSettings, request: CompletionRequest, record: CallTrace
) -> Generator[None]:
    """Count and trace one model call."""
    outcome = "ok"
    try:
        with telemetry().model_call(agent.value, settings, request, record):
            yield
    except asyncio.CancelledError:
        outcome = "cancelled"
        raise
    except Exception as exc:
        outcome = _failure(exc).code
        raise
    finally:
        counters().called(agent.value, record, settings, outcome=outcome)


def _used(record: CallTrace) -> CallTrace | None:
    return record if record.called else None


def _failure(exc: Exception) -> StepFailure:
    if isinstance(exc, K2ThinkError):
        return StepFailure(code=exc.code, message=str(exc))
    return StepFailure(
        code="internal_error", message=f"the agent crashed with {type(exc).__name__}; the worker's log has the details"
    )
