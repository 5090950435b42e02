"""The Celery tasks: one thin one for each agent, and the Celery door."""

import asyncio
from collections.abc import Callable
from typing import Any

import structlog
from celery import Celery
from pydantic import ValidationError

from ..schemas.errors import InvalidRequest, K2ThinkError, explain
from ..schemas.jobs import JobError, JobStatus, SolveRequest, SolveResult
from .coordinator import Coordinator
from .outage import DATABASE, outage_of, patiently
from .queues import SOLVE_TASK, TASK_OF_AGENT
from .runner import StepRunner
from .submit import Submitter

log = structlog.stdlib.get_logger(__name__)


def register_steps(app: Celery, runner: StepRunner) -> None:
    """Bind the agents' tasks. Each takes one envelope as a dict; `workers/pool.py` calls them."""
    for name in TASK_OF_AGENT.values():

        async def step(message: Any, *, acknowledge: Callable[[], None], task_id: str) -> None:
            await runner.run(message, acknowledge=acknowledge)

        app.task(step, name=name, serializer="json", ignore_result=True)


class CeleryDoor:
    """`send_task("k2think.solve", [request], queue="intake")` from any Celery app.

    `request` is a SolveRequest as a dict or JSON text. The caller's `.get()` returns a SolveResult as a dict; an
    invalid request is answered with status `failed` and an error, never with silence.
    """

    def __init__(self, submitter: Submitter, coordinator: Coordinator) -> None:
        self._submitter = submitter
        self._coordinator = coordinator
        self._outage = outage_of(DATABASE)
        self._following: set[asyncio.Task[None]] = set()

    async def solve(self, task_id: str, request: Any, *, acknowledge: Callable[[], None]) -> None:
        """Accept one request; the message is acknowledged once the job is committed, or the refusal sent."""
        try:
            if request is None:
                raise InvalidRequest("k2think.solve takes one argument, the request: send_task(…, [request])")
            parsed = parse_request(request)
            key = parsed.idempotency_key or f"celery:{task_id}"
            parsed = parsed.model_copy(update={"idempotency_key": key})
            accepted = await patiently(self._outage, lambda: self._submitter.submit(parsed, reply_to=task_id))
        except K2ThinkError as exc:
            result = SolveResult(job_id="", status=JobStatus.failed, error=JobError(code=exc.code, message=str(exc)))
            log.warning("request_refused", task_id=task_id, code=exc.code, reason=str(exc))
            await self._coordinator.reply(None, task_id, result)
        else:
            log.info("job_accepted", job=accepted.job_id, task_id=task_id, new=accepted.created)
            if not accepted.created:
                self._follow(accepted.job_id, task_id)
        acknowledge()

    def _follow(self, job_id: str, task_id: str) -> None:
        """Answer a second caller of a job that another call had started (same idempotency key)."""

        async def answer() -> None:
            await self._coordinator.reply(None, task_id, await self._submitter.wait(job_id))

        task = asyncio.get_running_loop().create_task(answer())
        self._following.add(task)
        task.add_done_callback(self._following.discard)


def parse_request(request: Any) -> SolveRequest:
    """Read a request given as a dict or as JSON text. Raises InvalidRequest that names each wrong field."""
    try:
        if isinstance(request, str | bytes):
            return SolveRequest.model_validate_json(request)
        return SolveRequest.model_validate(request)
    except ValidationError as exc:
        raise InvalidRequest(explain(exc)) from exc


def register_door(app: Celery, door: CeleryDoor) -> None:
    """Bind the Celery door's task: one argument, positional or named `request`; anything else is refused with an error."""

    async def solve(*arguments: Any, acknowledge: Callable[[], None], task_id: str, **keywords: Any) -> None:
        given = [*arguments, *(value for name, value in keywords.items() if name == "request")]
        request = given[0] if len(given) == 1 and set(keywords) <= {"request"} else None
        await door.solve(task_id, request, acknowledge=acknowledge)

    app.task(solve, name=SOLVE_TASK, serializer="json", ignore_result=True)
