"""Transactions, group commit, errors and reconnection."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import subprocess
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

import pytest
from harness.notes import keys, note
from k2think.schemas.errors import ConfigurationError, NotFound, StoreError, StoreUnavailable
from k2think.store.database import Database
from k2think.store.migrate import check, upgrade
from k2think.store.sqlite import SqliteRunner
from sqlalchemy import Connection, text

SECRET = "s3cr3t-pa55"


async def test_an_operation_is_all_or_nothing(database: Database) -> None:
    def fails_halfway(conn: Connection) -> None:
        note(conn, 1.0, key="half")
        raise NotFound("on purpose")

    with pytest.raises(NotFound, match="on purpose"):
        await database.run(fails_halfway)

    assert await database.read(keys) == set()


async def test_a_failing_operation_hurts_only_itself(database: Database) -> None:
    """Given many operations that wait together, when every third fails, then exactly the others are there."""

    def operation(number: int) -> Any:
        def run(conn: Connection) -> int:
            note(conn, number, key=f"k{number:03}")
            if number % 3 == 0:
                conn.execute(text("INSERT INTO jobs (id) VALUES ('breaks a NOT NULL')"))
            return number

        return run

    outcomes = await asyncio.gather(*(database.run(operation(n)) for n in range(60)), return_exceptions=True)

    for number, outcome in enumerate(outcomes):
        assert isinstance(outcome, StoreError) if number % 3 == 0 else outcome == number
    assert await database.read(keys) == {f"k{n:03}" for n in range(60) if n % 3}


async def test_waiting_operations_share_a_commit(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'group.db'}"
    upgrade(url)
    runner = SqliteRunner(url, tmp_path / "group.db", create_folder=False)
    started, release = threading.Event(), threading.Event()
    first = runner.submit(lambda conn: started.set() or release.wait(30))
    started.wait(30)
    waiting = [runner.submit(lambda conn, n=n: note(conn, n, key=f"k{n}")) for n in range(100)]

    release.set()
    for future in [first, *waiting]:
        future.result(30)
    commits = runner.commits
    runner.close()

    assert commits == 2
    assert len(sqlite3_keys(tmp_path / "group.db")) == 100


def sqlite3_keys(path: Path) -> set[str]:
    """Read with another connection, as another process would."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return {row[0] for row in connection.execute("SELECT id FROM jobs")}


async def test_a_result_is_told_only_after_the_commit(tmp_path: Path) -> None:
    path = tmp_path / "told.db"
    upgrade(f"sqlite:///{path}")
    database = Database(f"sqlite:///{path}")

    async def write_and_look(number: int) -> bool:
        await database.run(lambda conn: note(conn, number, key=f"k{number}"))
        return f"k{number}" in sqlite3_keys(path)

    assert all(await asyncio.gather(*(write_and_look(n) for n in range(50))))
    database.close()


async def test_an_operation_cannot_commit_by_itself(tmp_path: Path) -> None:
    path = tmp_path / "own.db"
    upgrade(f"sqlite:///{path}")
    database = Database(f"sqlite:///{path}")

    def commits(conn: Connection) -> None:
        conn.exec_driver_sql("COMMIT")

    with pytest.raises(RuntimeError, match="must not commit"):
        await database.run(commits)
    await database.run(lambda conn: note(conn, 1, key="after"))

    assert sqlite3_keys(path) == {"after"}
    database.close()


async def test_who_stops_waiting_does_not_stop_the_operation(database: Database) -> None:
    started, release = threading.Event(), threading.Event()

    def slow(conn: Connection) -> None:
        started.set()
        release.wait(30)
        note(conn, 1.0, key="slow")

    task = asyncio.create_task(database.run(slow))
    await asyncio.to_thread(started.wait, 30)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    release.set()
    await database.run(lambda conn: note(conn, 2.0, key="next"))
    database.close()  # finishes what is queued

    reopened = Database(database_url(database))
    assert reopened.read_sync(keys) == {"slow", "next"}
    reopened.close()


def database_url(database: Database) -> str:
    return database.place


async def test_readers_do_not_wait_for_writers_and_see_no_half_work(database: Database) -> None:
    written, release = threading.Event(), threading.Event()

    def slow(conn: Connection) -> None:
        note(conn, 1.0, key="slow")
        written.set()
        release.wait(30)

    task = asyncio.create_task(database.run(slow))
    await asyncio.to_thread(written.wait, 30)
    seen_meanwhile = await asyncio.wait_for(database.read(keys), 30)
    release.set()
    await task

    assert seen_meanwhile == set()
    assert await database.read(keys) == {"slow"}


async def test_a_reader_cannot_write(database: Database) -> None:
    with pytest.raises(StoreError):
        await database.read(lambda conn: note(conn, 1.0, key="written by a reader"))

    assert await database.read(keys) == set()


class Panic(BaseException):
    """What a native library raises that gives up."""


