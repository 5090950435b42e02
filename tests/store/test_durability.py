"""What a commit rests on: what our connections set themselves, and what is noticed where that does not help."""

from __future__ import annotations

import sqlite3.dbapi2
from pathlib import Path
from typing import Any

import pytest
from k2think.schemas.errors import StoreUnavailable
from k2think.store import postgresql, sqlite
from k2think.store.database import Database
from k2think.store.durability import Weight, database_faults
from sqlalchemy import text


def as_postgres(url: str, *statements: str) -> None:
    """Run statements that the database's owner would run."""
    import psycopg

    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.format(name=connection.info.dbname))  # pyright: ignore[reportArgumentType, reportCallIssue]


@pytest.fixture
def postgres_url(postgres_server: Any) -> str:
    return str(postgres_server.new_database())


def level_of(url: str) -> str:
    database = Database(url)
    try:
        return str(database.run_sync(lambda conn: conn.execute(text("SHOW synchronous_commit")).scalar_one()))
    finally:
        database.close()


def test_sqlite_writes_ahead_and_flushes(tmp_path: Path) -> None:
    assert database_faults(f"sqlite:///{tmp_path / 'k.db'}") == []


def without_shared_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have SQLite open its files as on a file system that cannot share memory, on which it refuses the WAL."""
    connect = sqlite3.dbapi2.connect
    monkeypatch.setattr(
        sqlite3.dbapi2,
        "connect",
        lambda path, **more: connect(f"file:{path}?vfs=unix-dotfile", uri=True, **more),
    )


def test_a_file_system_that_refuses_the_log_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_shared_memory(monkeypatch)

    [fault] = database_faults(f"sqlite:///{tmp_path / 'k.db'}")

    assert fault.weight is Weight.refused
    assert "write-ahead log" in fault.what
    assert "local disk" in fault.fix


def test_a_file_that_others_keep_from_the_log_is_in_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "BUSY_TIMEOUT_S", 0.2)
    path = tmp_path / "k.db"
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("CREATE TABLE t (x)")
    other.execute("BEGIN EXCLUSIVE")

    with pytest.raises(StoreUnavailable, match="in use by another process"):
        database_faults(f"sqlite:///{path}")

    other.execute("ROLLBACK")
    other.close()
    assert database_faults(f"sqlite:///{path}") == []


def test_postgresql_without_fsync_is_a_risk_that_is_told(postgres_url: str) -> None:
    faults = database_faults(postgres_url)

    # The tests' own server runs so.
    assert [fault.weight for fault in faults] == [Weight.risk, Weight.risk]
    assert [name in fault.what for name, fault in zip(("fsync", "full_page_writes"), faults, strict=True)] == [True] * 2


def test_our_sessions_wait_for_their_commits_whatever_the_database_says(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_postgres(postgres_url, "ALTER DATABASE {name} SET synchronous_commit = off")

    assert level_of(postgres_url) == "on"
    assert not [fault for fault in database_faults(postgres_url) if fault.weight is Weight.refused]

    # Where something undoes it, such as a pool that hands sessions round, nothing starts.
    monkeypatch.setattr(postgresql, "_prepare", lambda *_: None)
    [refused] = [fault for fault in database_faults(postgres_url) if fault.weight is Weight.refused]
    assert "synchronous_commit" in refused.what


@pytest.mark.parametrize("level", ["local", "remote_write", "remote_apply"])
def test_another_level_is_the_operators_choice(postgres_url: str, level: str) -> None:
    as_postgres(postgres_url, f"ALTER DATABASE {{name}} SET synchronous_commit = {level}")

    assert level_of(postgres_url) == level
    assert not [fault for fault in database_faults(postgres_url) if fault.weight is not Weight.risk]


def test_a_standby_is_waited_for(postgres_url: str) -> None:
    as_postgres(postgres_url, "ALTER DATABASE {name} SET default_transaction_read_only = on")

    [fault] = [fault for fault in database_faults(postgres_url) if fault.weight is not Weight.risk]

    assert fault.weight is Weight.awaited
    assert "primary" in fault.fix
