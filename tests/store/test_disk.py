"""Files and folders that fail: full disks, limits, what is no database."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from harness.notes import keys, note
from k2think.schemas.errors import SchemaMismatch, StoreError, StoreFull, StoreUnavailable
from k2think.store.database import Database
from k2think.store.jobs import list_jobs
from k2think.store.migrate import upgrade
from sqlalchemy import Connection, text


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

    with pytest.raises(StoreUnavailable, match=r"cannot be opened.*`k2think db upgrade`"):
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
