"""What a batch's run does when its process ends anywhere on the way, and when the batch is to end early."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from harness.asgi import gateway_settings
from harness.batch_lines import BODY, ENDPOINT, line, raw
from k2think.gateway.batches.lines import LineFault, request_of
from k2think.gateway.batches.run import BatchRun
from k2think.gateway.batches.runner import BatchRunner
from k2think.gateway.services import Services, open_services
from k2think.schemas.batches import BatchBody, BatchObject, BatchStatus, FilePurpose
from k2think.schemas.jobs import JobError, JobStatus
from k2think.schemas.settings import GatewaySettings
from k2think.store.batch_runs import BatchClaim, any_free, claim_batches, release
from k2think.store.batches import cancel_batch, create_batch, get_batch
from k2think.store.door_tables import batch_requests, batches
from k2think.store.files import NewFile, add_file, list_files, new_file_id
from k2think.store.jobs import request_cancel
from k2think.store.migrate import upgrade
from k2think.store.tables import jobs
from k2think.store.tenants import save_tenant
from sqlalchemy import func, select, update


class Desk:
    """The services of a gateway without workers, and one batch; jobs end when the test says so."""

    def __init__(self, services: Services) -> None:
        self.services = services
        self.batch_id = ""

    async def create(self, content: bytes, *, window: str = "1h") -> None:
        file_id = new_file_id()
        folder = self.services.settings.files_dir
        folder.mkdir(exist_ok=True)
        (folder / file_id).write_bytes(content)
        file = NewFile(file_id, "default", "in.jsonl", FilePurpose.batch, len(content), "0" * 64)
        body = BatchBody(input_file_id=file_id, endpoint=ENDPOINT, completion_window=window)

        def write(conn: Any) -> str:
            add_file(conn, file, now=time.time())
            return create_batch(conn, body, self.services.settings, tenant="default", now=time.time())[0].id

        self.batch_id = await self.services.database.run(write)

    async def claim(self) -> BatchClaim:
        claims = await self.services.database.run(
            lambda conn: claim_batches(conn, owner="test", now=time.time(), lease_s=60, limit=1)
        )
        (claim,) = claims
        return claim

    @asynccontextmanager
    async def running(self) -> AsyncIterator[asyncio.Task[None]]:
        """A run, broken off at the end of the block where it has not ended by itself; its claim is given back."""
        claim = await self.claim()
        task = asyncio.ensure_future(BatchRun(self.services, claim).work())
        try:
            yield task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await self.services.database.run(lambda conn: release(conn, claim))

    async def look(self) -> BatchObject:
        return await self.services.database.read(lambda conn: get_batch(conn, "default", self.batch_id))

    async def job_ids(self) -> list[str]:
        """The jobs of the lines, in order of lines."""
        query = select(batch_requests.c.job_id).where(batch_requests.c.job_id.is_not(None))
        return await self.services.database.read(
            lambda conn: list(conn.execute(query.order_by(batch_requests.c.line)).scalars())
        )

    async def states(self) -> dict[str, int]:
        """How many jobs there are in each state, whosesoever they are."""
        query = select(jobs.c.status, func.count()).group_by(jobs.c.status)
        return await self.services.database.read(lambda conn: {row[0]: row[1] for row in conn.execute(query)})

    async def end_jobs(self, ids: list[str]) -> None:
        """Let jobs fail."""
        error = JobError(code="no_answer", message="none")
        await self.services.database.run(
            lambda conn: [
                request_cancel(conn, job_id, now=time.time(), status=JobStatus.failed, error=error) for job_id in ids
            ]
        )

    async def until(self, condition: Callable[[BatchObject], bool]) -> BatchObject:
        async with asyncio.timeout(30):
            while not condition(batch := await self.look()):
                await asyncio.sleep(0.02)
        return batch

    async def until_jobs(self, count: int) -> list[str]:
        async with asyncio.timeout(30):
            while len(ids := await self.job_ids()) < count:
                await asyncio.sleep(0.02)
        return ids

    async def written(self) -> list[dict[str, Any]]:
        """All lines of both files."""
        batch = await self.look()
        names = [name for name in (batch.output_file_id, batch.error_file_id) if name]
        found = [(self.services.settings.files_dir / name).read_bytes().splitlines() for name in names]
        return [json.loads(item) for part in found for item in part]


@pytest.fixture
async def desk(tmp_path: Path, redis_server: Any) -> AsyncIterator[Desk]:
    url = f"sqlite:///{tmp_path / 'k2think.db'}"
    upgrade(url)
    settings = gateway_settings(
        tmp_path, database_url=url, broker_url=redis_server.url, gateway=GatewaySettings(batch_window=60)
    )
    async with open_services(settings) as services:
        yield Desk(services)


async def test_a_run_that_is_broken_off_is_taken_up_without_a_second_job(desk: Desk) -> None:
    names = [str(number) for number in range(150)]
    await desk.create(raw(*map(line, names)))
    async with desk.running():
        await desk.until(lambda batch: batch.status is BatchStatus.in_progress)
    async with desk.running():
        first = await desk.until_jobs(60)
        await asyncio.sleep(0.5)
        assert await desk.job_ids() == first, "no more than the window"
    await desk.end_jobs(first[:30])
    async with desk.running():
        assert len(await desk.until_jobs(90)) == 90
        await desk.until(lambda batch: batch.request_counts.failed == 30)
    ended: set[str] = set()
    for _ in range(10):
        async with desk.running():
            await asyncio.sleep(0.3)
            now = set(await desk.job_ids()) - ended
            await desk.end_jobs(sorted(now))
            ended |= now
            if (await desk.look()).status.final:
                break

    async with asyncio.timeout(30):
        while not (await desk.look()).status.final:
            async with desk.running() as run:
                await run

    batch = await desk.look()
    assert batch.status is BatchStatus.completed
    assert batch.request_counts.model_dump() == {"total": 150, "completed": 0, "failed": 150}
    assert await desk.states() == {"failed": 150}
    assert [item["custom_id"] for item in await desk.written()] == names


async def test_a_gateway_that_stops_gives_its_batches_back(desk: Desk) -> None:
    await desk.create(raw(line("a")))
    free = partial(desk.services.database.read, lambda conn: any_free(conn, now=time.time(), lease_s=60))
    assert await free()
    runner = asyncio.ensure_future(BatchRunner(desk.services).run())
    await desk.until_jobs(1)
    assert not await free()

    runner.cancel()
    await asyncio.gather(runner, return_exceptions=True)

    assert await free()


async def test_a_gateway_that_lost_its_claim_stops_working(desk: Desk) -> None:
    await desk.create(raw(line("a"), line("b")))
    runner = BatchRunner(desk.services)
    task = asyncio.ensure_future(runner.run())
    ids = await desk.until_jobs(2)
    # Another gateway, to which the lease looked over.
    taken = update(batches).values(fence=batches.c.fence + 1, lease_until=time.time() + 60)
    await desk.services.database.run(lambda conn: conn.execute(taken))
    await desk.end_jobs(ids)

    async with asyncio.timeout(30):
        while runner.working:
            await asyncio.sleep(0.02)

    batch = await desk.look()
    assert (batch.status, batch.request_counts.failed) == (BatchStatus.in_progress, 0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_an_output_that_was_never_told_of_is_an_orphan_and_no_more(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    await desk.create(raw(line("a"), line("b")))

    def killed(*_: Any, **__: Any) -> None:
        raise RuntimeError("killed")  # everything before this line has happened, nothing after it

    async with desk.running() as run:
        await desk.end_jobs(await desk.until_jobs(2))
        monkeypatch.setattr("k2think.gateway.batches.run.end_batch", killed)
        with pytest.raises(RuntimeError, match="killed"):
            await run
    assert (await desk.look()).status is BatchStatus.finalizing
    monkeypatch.undo()
    async with desk.running() as run:
        await run

    assert [item["custom_id"] for item in await desk.written()] == ["a", "b"]
    rows = await desk.services.database.read(lambda conn: list_files(conn, "default", limit=9))
    assert len(rows) == 2
    assert len(list(desk.services.settings.files_dir.iterdir())) == 3, "input, errors, and one orphan"


async def test_a_cancelled_batch_cancels_its_jobs_and_keeps_those_that_ended(desk: Desk) -> None:
    names = [str(number) for number in range(100)]
    await desk.create(raw(*map(line, names)))
    async with desk.running():
        ids = await desk.until_jobs(60)
        await desk.end_jobs(ids[:10])
        await desk.services.database.run(lambda conn: cancel_batch(conn, "default", desk.batch_id, now=time.time()))
        batch = await desk.until(lambda batch: batch.status.final)

    assert batch.status is BatchStatus.cancelled
    assert batch.request_counts.failed == 100
    written = await desk.written()
    assert [item["custom_id"] for item in written] == names
    assert [item["response"]["status_code"] for item in written[:10]] == [422] * 10
    assert {item["error"]["code"] for item in written[10:]} == {"batch_cancelled"}
    assert len(await desk.job_ids()) == 60
    assert await desk.states() == {"failed": 10, "cancelled": 50}


@pytest.mark.parametrize("asked", ["cancelled", "expired"])
async def test_a_batch_that_ends_before_it_was_read_has_no_lines(desk: Desk, asked: str) -> None:
    await desk.create(raw(line("a")), window="1s" if asked == "expired" else "1h")
    if asked == "cancelled":
        await desk.services.database.run(lambda conn: cancel_batch(conn, "default", desk.batch_id, now=time.time()))
    else:
        await asyncio.sleep(1.1)
    async with desk.running() as run:
        await run
    batch = await desk.look()
    assert (batch.status, batch.request_counts.total) == (asked, 0)
    assert (batch.output_file_id, batch.error_file_id, batch.usage) == (None, None, None)


async def test_a_tenants_limits_make_a_batch_wait(desk: Desk) -> None:
    await desk.create(raw(*(line(str(number)) for number in range(20))))
    database = desk.services.database
    await database.run(lambda conn: save_tenant(conn, "default", {"jobs_in_flight": 5}, now=time.time()))
    async with desk.running():
        ids = await desk.until_jobs(4)
        await asyncio.sleep(0.5)
        assert await desk.job_ids() == ids, "one of five is left to others"
        await desk.end_jobs(ids)
        ids = await desk.until_jobs(8)
    limits = {"jobs_in_flight": None, "tokens_per_day": 10}
    await database.run(lambda conn: save_tenant(conn, "default", limits, now=time.time()))
    await database.run(lambda conn: conn.execute(update(jobs).where(jobs.c.id == ids[0]).values(tokens=10)))
    await asyncio.sleep(3.1)  # what is known of tenants is remembered for so long
    async with desk.running():
        await asyncio.sleep(0.7)
        assert await desk.job_ids() == ids, "the tokens of the day are used up"
        await database.run(lambda conn: save_tenant(conn, "default", {"tokens_per_day": None}, now=time.time()))
        assert len(await desk.until_jobs(20)) == 20


async def test_a_model_that_is_gone_fails_its_lines_alone(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    other = {**BODY, "model": "k2think-paper"}
    await desk.create(raw(line("a"), line("b", body=other), line("c")))

    def gone(body: Any, settings: Any, **times: Any) -> Any:
        if body.model == "k2think-paper":
            raise LineFault("model_not_found", "the model is gone")
        return request_of(body, settings, **times)

    # The validation reads lines with a function of its own module, which still knows the model.
    monkeypatch.setattr("k2think.gateway.batches.run.request_of", gone)
    async with desk.running() as run:
        await desk.end_jobs(await desk.until_jobs(2))
        await run

    written = await desk.written()
    assert [item["custom_id"] for item in written] == ["a", "b", "c"]
    assert written[1]["error"] == {"code": "model_not_found", "message": "the model is gone"}


async def test_an_input_that_cannot_be_read_here_is_left_to_another(desk: Desk) -> None:
    await desk.create(raw(line("a")))
    for content in desk.services.settings.files_dir.iterdir():
        content.rename(content.with_suffix(".away"))
    async with desk.running() as run:
        with pytest.raises(OSError):
            await run
    assert (await desk.look()).status is BatchStatus.validating
    for content in desk.services.settings.files_dir.iterdir():
        content.rename(content.with_suffix(""))
    async with desk.running():
        await desk.until(lambda batch: batch.status is BatchStatus.in_progress)
