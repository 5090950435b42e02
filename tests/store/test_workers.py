"""Processes at work: one row each, renewed, removed at the end, forgotten when nothing was heard for long."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from k2think.store.database import Database
from k2think.store.door_tables import workers
from k2think.store.workers import WorkerRow, forget_workers, remove_worker, seen_workers, sign_of_life

NOW = 1_795_000_000.0
ROW = WorkerRow(
    worker="generator-a-1",
    role="generator",
    host="a",
    pid=1,
    version="0.1.0",
    backend="fast",
    capacity=100,
    running=3,
    draining=False,
    started_at=NOW,
    seen_at=NOW,
    metrics='{"x": []}',
)


@pytest.fixture
def empty(database: Database) -> Iterator[Database]:
    """The database without workers; PostgreSQL's is shared by the tests."""
    database.run_sync(lambda conn: conn.execute(workers.delete()))
    yield database
    database.run_sync(lambda conn: conn.execute(workers.delete()))


def seen(database: Database, since: float) -> list[WorkerRow]:
    return database.read_sync(lambda conn: seen_workers(conn, since=since))


def write(database: Database, *rows: WorkerRow) -> None:
    for row in rows:
        database.run_sync(lambda conn, one=row: sign_of_life(conn, one))


def test_a_sign_of_life_comes_back_as_it_was_written(empty: Database) -> None:
    write(empty, ROW)

    assert seen(empty, NOW) == [ROW]


def test_a_later_sign_renews_the_same_row(empty: Database) -> None:
    later = replace(ROW, running=0, draining=True, seen_at=NOW + 3, metrics="{}")

    write(empty, ROW, later)

    assert seen(empty, NOW) == [later]


def test_only_those_heard_of_lately_are_seen_by_role(empty: Database) -> None:
    silent = replace(ROW, worker="generator-a-2", seen_at=NOW - 20)
    planner = replace(ROW, worker="planner-a-3", role="planner", backend=None, seen_at=NOW + 1)

    write(empty, planner, silent, replace(ROW, role="verifier"))

    assert [row.role for row in seen(empty, NOW - 15)] == ["planner", "verifier"]
    assert silent in seen(empty, NOW - 20)


def test_a_process_that_stops_takes_its_own_row_away(empty: Database) -> None:
    other = replace(ROW, worker="generator-b-9")
    write(empty, ROW, other)

    empty.run_sync(lambda conn: remove_worker(conn, ROW.worker))

    assert seen(empty, 0) == [other]


def test_rows_of_the_long_dead_are_forgotten(empty: Database) -> None:
    write(empty, ROW, replace(ROW, worker="generator-b-9", seen_at=NOW - 90_000))

    assert empty.run_sync(lambda conn: forget_workers(conn, before=NOW - 86_400)) == 1
    assert seen(empty, 0) == [ROW]
