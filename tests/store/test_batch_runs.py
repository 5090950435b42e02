"""Batches are worked on by one process at a time, under a fence; each line gets one job and one end."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from k2think.schemas.batches import (
    BatchBody,
    BatchObject,
    BatchProblem,
    BatchStatus,
    BatchUsage,
    FilePurpose,
    LineStatus,
    OutputTokensDetails,
)
from k2think.schemas.jobs import JobError, JobStatus
from k2think.schemas.settings import Settings
from k2think.store.batch_lines import (
    Ended,
    NewLine,
    add_lines,
    drop_pending,
    end_lines,
    note_submitted,
    outcomes,
    pending_lines,
    room_for_jobs,
    submitted_jobs,
)
from k2think.store.batch_runs import (
    BatchClaim,
    ClaimLost,
    any_free,
    begin,
    claim_batches,
    clear_lines,
    end_batch,
    fail_batch,
    hold,
    look,
    output_file,
    release,
    renew,
    start_expiry,
    start_finalizing,
)
from k2think.store.batches import cancel_batch, create_batch, get_batch
from k2think.store.door_tables import batch_requests, batches, files, tenants
from k2think.store.files import NewFile, add_file, get_file, new_file_id
from k2think.store.jobs import request_cancel
from k2think.store.tenants import save_tenant
from sqlalchemy import text

from .conftest import Story

if TYPE_CHECKING:
    from k2think.store.database import Database

ENDPOINT = "/v1/chat/completions"
SETTINGS = Settings(_env_file=None)  # pyright: ignore[reportCallIssue]
USAGE = BatchUsage(
    input_tokens=1, output_tokens=2, output_tokens_details=OutputTokensDetails(reasoning_tokens=0), total_tokens=3
)


@pytest.fixture(autouse=True)
def empty(database: Database) -> None:
    for table in (batch_requests, batches, files, tenants):
        database.run_sync(lambda conn, table=table: conn.execute(table.delete()))


class Work:
    """One batch, and the words for what is done to it."""

    def __init__(self, story: Story) -> None:
        self.story = story
        self.database = story.database
        file = NewFile(
            id=new_file_id(),
            tenant="default",
            filename="in.jsonl",
            purpose=FilePurpose.batch,
            bytes=10,
            sha256="0" * 64,
        )
        body = BatchBody(input_file_id=file.id, endpoint=ENDPOINT, completion_window="1h")
        self.run(lambda conn: add_file(conn, file, now=story.now))
        self.batch_id = self.run(lambda conn: create_batch(conn, body, SETTINGS, tenant="default", now=story.now))[0].id

    def run(self, operation: Any) -> Any:
        return self.database.run_sync(operation)

    def claim(self, owner: str = "gateway-1") -> list[BatchClaim]:
        return self.run(lambda conn: claim_batches(conn, owner=owner, now=self.story.now, lease_s=10.0, limit=5))

    def claimed(self, owner: str = "gateway-1") -> BatchClaim:
        (claim,) = self.claim(owner)
        return claim

    def begun(self, lines: int) -> BatchClaim:
        """Claim it and note that many lines."""
        claim = self.claimed()
        new = [NewLine(number, f"r{number}", number * 10, 9) for number in range(1, lines + 1)]
        assert self.run(lambda conn: add_lines(conn, claim, new))
        self.run(lambda conn: begin(conn, claim, total=lines, model="k2think", now=self.story.now))
        return claim

    def submit(self, line: int) -> str:
        job_id = self.story.accept().job_id
        assert self.run(lambda conn: note_submitted(conn, self.batch_id, line, job_id))
        return job_id

    def cancel_job(self, job_id: str) -> None:
        error = JobError(code="cancelled", message="")
        self.run(lambda conn: request_cancel(conn, job_id, now=self.story.now, status=JobStatus.cancelled, error=error))

    @property
    def seen(self) -> BatchObject:
        return self.database.read_sync(lambda conn: get_batch(conn, "default", self.batch_id))

    @property
    def counts(self) -> tuple[int, int, int]:
        counts = self.seen.request_counts
        return counts.total, counts.completed, counts.failed


@pytest.fixture
def work(story: Story) -> Work:
    return Work(story)


def free(work: Work) -> bool:
    return work.database.read_sync(lambda conn: any_free(conn, now=work.story.now, lease_s=10.0))


def test_a_lease_of_before_the_clock_was_set_back_holds_nobody_up(work: Work) -> None:
    """Given a gateway that died, and a clock that was then set back by an hour, then its batch does not wait for an hour."""
    dead = work.claimed()
    work.story.now -= 3600
    assert free(work)
    (claim,) = work.claim("gateway-2")

    assert claim.fence > dead.fence
    assert not free(work)
    assert work.run(lambda conn: renew(conn, [dead], now=work.story.now, lease_s=10.0)) == [dead]


def test_a_batch_has_one_worker_until_its_lease_is_over(work: Work) -> None:
    assert free(work)
    first = work.claimed()
    assert not free(work)
    assert work.claim("gateway-2") == []
    work.story.now += 9
    assert work.run(lambda conn: renew(conn, [first], now=work.story.now, lease_s=10.0)) == []
    work.story.now += 9
    assert work.claim("gateway-2") == []

    work.story.now += 2
    assert free(work)
    second = work.claimed("gateway-2")

    assert second.fence == first.fence + 1
    assert work.run(lambda conn: renew(conn, [first, second], now=work.story.now, lease_s=10.0)) == [first]
    work.run(lambda conn: release(conn, first))
    assert not free(work), "an old claim gives nothing back"
    work.run(lambda conn: release(conn, second))
    assert free(work)


def test_an_old_claim_writes_nothing(work: Work) -> None:
    old = work.begun(2)
    work.run(lambda conn: release(conn, old))
    work.claimed("gateway-2")
    error = {"code": "x"}
    for operation in (
        lambda conn: look(conn, old),
        lambda conn: hold(conn, old),
        lambda conn: clear_lines(conn, old),
        lambda conn: add_lines(conn, old, [NewLine(3, "r3", 0, 1)]),
        lambda conn: begin(conn, old, total=9, model=None, now=0.0),
        lambda conn: fail_batch(conn, old, [], now=0.0),
        lambda conn: end_lines(conn, old, [Ended(1, LineStatus.completed)]),
        lambda conn: drop_pending(conn, old, error),
        lambda conn: start_expiry(conn, old, now=0.0),
        lambda conn: start_finalizing(conn, old, now=0.0),
        lambda conn: end_batch(conn, old, BatchStatus.completed, now=0.0),
    ):
        with pytest.raises(ClaimLost):
            work.run(operation)
    assert work.counts == (2, 0, 0)
    assert work.seen.status is BatchStatus.in_progress


def test_a_validation_that_is_begun_anew_finds_a_clean_table(work: Work) -> None:
    claim = work.claimed()
    lines = [NewLine(1, "a", 0, 5), NewLine(2, "b", 6, 5)]
    assert work.run(lambda conn: add_lines(conn, claim, lines))
    assert work.run(lambda conn: add_lines(conn, claim, lines)), "a repeated transaction changes nothing"
    assert len(work.run(lambda conn: pending_lines(conn, work.batch_id, limit=9))) == 2

    work.run(lambda conn: clear_lines(conn, claim))
    assert work.run(lambda conn: pending_lines(conn, work.batch_id, limit=9)) == []
    assert work.run(lambda conn: add_lines(conn, claim, [NewLine(1, "b", 0, 5)]))
    work.run(lambda conn: begin(conn, claim, total=1, model="k2think", now=work.story.now))

    work.run(lambda conn: clear_lines(conn, claim))
    assert len(work.run(lambda conn: pending_lines(conn, work.batch_id, limit=9))) == 1, "validated lines stay"
    assert not work.run(lambda conn: add_lines(conn, claim, [NewLine(2, "c", 6, 5)]))
    assert not work.run(lambda conn: fail_batch(conn, claim, [], now=work.story.now))
    assert (work.seen.status, work.seen.model, work.counts) == (BatchStatus.in_progress, "k2think", (1, 0, 0))


def test_a_bad_input_ends_the_batch_with_its_faults(work: Work) -> None:
    claim = work.claimed()
    work.run(lambda conn: add_lines(conn, claim, [NewLine(1, "a", 0, 5)]))
    problem = BatchProblem(code="invalid_json_line", line=2, message="no JSON", param=None)

    assert work.run(lambda conn: fail_batch(conn, claim, [problem], now=work.story.now))

    assert work.seen.status is BatchStatus.failed
    assert work.seen.errors is not None
    assert work.seen.errors.data == [problem]
    assert not free(work)
    with pytest.raises(ClaimLost):
        work.run(lambda conn: look(conn, claim))


def test_each_line_gets_one_job_and_one_end(work: Work) -> None:
    claim = work.begun(3)
    first, second = work.submit(1), work.submit(2)
    assert not work.run(lambda conn: note_submitted(conn, work.batch_id, 1, second)), "it has a job"
    work.cancel_job(second)
    found = work.run(lambda conn: submitted_jobs(conn, work.batch_id))
    assert [(job.line, job.job_id, job.status, job.error_code) for job in found] == [
        (1, first, JobStatus.queued, None),
        (2, second, JobStatus.cancelled, "cancelled"),
    ]
    assert [line.line for line in work.run(lambda conn: pending_lines(conn, work.batch_id, limit=9))] == [3]

    ends = [Ended(1, LineStatus.completed), Ended(2, LineStatus.failed)]
    for _ in range(2):
        work.run(lambda conn: end_lines(conn, claim, ends))
    assert work.counts == (3, 1, 1)
    work.run(lambda conn: end_lines(conn, claim, [Ended(1, LineStatus.failed)]))
    for _ in range(2):
        work.run(lambda conn: drop_pending(conn, claim, {"code": "batch_cancelled"}))
    assert work.counts == (3, 1, 2)

    rows = work.run(lambda conn: outcomes(conn, work.batch_id, after=0, limit=9))
    assert [(row.line, row.custom_id, row.status, row.job_id) for row in rows] == [
        (1, "r1", LineStatus.completed, first),
        (2, "r2", LineStatus.failed, second),
        (3, "r3", LineStatus.failed, None),
    ]
    assert json.loads(rows[1].result)["status"] == "cancelled"
    assert json.loads(rows[2].error) == {"code": "batch_cancelled"}
    assert [row.line for row in work.run(lambda conn: outcomes(conn, work.batch_id, after=1, limit=1))] == [2]


def test_a_job_that_is_gone_is_told(work: Work) -> None:
    work.begun(1)
    job_id = work.submit(1)
    work.run(lambda conn: conn.execute(text("DELETE FROM jobs WHERE id = :id"), {"id": job_id}))
    (job,) = work.run(lambda conn: submitted_jobs(conn, work.batch_id))
    assert (job.job_id, job.status) == (job_id, None)


@pytest.mark.parametrize("asked", ["", "cancel", "expiry"])
def test_the_end_comes_with_its_files(work: Work, asked: str) -> None:
    claim = work.begun(1)
    if asked == "cancel":
        work.run(lambda conn: cancel_batch(conn, "default", work.batch_id, now=work.story.now))
    if asked == "expiry":
        work.run(lambda conn: start_expiry(conn, claim, now=work.story.now))
        work.run(lambda conn: start_expiry(conn, claim, now=work.story.now + 9))
    work.run(lambda conn: end_lines(conn, claim, [Ended(1, LineStatus.completed)]))
    batch = work.run(lambda conn: start_finalizing(conn, claim, now=work.story.now))
    assert (batch.status, batch.cancelling, batch.expired) == (
        BatchStatus.cancelling if asked == "cancel" else BatchStatus.finalizing,
        asked == "cancel",
        asked == "expiry",
    )
    status = {"": BatchStatus.completed, "cancel": BatchStatus.cancelled, "expiry": BatchStatus.expired}[asked]
    file = output_file(batch, new_file_id(), "out.jsonl", size=5, sha256="1" * 64)

    work.run(lambda conn: end_batch(conn, claim, status, output=file, usage=USAGE, now=work.story.now + 1))

    seen = work.seen
    assert (seen.status, seen.output_file_id, seen.error_file_id, seen.usage) == (status, file.id, None, USAGE)
    assert getattr(seen, f"{status}_at") == int(work.story.now + 1)
    stored = work.run(lambda conn: get_file(conn, "default", file.id))
    assert (stored.purpose, stored.bytes, stored.expires_at) == (FilePurpose.batch_output, 5, None)
    with pytest.raises(ClaimLost):
        work.run(lambda conn: end_batch(conn, claim, status, output=file, now=work.story.now + 2))


def test_a_batch_cancelled_before_it_was_read_is_no_longer_validated(work: Work) -> None:
    claim = work.claimed()
    work.run(lambda conn: cancel_batch(conn, "default", work.batch_id, now=work.story.now))
    assert not work.run(lambda conn: add_lines(conn, claim, [NewLine(1, "a", 0, 5)]))
    work.run(lambda conn: begin(conn, claim, total=1, model=None, now=work.story.now))
    batch = work.run(lambda conn: look(conn, claim))
    assert (batch.status, batch.cancelling, batch.validated) == (BatchStatus.cancelling, True, False)


def test_batches_leave_room_for_others(work: Work) -> None:
    def room(queue_max: int, tenant: str = "default") -> int:
        return work.run(lambda conn: room_for_jobs(conn, tenant, queue_max=queue_max))

    assert (room(100), room(1)) == (80, 1)
    for _ in range(3):
        work.story.accept()
    work.story.accept(tenant="other")
    assert (room(100), room(5), room(4)) == (76, 0, 0)

    work.run(lambda conn: save_tenant(conn, "default", {"jobs_in_flight": 10}, now=work.story.now))
    assert (room(100), room(10), room(100, "other")) == (5, 4, 76)
    work.run(lambda conn: save_tenant(conn, "default", {"jobs_in_flight": 1}, now=work.story.now))
    assert room(100) == 0
