"""Where a job moves on: one transaction around a step's result and what follows from it, then the doorbell.

The only caller of the state machine. Used by workers (a step ended), the sweeper (time passed) and the doors (cancel).
"""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import structlog
from sqlalchemy.engine import Connection

from ..agents.pipeline import advance
from ..grading.equivalence import equivalent
from ..schemas.errors import BrokerUnavailable, GradingError
from ..schemas.jobs import JobError, JobStatus, SolveResult
from ..schemas.outcomes import Candidate
from ..schemas.progress import JobView
from ..store.database import Database
from ..store.jobs import (
    Applied,
    apply_decision,
    load_steps,
    lock_job,
    mark_replied,
    request_cancel,
    save_equivalences,
)
from .dispatcher import Dispatcher
from .outage import DATABASE, REPLIES, outage_of, patiently
from .replies import Replies

Change = Callable[[Connection], bool]
"""Something to write before the state machine is asked, under the job's lock; False = it no longer counts, nothing follows."""
COMPARE_S = 30.0
"""Seconds for comparing the answers of one job; pairs that are not decided by then count as different."""
log = structlog.stdlib.get_logger(__name__)


class _Undecided(Exception):
    """Rolls the transaction back: answers must be compared first, which takes too long to hold a lock."""

    def __init__(self, job: JobView, pairs: tuple[tuple[int, int], ...]) -> None:
        super().__init__(job.job_id)
        self.job = job
        self.pairs = pairs


class Coordinator:
    """Moves jobs on. One per process; belongs to one event loop."""

    def __init__(self, database: Database, dispatcher: Dispatcher, replies: Replies | None = None) -> None:
        self.database = database
        self.dispatcher = dispatcher
        self._replies = replies
        self._reply_thread = ThreadPoolExecutor(1, thread_name_prefix="k2think-replies")
        self._outage = outage_of(DATABASE)
        self._reply_outage = outage_of(REPLIES)
        self._tasks: set[asyncio.Task[bool]] = set()
        self._comparing = asyncio.Lock()
        """Held while one job's answers are compared: another's shall not use up its time."""

    async def advance(self, job_id: str, change: Change | None = None) -> bool:
        """Apply `change` and what follows from it in one transaction, then publish.

        Returns False when the change no longer counted. Waits out a lost database.
        """
        found: dict[tuple[int, int], bool] = {}

        def operation(connection: Connection) -> Applied | None:
            job = lock_job(connection, job_id)
            if change is not None and not change(connection):
                return None
            load_steps(connection, job)
            if found:
                save_equivalences(connection, job_id, found)
                job.equivalences.update(found)
            now = self.database.now()
            decision = advance(job, now=now)
            if decision.undecided:
                raise _Undecided(job, decision.undecided)
            return apply_decision(connection, job, decision, now=now)

        while True:
            try:
                applied = await patiently(self._outage, lambda: self.database.run(operation))
            except _Undecided as exc:
                async with self._comparing:
                    found.update(await _compare(exc.job, exc.pairs))
            else:
                break
        if applied is None:
            return False
        self.announce(job_id, applied)
        return True

    async def cancel(self, job_id: str, *, reason: str = "cancelled by the caller") -> bool:
        """End a job. False when it had ended already; raises NotFound."""
        error = JobError(code="cancelled", message=reason)
        applied = await patiently(
            self._outage,
            lambda: self.database.run(
                lambda connection: request_cancel(
                    connection, job_id, now=self.database.now(), status=JobStatus.cancelled, error=error
                )
            ),
        )
        if applied is None:
            return False
        self.announce(job_id, applied)
        return True

    def announce(self, job_id: str, applied: Applied) -> None:
        """Ring the doorbells for what was committed."""
        self.dispatcher.publish(applied.messages)
        if applied.cancelled:
            steps = None if applied.result is not None else [name for name, _attempt in applied.cancelled]
            self.dispatcher.notify_cancel(job_id, steps)
        self.dispatcher.notify_job(job_id, ended=applied.result is not None)
        if applied.result is not None:
            from .counters import counters  # a client that only submits shall not load it

            counters().job_ended(applied.result)
            log.info(
                "job_finished", job=job_id, status=applied.result.status.value, seconds=applied.result.timings.total
            )
            if applied.reply_to is not None:
                self._spawn_reply(job_id, applied.reply_to, applied.result)

    async def reply(self, job_id: str | None, reply_to: str, result: SolveResult) -> bool:
        """Answer a caller of the Celery door; where `job_id` is given, a failure is left to the sweeper.

        Returns whether the answer was sent.
        """
        if self._replies is None:
            return False
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._reply_thread, self._replies.store, reply_to, result)
        except BrokerUnavailable as exc:
            self._reply_outage.lost(exc)
            return False
        self._reply_outage.back()
        if job_id is not None:
            await patiently(
                self._outage,
                lambda: self.database.run(lambda connection: mark_replied(connection, job_id, self.database.now())),
            )
        return True

    def _spawn_reply(self, job_id: str, reply_to: str, result: SolveResult) -> None:
        task = asyncio.get_running_loop().create_task(self.reply(job_id, reply_to, result))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def settle(self) -> None:
        """Wait for replies under way."""
        if self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)
        self._reply_thread.shutdown(wait=False)


async def _compare(job: JobView, pairs: tuple[tuple[int, int], ...]) -> dict[tuple[int, int], bool]:
    """Find out whether answers are equal, by symbolic maths in a process of its own.

    A crash counts as different, and so does what is not decided in `COMPARE_S`.
    """
    answers = {
        step.result.index: step.result.answer for step in job.steps.values() if isinstance(step.result, Candidate)
    }
    found = dict.fromkeys(pairs, False)
    until = time.monotonic() + COMPARE_S
    for number, (first, second) in enumerate(pairs):
        if time.monotonic() >= until:
            hint = "their answers count as different"
            log.warning("equivalence_cut_short", job=job.job_id, pairs=len(pairs) - number, hint=hint)
            break
        try:
            same = await equivalent(answers[first] or "", answers[second] or "", form=job.request.checks.answer_form)
        except GradingError as exc:
            log.error("equivalence_failed", job=job.job_id, first=first, second=second, reason=str(exc))
        else:
            found[first, second] = same
    return found
