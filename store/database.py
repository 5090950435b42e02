"""The door to the database: operations are functions of a connection, each one a transaction, all or nothing.

    claim = await database.run(lambda conn: claim_step(conn, envelope, worker=me, now=database.now(), lease_s=15.0))

An operation has no effect but through its connection and does not commit by itself: it may be run again when the
transaction that held it was undone. Whoever stops waiting for it does not stop it.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from sqlalchemy import URL, Connection, make_url
from sqlalchemy.exc import ArgumentError

from ..schemas.errors import ConfigurationError
from ..schemas.settings import Settings
from .postgresql import THREADS, PostgresqlRunner
from .sqlite import SqliteRunner

T = TypeVar("T")


def parse_url(url: str) -> URL:
    """Return the SQLAlchemy URL, with our driver; raise ConfigurationError (without the password) for one we cannot use."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        parsed = None
    # Outside the handler, so that no traceback carries the text with its password.
    if parsed is None:
        raise ConfigurationError(
            "K2THINK_DATABASE_URL cannot be read: write sqlite:///PATH or postgresql://USER:PASSWORD@HOST/NAME"
        )
    if parsed.drivername == "postgresql":
        parsed = parsed.set(drivername="postgresql+psycopg")
    if parsed.drivername == "postgresql+psycopg":
        return parsed
    if parsed.get_backend_name() != "sqlite":
        raise ConfigurationError(
            f"K2THINK_DATABASE_URL: {parsed.drivername!r} is not supported: use sqlite:///PATH or postgresql://…"
        )
    if not parsed.database or parsed.database == ":memory:" or parsed.database.startswith("file:"):
        raise ConfigurationError(
            "K2THINK_DATABASE_URL: SQLite needs a file that several processes can open: sqlite:///PATH"
        )
    return parsed


def database_of(settings: Settings, *, create_folder: bool = True) -> "Database":
    """Return the database of these settings. Raises ConfigurationError for a URL that cannot be used."""
    return Database(
        settings.sqlalchemy_url,
        create_folder=create_folder,
        connections=settings.database_connections,
        pooled=settings.database_pooled,
    )


class Database:
    """One database for all threads and event loops of a process. Connects at first use."""

    def __init__(
        self, url: str, *, create_folder: bool = True, connections: int = THREADS, pooled: bool = False
    ) -> None:
        """`url` is sqlite:///PATH or postgresql://…; `create_folder` makes SQLite's folder (mode 700) where it is missing.

        The rest is PostgreSQL's: `connections` that work at once (one more is for what is urgent), and whether they are
        `pooled` by something that gives each transaction another session.

        Raises ConfigurationError for a URL that cannot be used.
        """
        parsed = parse_url(url)
        self.place = parsed.render_as_string(hide_password=True)
        """The URL without its password, for messages."""
        self._runner: SqliteRunner | PostgresqlRunner
        if parsed.get_backend_name() == "sqlite":
            self._runner = SqliteRunner(url, Path(parsed.database or ""), create_folder=create_folder)
        else:
            self._runner = PostgresqlRunner(parsed, connections=connections, pooled=pooled)

    def now(self) -> float:
        """Return the Unix time in seconds by the clock that all processes of this database share.

        What is written for others to compare with, such as a deadline, is told by this one: the clock of one machine may be
        wrong.
        """
        return self._runner.now()

    async def run(self, operation: Callable[[Connection], T], *, urgent: bool = False) -> T:
        """Run the operation in a transaction and return its result once that is committed.

        `urgent`: it does not queue behind what is not. For what is short and must not be late, such as a heartbeat.

        Raises StoreUnavailable, StoreFull, SchemaMismatch or StoreError for the database's errors, and whatever the
        operation itself raised; in each case nothing of it has happened. (After StoreUnavailable in the very moment of
        a PostgreSQL commit it may have; that is why every operation of the store can be repeated.)
        """
        return await asyncio.wrap_future(self._runner.submit(operation, urgent=urgent))

    def run_sync(self, operation: Callable[[Connection], T]) -> T:
        """As `run`, for callers without an event loop; not to be called from within an operation."""
        if self._runner.in_writer():
            raise RuntimeError("an operation cannot wait for another operation")
        return self._runner.submit(operation).result()

    async def read(self, operation: Callable[[Connection], T]) -> T:
        """As `run`, for an operation that only reads: it sees one snapshot and does not wait for writers."""
        return await asyncio.wrap_future(self._runner.submit_read(operation))

    def read_sync(self, operation: Callable[[Connection], T]) -> T:
        """As `read`, for callers without an event loop."""
        return self._runner.submit_read(operation).result()

    def close(self) -> None:
        """Finish what is queued and disconnect. Safe to call twice."""
        self._runner.close()
