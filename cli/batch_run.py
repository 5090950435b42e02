"""Running a batch: lines in, at most so many jobs at a time, answers out in the order in which they come.

The jobs are found again after a crash by their idempotency keys, which are made of the batch, the line and the request.
"""

import asyncio
import contextlib
import hashlib
import io
import json
import threading
from dataclasses import dataclass, field

from ..schemas.errors import InvalidRequest, LimitReached, QueueFull, StoreUnavailable
from ..schemas.jobs import JobError, JobStatus, SolveResult
from ..store.lookup import finished_among
from ..workers.session import Session
from ..workers.submit import resolve
from .batch_answers import answer_line, bad_line, keys_of_input
from .batch_input import BadLine, InputLine, LineParser, raw_lines
from .batch_output import BatchOutput
from .batch_progress import BatchProgress

POLL_S = 0.1
"""Seconds between two looks at the jobs in flight: one query for all of them."""
READ_AHEAD = 64
"""Lines that are understood but not yet submitted."""
SUBMIT_TOGETHER = 32
"""Jobs that are committed at once."""
OUTAGE_WAIT_S = 1.0

_ENDED_WHILE_AWAY = (JobStatus.expired, JobStatus.cancelled)
_Read = InputLine | BadLine | BaseException | None


@dataclass(slots=True)
class _InFlight:
    line: InputLine
    generation: int
    """Times that the line was submitted before."""
    reattached: bool
    """Whether an earlier run had begun the job."""


