"""Transactions, group commit, errors and reconnection."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from k2think.schemas.errors import ConfigurationError, NotFound, SchemaMismatch, StoreError, StoreFull, StoreUnavailable
from k2think.store import postgresql
from k2think.store.database import Database
from k2think.store.jobs import list_jobs
from k2think.store.migrate import check, upgrade
from k2think.store.sqlite import SqliteRunner
from sqlalchemy import Connection, text

SECRET = "s3cr3t-pa55"


def note(conn: Connection, value: float, *, key: str) -> None:
    """Write a row that is easy to count: an event needs a job, so it is a job."""
    conn.execute(
        text(
            "INSERT INTO jobs (id, tenant, request_digest, status, priority, attached, created_at, deadline_at, problem,"
            " equivalences, request) VALUES (:key, 't', 'd', 'queued', 0, false, :value, 0, 'p', '[]', '{}')"
        ),
        {"key": key, "value": value},
    )


def keys(conn: Connection) -> set[str]:
    return {row.id for row in conn.execute(text("SELECT id FROM jobs"))}


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


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
def test_the_time_is_the_servers_and_not_this_machines(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    database.run_sync(lambda conn: None)
    true = time.time()

    monkeypatch.setattr(time, "time", lambda: 0.0)

    assert true <= database.now() + 1 < true + 60


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


def test_a_full_disk_is_told_and_survived(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'full.db'}"
    upgrade(url)
    database = Database(url)

    def limit(conn: Connection) -> int:
        pages: int = conn.exec_driver_sql("PRAGMA page_count").scalar_one()
        return conn.exec_driver_sql(f"PRAGMA max_page_count = {pages + 1}").scalar_one()

    def large(conn: Connection) -> None:
        note(conn, 1.0, key="large")
        conn.execute(text("UPDATE jobs SET problem = :x WHERE id = 'large'"), {"x": "x" * 100_000})

    database.run_sync(limit)
    with pytest.raises(StoreFull, match="free space"):
        database.run_sync(large)
    database.run_sync(lambda conn: conn.exec_driver_sql("PRAGMA max_page_count = 100000").scalar_one())
    database.run_sync(large)

    assert database.read_sync(keys) == {"large"}
    database.close()


async def test_a_full_disk_lets_the_small_operations_of_a_batch_through(tmp_path: Path) -> None:
    """SQLite undoes the whole transaction when it is full; what others had in it must not be lost."""
    url = f"sqlite:///{tmp_path / 'full.db'}"
    upgrade(url)
    database = Database(url)
    hold = threading.Event()

    def limit(conn: Connection) -> None:
        pages: int = conn.exec_driver_sql("PRAGMA page_count").scalar_one()
        conn.exec_driver_sql(f"PRAGMA max_page_count = {pages + 3}").scalar_one()

    def large(conn: Connection) -> None:
        conn.execute(text("UPDATE jobs SET problem = :x"), {"x": "x" * 1_000_000})
        note(conn, 1.0, key="x" * 1_000_000)

    await database.run(limit)
    started = threading.Event()
    first = asyncio.create_task(database.run(lambda _: started.set() or hold.wait(30)))
    await asyncio.to_thread(started.wait, 30)
    batch = [
        asyncio.create_task(database.run(operation))
        for operation in (lambda conn: note(conn, 1.0, key="before"), large, lambda conn: note(conn, 2.0, key="behind"))
    ]
    await asyncio.sleep(0)
    hold.set()
    await first
    outcomes = await asyncio.gather(*batch, return_exceptions=True)

    assert outcomes[0] is None
    assert isinstance(outcomes[1], StoreFull)
    assert outcomes[2] is None
    assert await database.read(keys) == {"before", "behind"}
    database.close()


_LIMITED = """
import resource, sys
from k2think.schemas.errors import StoreFull
from k2think.store import postgresql
from k2think.store.database import Database
from sqlalchemy import text
resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))
database = Database(sys.argv[1])
database.run_sync(lambda conn: conn.execute(text("CREATE TABLE t (x TEXT)")))
try:
    for _ in range(200):
        database.run_sync(lambda conn: conn.execute(text("INSERT INTO t VALUES (:x)"), {"x": "x" * 10_000}))
except StoreFull as exc:
    print("full:", exc)
database.close()
"""


def test_a_file_size_limit_is_told_as_full(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _LIMITED, f"sqlite:///{tmp_path / 'limited.db'}"]

    done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("full: no space left")


def test_a_folder_that_cannot_be_made_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    database = Database(f"sqlite:///{tmp_path / 'file' / 'k2think.db'}")

    with pytest.raises(StoreUnavailable, match="cannot be opened"):
        database.run_sync(lambda conn: None)
    with pytest.raises(StoreUnavailable, match="cannot be opened"):
        database.read_sync(lambda conn: None)
    database.close()


def test_a_missing_folder_is_made_only_when_wanted(tmp_path: Path) -> None:
    path = tmp_path / "new" / "k2think.db"
    unwanted = Database(f"sqlite:///{path}", create_folder=False)
    with pytest.raises(StoreUnavailable):
        unwanted.run_sync(lambda conn: None)
    unwanted.close()

    wanted = Database(f"sqlite:///{path}")
    wanted.run_sync(lambda conn: None)
    wanted.close()

    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_a_file_that_is_no_database_is_told(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("no database " * 1000)
    database = Database(f"sqlite:///{tmp_path / 'text.db'}")

    with pytest.raises(StoreError, match="not an SQLite database"):
        database.run_sync(lambda conn: None)
    database.close()


def test_a_database_without_tables_says_what_to_run(empty_url: str) -> None:
    database = Database(empty_url)

    with pytest.raises(SchemaMismatch, match="k2think db upgrade"):
        database.run_sync(list_jobs)
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
