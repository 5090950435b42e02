"""Jobs: submit, look, wait, follow, cancel (/v1/jobs)."""

import time
from collections.abc import Mapping

from ..schemas.doors import Door
from ..schemas.errors import WaitTimedOut
from ..schemas.job_objects import JobList, JobObject
from ..schemas.jobs import JobStatus, SolveResult
from ..schemas.trace import JobEvent, JobTrace
from .exchange import MAY_PASS, Exchange, creating, given, segment
from .flow import Call, Emit, Flow, Items, Pause, iteration, operation
from .following import Following
from .problems import ChecksLike, PolicyLike, Problem, solve_request

POLL_FIRST_S = 0.25
POLL_MAX_S = 2.0
PAGE = 100


class Jobs(Exchange):
    """The methods of both clients that are about jobs.

    All of them raise InvalidRequest, NotFound, AccessDenied, LimitReached, QueueFull, StoreError, BrokerUnavailable,
    GatewayError and its GatewayUnreachable (`k2think.schemas.errors`).
    """

    @operation
    def submit(
        self,
        problem: Problem,
        *,
        policy: PolicyLike | None = None,
        checks: ChecksLike | None = None,
        metadata: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
    ) -> Flow[JobObject]:
        """Submit a job, which then goes on by itself, whatever becomes of this client.

        A second submission with the same `idempotency_key` brings back the first one's job; with another problem it
        raises IdempotencyConflict. None = a new one is made, so that tries after a broken connection stay one job.
        `metadata`: at most 64 keys of 64 characters, values of 512.
        """
        body = solve_request(problem, policy=policy, checks=checks, metadata=metadata)
        return (yield from self.ask_for(JobObject, creating("/v1/jobs", body=body, key=idempotency_key)))

    @operation
    def get(self, job_id: str) -> Flow[JobObject]:
        """Return a job as it stands; its `result` is None until it is final."""
        return (yield from self.ask_for(JobObject, Call("GET", f"/v1/jobs/{segment(job_id)}")))

    @iteration
    def list(
        self,
        *,
        status: JobStatus | str | None = None,
        door: Door | str | None = None,
        created_after: float | None = None,
        created_before: float | None = None,
        after: str | None = None,
    ) -> Items[JobObject]:
        """Iterate over the jobs, newest first, page by page; they come without their results.

        `created_after` and `created_before` are Unix times in seconds; `after` is the id of a job that is older ones'
        predecessor. None = no such condition.
        """
        while True:
            params = given(
                status=status, door=door, created_after=created_after, created_before=created_before, after=after
            )
            page = yield from self.ask_for(JobList, Call("GET", "/v1/jobs", params={**params, "limit": PAGE}))
            for job in page.data:
                yield Emit(job)
            if not page.has_more or page.last_id is None:
                return
            after = page.last_id

    @operation
    def wait(self, job_id: str, *, timeout_s: float | None = None) -> Flow[SolveResult]:
        """Return a job's result once it is final, over broken connections and restarts of the gateway.

        Whether there is an answer is said by `result.status`: a job that failed is no exception here. Raises
        WaitTimedOut after `timeout_s` seconds (None = never); the job goes on then.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        try:
            result = yield from _result(self, job_id, deadline)
        except MAY_PASS:
            if deadline is None or time.monotonic() < deadline:
                raise
            result = None
        if result is None:
            raise WaitTimedOut(f"job {job_id} did not end within {timeout_s:g} s; it goes on: wait again, or cancel it")
        return result

    @iteration
    def stream(self, job_id: str, *, after: int = 0) -> Items[JobEvent]:
        """Iterate over a job's events as they happen, to its end: each once, in order, over broken connections.

        `after` is the `seq` of the last event that is known already. Events hold no model text.
        """
        following = Following(self, job_id, after=after)
        final = False
        while not following.finished:
            yield from following.connect()
            while following.connected and not following.finished:
                for event in (yield from following.more()):
                    yield Emit(event)
            if final and following.nothing_left:
                return
            if not following.finished:
                # Of a job that had ended before a stream began, that stream has everything.
                final = (yield from Jobs.get(self, job_id)).status.final
                if not final:
                    yield from following.breathe()

    @operation
    def solve(
        self,
        problem: Problem,
        *,
        policy: PolicyLike | None = None,
        checks: ChecksLike | None = None,
        metadata: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
        timeout_s: float | None = None,
    ) -> Flow[SolveResult]:
        """Submit a job and wait for its result: `submit` and `wait` in one.

        Leaving early (WaitTimedOut, Ctrl-C) does not cancel the job.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        job = yield from Jobs.submit(
            self, problem, policy=policy, checks=checks, metadata=metadata, idempotency_key=idempotency_key
        )
        if job.result is not None:
            return job.result
        left_s = None if deadline is None else max(0.0, deadline - time.monotonic())
        return (yield from Jobs.wait(self, job.id, timeout_s=left_s))

    @operation
    def cancel(self, job_id: str) -> Flow[JobObject]:
        """End a job and return it; one that has ended already is returned as it is."""
        return (yield from self.ask_for(JobObject, Call("POST", f"/v1/jobs/{segment(job_id)}/cancel")))

    @operation
    def trace(self, job_id: str) -> Flow[JobTrace]:
        """Return everything about a job: steps, attempts, model calls, events. Text that was not let pass is withheld."""
        return (yield from self.ask_for(JobTrace, Call("GET", f"/v1/jobs/{segment(job_id)}/trace")))


def _result(door: Exchange, job_id: str, deadline: float | None) -> Flow[SolveResult | None]:
    """End with the job's result, or with None when the time is over."""
    following = Following(door, job_id, deadline=deadline)
    poll_s = POLL_FIRST_S
    while True:
        look = Call("GET", f"/v1/jobs/{segment(job_id)}")
        job = yield from door.ask_for(JobObject, look, deadline=deadline)
        if job.result is not None:
            return job.result
        left_s = float("inf") if deadline is None else deadline - time.monotonic()
        if left_s <= 0:
            return None
        if following.deaf:
            yield Pause(min(poll_s, left_s))
            poll_s = min(1.5 * poll_s, POLL_MAX_S)
            continue
        yield from following.breathe()
        yield from following.connect()
        while following.connected and not following.finished:
            yield from following.more()
