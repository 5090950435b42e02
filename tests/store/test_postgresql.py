"""PostgreSQL: its clock, restarts, silence, left locks, deadlocks."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from harness.notes import keys, note
from k2think.schemas.errors import StoreUnavailable
from k2think.store import postgresql
from k2think.store.database import Database
from k2think.store.migrate import upgrade
from sqlalchemy import Connection, text


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
def test_the_time_is_the_servers_and_not_this_machines(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    database.run_sync(lambda conn: None)
    true = time.time()

    monkeypatch.setattr(time, "time", lambda: 0.0)

    assert true <= database.now() + 1 < true + 60


def test_the_connection_comes_back_after_the_server_does(postgres_server: Any) -> None:
    url = postgres_server.new_database()
    upgrade(url)
    database = Database(url)
    database.run_sync(lambda conn: note(conn, 1.0, key="before"))

    postgres_server.stop()
    try:
        with pytest.raises(StoreUnavailable):
            database.run_sync(lambda conn: note(conn, 2.0, key="meanwhile"))
        with pytest.raises(StoreUnavailable):
            database.read_sync(keys)
    finally:
        postgres_server.start()
    database.run_sync(lambda conn: note(conn, 3.0, key="after"))

    assert database.read_sync(keys) == {"before", "after"}
    database.close()


def test_a_restart_between_two_operations_is_not_noticed(postgres_server: Any) -> None:
    url = postgres_server.new_database()
    upgrade(url)
    database = Database(url)
    database.run_sync(lambda conn: note(conn, 1.0, key="before"))

    postgres_server.restart()
    database.run_sync(lambda conn: note(conn, 2.0, key="after"))

    assert database.read_sync(keys) == {"before", "after"}
    database.close()


def test_a_server_that_does_not_answer_is_given_up(postgres_server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a session of the server that stands still with its connection open, then the operation runs on another one."""
    monkeypatch.setattr(postgresql, "ANSWER_S", 1.0)
    database = Database(postgres_server.new_database())
    asks = text("SELECT pg_backend_pid()")
    try:
        silent: int = database.run_sync(lambda conn: conn.execute(asks).scalar_one())
        os.kill(silent, signal.SIGSTOP)
        try:
            other: int = database.run_sync(lambda conn: conn.execute(asks).scalar_one())
        finally:
            os.kill(silent, signal.SIGCONT)

        assert other != silent
    finally:
        database.close()


def test_a_session_that_was_left_in_a_transaction_gives_up_its_locks(
    postgres_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given an operation that stands still, then others go on, and it runs again when it moves."""
    monkeypatch.setattr(postgresql, "ANSWER_S", 1.0)
    url = postgres_server.new_database()
    upgrade(url)
    lost, database = Database(url), Database(url)
    locked, done = threading.Event(), threading.Event()

    def lock(conn: Connection) -> None:
        conn.execute(text("LOCK TABLE jobs"))
        locked.set()
        done.wait(30)
        conn.execute(text("SELECT 1"))

    with ThreadPoolExecutor(1) as pool, contextlib.closing(lost), contextlib.closing(database):
        losing = pool.submit(lost.run_sync, lock)
        locked.wait(30)
        monkeypatch.setattr(postgresql, "ANSWER_S", 30.0)
        assert database.run_sync(lambda conn: note(conn, 1.0, key="after")) is None
        done.set()
        assert losing.result(30) is None, "it runs again"


async def test_a_deadlock_is_run_again(postgres_server: Any) -> None:
    """Two operations that take two rows in opposite order: one is chosen by the server to fail, and both succeed."""
    url = postgres_server.new_database()
    upgrade(url)
    database = Database(url)
    for key in ("a", "b"):
        database.run_sync(lambda conn, key=key: note(conn, 0.0, key=key))
    meeting = threading.Barrier(2)
    runs: list[str] = []

    def bump(first: str, second: str) -> Any:
        def operation(conn: Connection) -> None:
            runs.append(first)
            statement = text("UPDATE jobs SET created_at = created_at + 1 WHERE id = :key")
            conn.execute(statement, {"key": first})
            with contextlib.suppress(threading.BrokenBarrierError):  # the second run is alone
                meeting.wait(5)
            conn.execute(statement, {"key": second})

        return operation

    def break_when_met() -> None:
        meeting.abort()

    both = asyncio.gather(database.run(bump("a", "b")), database.run(bump("b", "a")))
    while len(runs) < 3:
        await asyncio.sleep(0.01)
    break_when_met()
    await both

    totals = await database.read(lambda conn: conn.execute(text("SELECT sum(created_at) FROM jobs")).scalar_one())
    assert totals == 4.0
    database.close()
