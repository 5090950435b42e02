"""SQLite: one writer thread that commits many waiting operations at once (group commit), and readers beside it.

A commit that survives a power cut costs a flush of the disk, whatever it holds. So the writer takes all operations that
wait (they gather while the last commit is flushed), runs each in a savepoint of its own, commits once, and only then
tells the callers. An operation that fails rolls back to its savepoint and hurts nobody else. WAL lets readers read
meanwhile, in this and in other processes; writers of several processes take turns.
"""

import contextlib
import queue
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.pool import NullPool

from .errors import connection_gone, sqlite_busy, translate

T = TypeVar("T")

BATCH_MAX = 200
"""Operations in one commit at most."""
BUSY_TIMEOUT_S = 15.0
"""How long another process may hold the write lock before an operation fails."""
_BUSY_POLL_MIN_S = 0.0005
_BUSY_POLL_MAX_S = 0.02
_READERS = 2
_FOLDER_MODE = 0o700


@dataclass(slots=True)
class _Pending:
    operation: Callable[[Connection], Any]
    future: "Future[Any]"


class SqliteRunner:
    """Runs operations on one SQLite file. Threads and connections are made at first use."""

    def __init__(self, url: str, path: Path, *, create_folder: bool) -> None:
        self._path = path
        self._create_folder = create_folder
        self._engine = _engine(url)
        self._queue: queue.SimpleQueue[_Pending | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._writer: threading.Thread | None = None
        self._connection: Connection | None = None
        self._readers: ThreadPoolExecutor | None = None
        self._reader_connections = threading.local()
        self._all_readers: list[Connection] = []
        self._closed = False
        self.commits = 0
        """Commits so far: what group commit saves is seen here."""

    def now(self) -> float:
        """Return the time; all processes of a file are on one machine, and so is their clock."""
        return time.time()

    def submit(self, operation: Callable[[Connection], T], *, urgent: bool = False) -> "Future[T]":
        """Queue an operation for the writer; `urgent` changes nothing, since the next commit takes all that waits."""
        future: Future[T] = Future()
        # From here on it can no longer be cancelled: whoever stops waiting does not stop the operation.
        future.set_running_or_notify_cancel()
        with self._lock:
            self._check_open()
            if self._writer is None:
                self._writer = threading.Thread(target=self._write_forever, name="k2think-store-writer", daemon=True)
                self._writer.start()
            self._queue.put(_Pending(operation, future))
        return future

    def submit_read(self, operation: Callable[[Connection], T]) -> "Future[T]":
        """Queue a read-only operation, which sees one snapshot and does not wait for the writer."""
        with self._lock:
            self._check_open()
            if self._readers is None:
                self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="k2think-store-reader")
            return self._readers.submit(self._read, operation)

    def close(self) -> None:
        """Finish what is queued and close the file. Safe to call twice."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            writer, readers = self._writer, self._readers
            self._queue.put(None)
        if writer is not None and writer is not threading.current_thread():
            writer.join()
        if readers is not None:
            readers.shutdown(wait=True)
        for connection in self._all_readers:
            connection.close()
        self._engine.dispose()

    def in_writer(self) -> bool:
        """Whether the caller is itself an operation of this writer."""
        return threading.current_thread() is self._writer

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError("the database is closed")

    # Writing

    def _write_forever(self) -> None:
        closing = False
        while not closing:
            batch: list[_Pending] = []
            item = self._queue.get()
            while item is not None:
                batch.append(item)
                if len(batch) >= BATCH_MAX:
                    break
                try:
                    item = self._queue.get_nowait()
                except queue.Empty:
                    break
            closing = item is None
            if batch:
                self._write(batch)
        self._drop_connection()

    def _write(self, batch: list[_Pending]) -> None:
        outcomes = self._try_batch(batch)
        if outcomes is None:
            # The database undid the whole transaction, so nobody's work is in it. One by one, the harmless get through.
            for pending in batch:
                alone = self._try_batch([pending])
                self._settle([pending], alone or [])
        else:
            self._settle(batch, outcomes)

    def _settle(self, batch: list[_Pending], outcomes: list[Any]) -> None:
        for pending, outcome in zip(batch, outcomes, strict=True):
            if isinstance(outcome, _Failure):
                pending.future.set_exception(translate(outcome.error, place=str(self._path)))
            else:
                pending.future.set_result(outcome)

    def _try_batch(self, batch: list[_Pending]) -> list[Any] | None:
        """Run the batch in one transaction; None = it was undone as a whole and must be tried one by one."""
        outcomes: list[Any] = []
        try:
            connection = self._open_writer()
            driver = _driver(connection)
            _begin_immediate(driver)
            for pending in batch:
                outcome = self._run_in_savepoint(connection, driver, pending.operation)
                if not driver.in_transaction:
                    return self._undone(outcome, alone=len(batch) == 1)
                outcomes.append(outcome)
            driver.execute("COMMIT")
            self.commits += 1
        except BaseException as exc:  # this thread must live, or all that is queued waits for ever
            self._roll_back(exc)
            return self._undone(_Failure(exc), alone=len(batch) == 1 or sqlite_busy(exc), count=len(batch))
        return outcomes

    def _undone(self, outcome: Any, *, alone: bool, count: int = 1) -> list[Any] | None:
        if not alone:
            return None
        if not isinstance(outcome, _Failure):
            outcome = _Failure(RuntimeError("an operation of the store must not commit or roll back by itself"))
        return [outcome] * count

    def _run_in_savepoint(
        self, connection: Connection, driver: sqlite3.Connection, operation: Callable[[Connection], Any]
    ) -> Any:
        driver.execute("SAVEPOINT operation")
        try:
            outcome = operation(connection)
        except BaseException as exc:
            if driver.in_transaction:
                driver.execute("ROLLBACK TO operation")
                driver.execute("RELEASE operation")
            return _Failure(exc)
        if driver.in_transaction:
            driver.execute("RELEASE operation")
        return outcome

    def _open_writer(self) -> Connection:
        if self._connection is None:
            self._make_folder()
            self._connection = self._engine.connect()
        return self._connection

    def _make_folder(self) -> None:
        if self._create_folder and not self._path.parent.exists():
            with contextlib.suppress(OSError):  # connecting says what is wrong
                self._path.parent.mkdir(parents=True, exist_ok=True, mode=_FOLDER_MODE)

    def _roll_back(self, exc: BaseException) -> None:
        if self._connection is None:
            return
        if connection_gone(exc):
            self._drop_connection()
            return
        driver = _driver(self._connection)
        if driver.in_transaction:
            try:
                driver.execute("ROLLBACK")
            except sqlite3.Error:
                self._drop_connection()

    def _drop_connection(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    # Reading

    def _read(self, operation: Callable[[Connection], T]) -> T:
        try:
            connection = self._open_reader()
            driver = _driver(connection)
            driver.execute("BEGIN")
            try:
                return operation(connection)
            finally:
                if driver.in_transaction:
                    driver.execute("ROLLBACK")
        except BaseException as exc:
            translated = translate(exc, place=str(self._path))
            if translated is exc:
                raise
            self._forget_reader()
            raise translated from exc

    def _open_reader(self) -> Connection:
        connection: Connection | None = getattr(self._reader_connections, "connection", None)
        if connection is None:
            self._make_folder()
            connection = self._engine.connect()
            _driver(connection).execute("PRAGMA query_only = ON")
            self._reader_connections.connection = connection
            self._all_readers.append(connection)
        return connection

    def _forget_reader(self) -> None:
        connection: Connection | None = getattr(self._reader_connections, "connection", None)
        if connection is not None:
            self._reader_connections.connection = None
            self._all_readers.remove(connection)
            connection.close()


@dataclass(frozen=True, slots=True)
class _Failure:
    error: BaseException


def _driver(connection: Connection) -> sqlite3.Connection:
    driver: Any = connection.connection.driver_connection
    return driver


def _engine(url: str) -> Engine:
    engine = create_engine(
        url,
        poolclass=NullPool,
        isolation_level="AUTOCOMMIT",  # transactions are begun and ended here, not by the driver
        hide_parameters=True,
        connect_args={"check_same_thread": False, "timeout": BUSY_TIMEOUT_S, "cached_statements": 256},
    )
    event.listen(engine, "connect", _prepare)
    return engine


def _prepare(driver: sqlite3.Connection, _record: object) -> None:
    try:
        _keep_write_ahead_log(driver)
        driver.execute("PRAGMA synchronous = FULL")
        driver.execute("PRAGMA foreign_keys = ON")
    except BaseException:
        driver.close()  # the pool leaves it open
        raise


def _keep_write_ahead_log(driver: sqlite3.Connection) -> None:
    """Where the file system does not allow it nothing is raised: each process looks when it starts (`durability.py`)."""
    for _ in _until_free():
        # Changing the mode needs the file for itself, and SQLite does not wait for that by itself.
        with _busy_is_no_error():
            driver.execute("PRAGMA journal_mode = WAL")
            return
    driver.execute("PRAGMA journal_mode = WAL")


def _begin_immediate(driver: sqlite3.Connection) -> None:
    # SQLite's own waiting sleeps up to 100 ms between looks, which starves the workers that share the file.
    driver.execute("PRAGMA busy_timeout = 0")
    try:
        for _ in _until_free():
            with _busy_is_no_error():
                driver.execute("BEGIN IMMEDIATE")
                return
        driver.execute("BEGIN IMMEDIATE")
    finally:
        driver.execute(f"PRAGMA busy_timeout = {int(BUSY_TIMEOUT_S * 1000)}")


def _until_free() -> Iterator[None]:
    """Yield now and then until BUSY_TIMEOUT_S have passed."""
    end, pause = time.monotonic() + BUSY_TIMEOUT_S, _BUSY_POLL_MIN_S
    yield
    while time.monotonic() < end:
        time.sleep(pause * (0.5 + random.random()))
        pause = min(pause * 1.5, _BUSY_POLL_MAX_S)
        yield


@contextlib.contextmanager
def _busy_is_no_error() -> Generator[None]:
    try:
        yield
    except sqlite3.OperationalError as exc:
        if not sqlite_busy(exc):
            raise
