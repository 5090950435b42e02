"""How things stand, counted: the values, and that no count reads the history."""

from __future__ import annotations

import re
from typing import Any

import pytest
from k2think.schemas.batches import BatchStatus
from k2think.schemas.ids import uuid7
from k2think.schemas.jobs import JobStatus
from k2think.schemas.messages import GenerateCandidate
from k2think.schemas.outcomes import StepFailure
from k2think.schemas.progress import Ending, NewStep
from k2think.store.database import Database
from k2think.store.deliveries import add_delivery, claim_due, mark_failed
from k2think.store.door_tables import batches, deliveries
from k2think.store.gauges import QUERIES, Gauges, QueueGauges, read_gauges
from k2think.store.steps import fail_step
from sqlalchemy import Connection, text


@pytest.fixture
def empty(story: Any) -> Any:
    """The story, with nothing of the doors in its database; PostgreSQL's is shared by the tests."""

    def clear(conn: Connection) -> None:
        conn.execute(batches.delete())
        conn.execute(deliveries.delete())

    story.database.run_sync(clear)
    yield story
    story.database.run_sync(clear)


def look(story: Any) -> Gauges:
    return story.database.read_sync(lambda conn: read_gauges(conn, now=story.now))


def test_an_empty_database_has_nothing_to_do(empty: Any) -> None:
    assert look(empty) == Gauges({}, {}, 0, {}, 0, {"waiting": 0, "retrying": 0})


def test_what_waits_and_runs_is_counted_by_queue_with_the_oldest_ones_age(empty: Any) -> None:
    first = empty.accept()
    empty.now += 7
    empty.claimed(empty.accept())
    empty.create(
        first.job_id,
        NewStep("generate.0", GenerateCandidate(messages=(), candidate=0)),
        NewStep("generate.1", GenerateCandidate(messages=(), candidate=1, backend="fast")),
    )
    empty.now += 2

    found = look(empty)

    assert found.queues == {
        "safety": QueueGauges(ready=1, running=1, oldest_ready_s=9.0),
        "generator": QueueGauges(ready=1, running=0, oldest_ready_s=2.0),
        "generator.fast": QueueGauges(ready=1, running=0, oldest_ready_s=2.0),
    }
    assert found.jobs == {"queued": 1, "running": 1}


def test_a_step_in_its_back_off_waits_but_is_not_late(empty: Any) -> None:
    claim = empty.claimed(empty.accept())
    failure = StepFailure(code="backend_overloaded", message="503")
    empty.database.run_sync(
        lambda conn: fail_step(conn, claim, failure=failure, call=None, retry_at=empty.now + 5, now=empty.now)
    )

    assert look(empty).queues == {"safety": QueueGauges(ready=1, running=0, oldest_ready_s=0.0)}

    empty.now += 8
    assert look(empty).queues["safety"].oldest_ready_s == pytest.approx(3.0)


def test_what_has_ended_counts_no_more_but_dead_letters_do(empty: Any) -> None:
    message = empty.accept()
    claim = empty.claimed(message)
    failure = StepFailure(code="dead_letter", message="started three times")
    empty.database.run_sync(
        lambda conn: fail_step(conn, claim, failure=failure, call=None, retry_at=None, now=empty.now)
    )
    empty.end(message.job_id, Ending(status=JobStatus.failed))
    empty.end(empty.accept().job_id, Ending(status=JobStatus.cancelled))

    found = look(empty)

    assert (found.queues, found.jobs, found.dead_letter_steps) == ({}, {}, 1)


def add_batch(conn: Connection, status: BatchStatus, **counts: int) -> None:
    required: dict[str, Any] = {
        "tenant": "default",
        "request_digest": "",
        "endpoint": "/v1/chat/completions",
        "input_file_id": "file-1",
        "completion_window": "24h",
        "metadata": "{}",
        "fence": 0,
        "created_at": 0,
        "expires_at": 0,
    }
    conn.execute(batches.insert().values(id=f"batch_{uuid7()}", status=status.value, **required, **counts))


def test_open_batches_are_counted_with_their_open_lines(empty: Any) -> None:
    def fill(conn: Connection) -> None:
        add_batch(conn, BatchStatus.in_progress, total=10, completed=3, failed=1)
        add_batch(conn, BatchStatus.in_progress, total=5, completed=0, failed=0)
        add_batch(conn, BatchStatus.validating, total=0, completed=0, failed=0)
        add_batch(conn, BatchStatus.completed, total=100, completed=90, failed=0)

    empty.database.run_sync(fill)

    found = look(empty)

    assert found.batches == {"in_progress": 2, "validating": 1}
    assert found.batch_lines == 11


def test_webhooks_that_failed_once_are_told_from_those_that_wait(empty: Any) -> None:
    ended, running = empty.accept().job_id, empty.accept().job_id
    empty.end(ended, Ending(status=JobStatus.cancelled))

    def ask_and_fail(conn: Connection) -> None:
        for job_id in (ended, running):
            add_delivery(conn, tenant="default", subject="job", subject_id=job_id, now=empty.now)
        (claim,) = claim_due(conn, now=empty.now, lease_s=10, limit=10)
        mark_failed(conn, claim, error="503", now=empty.now, due_at=empty.now + 60)

    empty.database.run_sync(ask_and_fail)

    assert look(empty).deliveries == {"waiting": 1, "retrying": 1}


@pytest.mark.parametrize("name", QUERIES)
def test_no_count_reads_a_table_from_end_to_end(database: Database, name: str) -> None:
    def plan(conn: Connection) -> list[str]:
        if conn.dialect.name == "postgresql":
            # Tables of a few rows are always read whole; the question is whether there is another way.
            conn.execute(text("SET LOCAL enable_seqscan = off"))
        words = "EXPLAIN" if conn.dialect.name == "postgresql" else "EXPLAIN QUERY PLAN"
        query = QUERIES[name].params(now=0.0) if name == "ready" else QUERIES[name]
        asked = query.compile(conn, compile_kwargs={"literal_binds": True})
        return [str(row[-1]) for row in conn.exec_driver_sql(f"{words} {asked}")]

    steps = database.read_sync(plan)

    whole = [step for step in steps if re.search(r"Seq Scan|^SCAN (?!.*USING)", step)]
    assert not whole, steps
    assert any("ix_" in step for step in steps), steps