@dataclass(slots=True)
class Tally:
    """What this run did."""

    finished: int = 0
    """Lines that were answered."""
    skipped: int = 0
    """Lines that earlier runs had answered."""
    reattached: int = 0
    """Jobs that an earlier run had begun."""
    bad: int = 0
    """Lines that could not be understood."""
    statuses: dict[str, int] = field(default_factory=dict[str, int])
    """Jobs by how they ended."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    calls: int = 0
    """Model calls."""


class BatchRun:
    """One run over an input; belongs to one event loop."""

    def __init__(
        self, session: Session, output: BatchOutput, progress: BatchProgress, *, batch_id: str, max_in_flight: int
    ) -> None:
        self._session = session
        self._output = output
        self._progress = progress
        self._batch_id = batch_id
        self._max_in_flight = max_in_flight
        self._jobs: dict[str, _InFlight] = {}
        self._again: list[_InFlight] = []
        self._store_lost = False
        self.tally = Tally()

    async def run(self, file: io.RawIOBase, parser: LineParser) -> None:
        """Answer every line that is not answered yet. Raises StoreFull, StoreError, InvalidRequest (output)."""
        lines: asyncio.Queue[_Read] = asyncio.Queue(READ_AHEAD)
        _start_reader(file, parser, lines)
        reading = True
        while reading or self._jobs or self._again:
            if reading:
                reading = await self._feed(lines)
            await self._resubmit()
            await self._collect()
            self._progress.update(self._output.counts)
            if self._jobs or (reading and lines.empty()):
                await asyncio.sleep(POLL_S)

    async def _feed(self, lines: "asyncio.Queue[_Read]") -> bool:
        """Submit what has been read, as far as there is room; False at the end of the input."""
        fresh: list[_InFlight] = []
        more = True
        while more and len(self._jobs) + len(fresh) < self._max_in_flight and not lines.empty():
            item = lines.get_nowait()
            if isinstance(item, BaseException):
                raise item
            if item is None:
                more = False
            elif any(key in self._output.finished for key in keys_of_input(item)):
                self.tally.skipped += 1
            elif isinstance(item, BadLine):
                self._bad(item)
            else:
                fresh.append(_InFlight(item, 0, False))
            if len(fresh) == SUBMIT_TOGETHER:
                await self._submit_all(fresh)
                fresh = []
        await self._submit_all(fresh)
        return more

    async def _resubmit(self) -> None:
        """Jobs of an earlier run that ended only because nobody worked on them."""
        again, self._again = self._again, []
        await self._submit_all(again)

    async def _submit_all(self, jobs: list[_InFlight]) -> None:
        async with contextlib.AsyncExitStack() as stack:
            group = await stack.enter_async_context(_first_error_only())
            for job in jobs:
                group.create_task(self._submit(job))

    async def _submit(self, job: _InFlight) -> None:
        line = job.line
        try:
            request = resolve(line.request, self._session.settings)
            text = json.dumps([line.id, request.model_dump(mode="json")], sort_keys=True)
            digest = hashlib.sha256(text.encode()).hexdigest()
            key = f"batch:{self._batch_id}:{digest}:{job.generation}"
            request = request.model_copy(update={"idempotency_key": key})
            while True:
                try:
                    accepted = await self._session.submitter.submit(request)
                    break
                except (QueueFull, LimitReached) as exc:
                    await asyncio.sleep(exc.retry_after_s)
                except StoreUnavailable as exc:
                    await self._wait_for_store(exc)
        except InvalidRequest as exc:
            self._bad(BadLine(line.number, line.id, line.openai, str(exc)))
            return
        job.reattached = not accepted.created
        self.tally.reattached += job.reattached
        self._jobs[accepted.job_id] = job

    async def _collect(self) -> None:
        """Write the answers of the jobs that have ended."""
        if not self._jobs:
            return
        job_ids = list(self._jobs)
        try:
            results, gone = await self._session.database.read(lambda connection: finished_among(connection, job_ids))
        except StoreUnavailable as exc:
            await self._wait_for_store(exc)
            return
        if self._store_lost:
            self._store_lost = False
            self._progress.note("the database is back")
        for result in results:
            self._ended(self._jobs.pop(result.job_id), result)
        for job_id in gone:
            error = JobError(code="not_found", message=f"job {job_id} was deleted while it ran")
            result = SolveResult(job_id=job_id, status=JobStatus.failed, error=error)
            self._ended(self._jobs.pop(job_id), result)

    def _ended(self, job: _InFlight, result: SolveResult) -> None:
        if job.reattached and result.status in _ENDED_WHILE_AWAY:
            self._again.append(_InFlight(job.line, job.generation + 1, False))
            return
        self._output.write(answer_line(job.line, result))
        tally, used = self.tally, result.usage.total
        tally.finished += 1
        tally.statuses[result.status.value] = tally.statuses.get(result.status.value, 0) + 1
        tally.prompt_tokens += used.prompt
        tally.completion_tokens += used.completion
        tally.calls += sum(result.usage.calls.values())

    def _bad(self, line: BadLine) -> None:
        self._output.write(bad_line(line))
        self._progress.bad_line(line.number, line.reason)
        self.tally.bad += 1

    async def _wait_for_store(self, exc: StoreUnavailable) -> None:
        if not self._store_lost:
            self._store_lost = True
            self._progress.note(f"{exc}; waiting for it, Ctrl-C stops")
        await asyncio.sleep(OUTAGE_WAIT_S)


@contextlib.asynccontextmanager
async def _first_error_only():
    """A task group whose error is the first one itself, not a group of errors."""
    try:
        async with asyncio.TaskGroup() as group:
            yield group
    except BaseExceptionGroup as exc:
        raise exc.exceptions[0] from exc


def _start_reader(file: io.RawIOBase, parser: LineParser, lines: "asyncio.Queue[_Read]") -> None:
    """Read in a thread of its own: standard input may block for ever, and must not keep us from ending."""
    loop = asyncio.get_running_loop()

    def put(item: _Read) -> bool:
        try:
            asyncio.run_coroutine_threadsafe(lines.put(item), loop).result()
        except (RuntimeError, asyncio.CancelledError):
            return False  # the loop has ended
        return True

    def read() -> None:
        try:
            for number, raw in raw_lines(file):
                if not put(parser.parse(number, raw)):
                    return
        except Exception as exc:
            put(exc if not isinstance(exc, OSError) else InvalidRequest(f"the input cannot be read: {exc}"))
        else:
            put(None)

    threading.Thread(target=read, name="k2think-batch-input", daemon=True).start()