@pytest.mark.parametrize("raised", [Panic, SystemExit, KeyboardInterrupt])
async def test_what_is_no_exception_ends_its_operation_and_not_the_store(
    raised: type[BaseException], database: Database
) -> None:
    """Given an operation that panics amid others, then its caller is told, and the others and the next go through."""

    def panics(conn: Connection) -> None:
        note(conn, 1.0, key="half")
        raise raised("on purpose")

    outcomes = await asyncio.wait_for(
        asyncio.gather(
            database.run(lambda conn: note(conn, 1.0, key="before")),
            database.run(panics),
            database.run(lambda conn: note(conn, 1.0, key="behind")),
            return_exceptions=True,
        ),
        30,
    )

    assert outcomes[0] is outcomes[2] is None
    assert isinstance(outcomes[1], RuntimeError)
    assert raised.__name__ in str(outcomes[1])

    def reads_and_panics(conn: Connection) -> None:
        raise raised("on purpose")

    with pytest.raises(RuntimeError, match=raised.__name__):
        await asyncio.wait_for(database.read(reads_and_panics), 30)
    await asyncio.wait_for(database.run(lambda conn: note(conn, 1.0, key="next")), 30)
    assert await asyncio.wait_for(database.read(keys), 30) == {"before", "behind", "next"}


def test_several_event_loops_and_plain_threads_share_a_database(database: Database) -> None:
    def with_a_loop(first: int) -> None:
        async def main() -> None:
            await asyncio.gather(
                *(database.run(lambda conn, n=n: note(conn, n, key=f"l{n}")) for n in range(first, first + 10))
            )

        asyncio.run(main())

    def without_a_loop(first: int) -> None:
        for n in range(first, first + 10):
            database.run_sync(lambda conn, n=n: note(conn, n, key=f"l{n}"))

    threads = [threading.Thread(target=with_a_loop, args=(first,)) for first in (0, 10)]
    threads += [threading.Thread(target=without_a_loop, args=(first,)) for first in (20, 30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert database.read_sync(keys) == {f"l{n}" for n in range(40)}


def test_an_operation_cannot_wait_for_another(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'nested.db'}")

    with pytest.raises(RuntimeError, match="cannot wait"):
        database.run_sync(lambda _: database.run_sync(lambda _: None))
    database.close()


_WRITER = """
import sys
from k2think.store import postgresql
from k2think.store.database import Database
from sqlalchemy import text
database = Database(sys.argv[1])
for n in range(40):
    database.run_sync(lambda conn: conn.execute(text("UPDATE counter SET n = n + 1")))
database.close()
"""


def test_processes_take_turns_on_one_sqlite_file(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    database = Database(url)
    database.run_sync(lambda conn: conn.execute(text("CREATE TABLE counter (n INTEGER)")))
    database.run_sync(lambda conn: conn.execute(text("INSERT INTO counter VALUES (0)")))

    processes = [subprocess.Popen([sys.executable, "-c", _WRITER, url]) for _ in range(3)]

    assert [process.wait(90) for process in processes] == [0, 0, 0]
    assert database.read_sync(lambda conn: conn.execute(text("SELECT n FROM counter")).scalar_one()) == 120
    database.close()


def test_a_locked_file_is_unavailable_after_the_timeout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("k2think.store.sqlite.BUSY_TIMEOUT_S", 0.05)
    path = tmp_path / "locked.db"
    upgrade(f"sqlite:///{path}")
    database = Database(f"sqlite:///{path}")
    database.run_sync(lambda conn: None)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")

        with pytest.raises(StoreUnavailable, match="in use by another process"):
            database.run_sync(lambda conn: note(conn, 1.0, key="late"))
        assert database.read_sync(keys) == set()
        other.execute("ROLLBACK")

    database.run_sync(lambda conn: note(conn, 1.0, key="later"))
    assert database.read_sync(keys) == {"later"}
    database.close()


def everything_said(exc: BaseException) -> str:
    return "".join(traceback.format_exception(exc))


@pytest.mark.parametrize("verb", ["run", "read", "upgrade", "check"])
def test_a_password_is_never_told(verb: str, tmp_path: Path) -> None:
    url = f"postgresql://someone:{SECRET}@/nothing?host={tmp_path}"

    def attempt() -> None:
        if verb in ("upgrade", "check"):
            (upgrade if verb == "upgrade" else check)(url)
            return
        database = Database(url)
        try:
            (database.run_sync if verb == "run" else database.read_sync)(lambda conn: None)
        finally:
            database.close()

    with pytest.raises(StoreUnavailable) as caught:
        attempt()

    assert SECRET not in everything_said(caught.value)
    assert "someone:***@" in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql:/{SECRET}",
        f"postgresql://u:{SECRET}@host:port/name",
        f"mysql://u:{SECRET}@host/name",
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite:///file:x?mode=memory",
        SECRET,
    ],
)
def test_a_url_that_cannot_work_is_refused_without_being_repeated(url: str) -> None:
    with pytest.raises(ConfigurationError, match="K2THINK_DATABASE_URL") as caught:
        Database(url)

    assert SECRET not in everything_said(caught.value).replace(repr(url), "")


def test_nothing_runs_after_close(database: Database) -> None:
    database.run_sync(lambda conn: None)
    database.close()
    database.close()

    with pytest.raises(RuntimeError, match="closed"):
        database.run_sync(lambda conn: None)
    with pytest.raises(RuntimeError, match="closed"):
        database.read_sync(lambda conn: None)
