"""One batch on its way to its end, by the process that holds its claim.

    validating ──> in_progress ──> finalizing ──> completed | expired
        │  └─> failed    └─> cancelling ──> cancelled
        └─> cancelling

Everything that is known is in the database, so a run can end between any two lines of this file and another one goes
on from there. Each transaction checks the claim, and each can be repeated.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import structlog
from sqlalchemy import Connection

from ...schemas.batches import BatchStatus, LineStatus
from ...schemas.doors import Door, DoorNote
from ...schemas.errors import NotFound, UserError
from ...schemas.jobs import CUT_OFF, JobStatus, SolveRequest
from ...schemas.messages import Envelope
from ...store.batch_lines import (
    Ended,
    Line,
    LineJob,
    add_lines,
    drop_pending,
    end_lines,
    note_submitted,
    outcomes,
    pending_lines,
    room_for_jobs,
    submitted_jobs,
)
from ...store.batch_runs import (
    Batch,
    BatchClaim,
    begin,
    clear_lines,
    end_batch,
    fail_batch,
    hold,
    look,
    start_expiry,
    start_finalizing,
)
from ...workers.bulk import accept_within
from ...workers.outage import DATABASE, outage_of, patiently
from ..files.storage import content_path
from ..services import Services
from .input import InputCheck, read_lines
from .lines import LineFault, body_fault, read_line, request_of
from .output import CANCELLED, EXPIRED, GONE, Output

CHUNK_JOBS = 50
"""Jobs that are committed in one transaction: others wait for the database that long."""
PAGE_LINES = 50
"""Lines that are written to the output before others get their turn."""
CANCELS_AT_ONCE = 50
POLL_MIN_S = 0.2
POLL_MAX_S = 2.0
POLL_SHARE = 10
"""A look at a batch's jobs is followed by a pause that is so many times as long as the look took, within these bounds."""
T = TypeVar("T")
log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A line with what it will be."""

    line: Line
    request: SolveRequest | None
    """Its job; None = there can be none."""
    door: DoorNote | None
    error: dict[str, str] | None
    """Why there can be none."""


class BatchRun:
    """The work on one batch under one claim."""

    def __init__(self, services: Services, claim: BatchClaim) -> None:
        self._services = services
        self._claim = claim
        self._settings = services.settings
        self._pause_s = POLL_MIN_S

    async def work(self) -> None:
        """Bring the batch to its end. Raises ClaimLost, OSError where the input or the output cannot be reached."""
        batch = await self._look()
        log.info("batch_claimed", batch=batch.id, status=batch.status.value)
        if batch.status is BatchStatus.validating and not await self._validate(batch):
            return
        while True:
            batch = await self._look()
            if not batch.validated:
                # Cancelled, or expired, before it was known what is in it.
                if batch.cancelling or batch.expired:
                    await self._end_unread()
                return
            if await self._progress(batch):
                break
            await asyncio.sleep(self._pause_s)
        await self._finalize()

    # Validation

    async def _validate(self, batch: Batch) -> bool:
        """Read the whole input and note its lines, as long as nobody asks for the batch's end; False = it has failed."""
        if batch.expires_at <= self._now():
            await self._run(lambda conn: start_expiry(conn, self._claim, now=self._now()))
            return True
        await self._run(lambda conn: clear_lines(conn, self._claim))
        path = content_path(self._settings.files_dir, batch.input_file_id)
        check = await asyncio.to_thread(
            InputCheck.open,
            path,
            self._settings,
            endpoint=batch.endpoint,
            expires_at=batch.expires_at,
            now=self._now,
        )
        with contextlib.closing(check):
            while not check.ended:
                lines = await asyncio.to_thread(check.read_piece)
                if check.problems:
                    continue  # only to find the others
                if not await self._run(lambda conn, lines=lines: add_lines(conn, self._claim, lines)):
                    return True
        now = self._now()
        if check.problems:
            if not await self._run(lambda conn: fail_batch(conn, self._claim, check.problems, now=now)):
                return True
            log.info("batch_failed", batch=batch.id, problems=len(check.problems))
            return False
        await self._run(lambda conn: begin(conn, self._claim, total=check.total, model=check.model, now=now))
        return True

    async def _end_unread(self) -> None:
        def end(conn: Connection) -> None:
            batch = clear_lines(conn, self._claim)
            status = BatchStatus.cancelled if batch.cancelling else BatchStatus.expired
            end_batch(conn, self._claim, status, now=self._now())

        await self._run(end)

    # Progress

    async def _progress(self, batch: Batch) -> bool:
        """Note what has ended, and submit or stop what has not; whether all lines have ended."""
        if batch.status is BatchStatus.finalizing:
            return True
        if not batch.cancelling and not batch.expired and batch.expires_at <= self._now():
            await self._run(lambda conn: start_expiry(conn, self._claim, now=self._now()))
            batch = await self._look()
        stopping = CANCELLED if batch.cancelling else EXPIRED if batch.expired else None
        if stopping is not None:
            await self._run(lambda conn: drop_pending(conn, self._claim, stopping))
        began = time.monotonic()
        found = await self._read(lambda conn: submitted_jobs(conn, batch.id))
        self._pause_s = min(POLL_MAX_S, max(POLL_MIN_S, (time.monotonic() - began) * POLL_SHARE))
        running = [job for job in found if job.status is not None and not job.status.final]
        ended = [_ended(job, batch) for job in found if job.status is None or job.status.final]
        if ended:
            await self._run(lambda conn: end_lines(conn, self._claim, ended))
        if stopping is not None:
            await self._cancel(running)
            return not running
        submitted = await self._submit(batch, self._settings.gateway.batch_window - len(running))
        return not running and not submitted and not await self._pending(batch, 1)

    async def _cancel(self, running: Sequence[LineJob]) -> None:
        for start in range(0, len(running), CANCELS_AT_ONCE):
            part = running[start : start + CANCELS_AT_ONCE]
            await asyncio.gather(*(self._cancel_one(job.job_id) for job in part))

    async def _cancel_one(self, job_id: str) -> None:
        with contextlib.suppress(NotFound):
            await self._services.coordinator.cancel(job_id, reason="its batch was cancelled or has expired")

    async def _submit(self, batch: Batch, free: int) -> int:
        """Submit lines up to `free` of them, as far as there is room; return how many."""
        submitted = 0
        while submitted < free and not await self._tenant_waits(batch.tenant):
            lines = await self._pending(batch, min(CHUNK_JOBS, free - submitted))
            if not lines:
                break
            prepared = await asyncio.to_thread(self._prepare, batch, lines)
            messages, count = await self._run(lambda conn, prepared=prepared: self._accept(conn, prepared))
            self._services.coordinator.dispatcher.publish(messages)
            submitted += count
            if count < len(lines):
                break  # no room, or the batch is to end
        return submitted

    def _prepare(self, batch: Batch, lines: list[Line]) -> list[_Prepared]:
        path = content_path(self._settings.files_dir, batch.input_file_id)
        now = self._now()
        prepared: list[_Prepared] = []
        for line, raw in zip(lines, read_lines(path, lines), strict=True):
            try:
                _custom_id, body = read_line(raw, endpoint=batch.endpoint)
                try:
                    request = request_of(body, self._settings, expires_at=batch.expires_at, now=now)
                except UserError as exc:
                    raise body_fault(exc) from exc
            except LineFault as fault:
                # It was good when it was read first: the settings have changed since, such as a model that is gone.
                error = {"code": fault.code, "message": str(fault)}
                prepared.append(_Prepared(line, None, None, error))
            else:
                details = {"batch_id": batch.id, "line": line.line}
                door = DoorNote(door=Door.batches, model=body.model, details=details)
                prepared.append(_Prepared(line, request, door, None))
        return prepared

    def _accept(self, conn: Connection, prepared: list[_Prepared]) -> tuple[list[Envelope], int]:
        """Give lines their jobs, all or none; return the messages and the number of lines that were dealt with."""
        batch = hold(conn, self._claim)
        if batch.status is not BatchStatus.in_progress:
            return [], 0
        room = room_for_jobs(conn, batch.tenant, queue_max=self._settings.queue_max)
        now = self._now()
        messages: list[Envelope] = []
        broken: list[Ended] = []
        count = 0
        still_pending = {line.line for line in pending_lines(conn, batch.id, limit=len(prepared))}
        for item in prepared:
            if item.line.line not in still_pending:
                continue
            if item.request is None or item.door is None:
                broken.append(Ended(item.line.line, LineStatus.failed, item.error))
            elif room > 0:
                room -= 1
                accepted = accept_within(conn, item.request, tenant=batch.tenant, now=now, door=item.door)
                note_submitted(conn, batch.id, item.line.line, accepted.job_id)
                if accepted.message is not None:
                    messages.append(accepted.message)
            else:
                break
            count += 1
        if broken:
            end_lines(conn, self._claim, broken)
        return messages, count

    async def _pending(self, batch: Batch, limit: int) -> list[Line]:
        return await self._read(lambda conn: pending_lines(conn, batch.id, limit=limit))

    async def _tenant_waits(self, tenant: str) -> bool:
        """Whether the tenant has used up its tokens of the day: the rest of the batch waits for the next one."""
        directory = self._services.directory

        async def used_up() -> bool:
            limit = (await directory.tenant(tenant)).tokens_per_day
            return limit is not None and await directory.tokens_today(tenant, now=self._now()) >= limit

        return await patiently(outage_of(DATABASE), used_up)

    # The end

    async def _finalize(self) -> None:
        batch = await self._run(lambda conn: start_finalizing(conn, self._claim, now=self._now()))
        after = 0
        with Output(self._settings.files_dir, batch) as output:
            while page := await self._read(
                lambda conn, after=after: outcomes(conn, batch.id, after=after, limit=PAGE_LINES)
            ):
                after = page[-1].line
                await asyncio.to_thread(output.write, page)
            answers, errors = await asyncio.to_thread(output.put)
            status = BatchStatus.completed
            if batch.cancelling or batch.expired:
                status = BatchStatus.cancelled if batch.cancelling else BatchStatus.expired
            await self._run(
                lambda conn: end_batch(
                    conn, self._claim, status, output=answers, errors=errors, usage=output.usage, now=self._now()
                )
            )
        log.info("batch_ended", batch=batch.id, status=status.value)

    # The database

    def _now(self) -> float:
        return self._services.database.now()

    async def _look(self) -> Batch:
        return await self._read(lambda conn: look(conn, self._claim))

    async def _run(self, operation: Callable[[Connection], T]) -> T:
        return await patiently(outage_of(DATABASE), lambda: self._services.database.run(operation))

    async def _read(self, operation: Callable[[Connection], T]) -> T:
        return await patiently(outage_of(DATABASE), lambda: self._services.database.read(operation))


def _ended(job: LineJob, batch: Batch) -> Ended:
    """Say how a line ended whose job has."""
    if job.status is None:
        return Ended(job.line, LineStatus.failed, GONE)
    if job.status in (JobStatus.succeeded, JobStatus.refused) or job.error_code == CUT_OFF:
        return Ended(job.line, LineStatus.completed)
    if job.status is JobStatus.cancelled and batch.cancelling:
        return Ended(job.line, LineStatus.failed, CANCELLED)
    if job.status in (JobStatus.cancelled, JobStatus.expired) and batch.expired and not batch.cancelling:
        return Ended(job.line, LineStatus.failed, EXPIRED)
    return Ended(job.line, LineStatus.failed)
