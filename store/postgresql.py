"""PostgreSQL: a small pool of threads, every operation a transaction of its own, all by the server's clock.

What is urgent (heartbeats) has a thread and a connection to itself: behind a queue of claims it would come too late, and
the leases of a worker that lives would run out.
"""

import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from typing import Any, TypeVar

from sqlalchemy import URL, Connection, Engine, create_engine, event, text
from sqlalchemy.exc import DBAPIError

from ..schemas.errors import ConfigurationError
from .errors import connection_gone, must_retry, translate

T = TypeVar("T")

THREADS = 4
"""Operations in flight at most, besides an urgent one, where nobody says otherwise."""
RETRIES_MAX = 8
"""Times that a transaction which lost against another one is run again."""
CLOCK_LOOK_S = 10.0
"""Between two looks at the server's clock, each one statement."""
ANSWER_S = 15.0
"""How long the server may let a statement wait, and a transaction may hold its locks between two statements."""
_CLOCK = text("SELECT CAST(extract(epoch FROM clock_timestamp()) AS double precision)")
_RETRY_PAUSE_S = 0.01
_CONNECT_ARGS: dict[str, Any] = {
    "connect_timeout": 5,
    # A server that vanished without a word is noticed after about this long, instead of after hours.
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
    "application_name": "k2think",
}


class PostgresqlRunner:
    """Runs operations on one PostgreSQL database. Connections are made at first use."""

    def __init__(self, url: URL, *, connections: int = THREADS, pooled: bool = False) -> None:
        """`connections`: as many operations run at once, besides an urgent one, each on a connection of its own. `pooled`: a
        pooler stands before the server and gives each transaction another session.
        """
        self._connections = connections
        self._place = url.render_as_string(hide_password=True)
        self._secret = str(url.password) if url.password else None
        self._engine = _engine(url, connections=connections, pooled=pooled)
        self._reader = self._engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        self._lock = threading.Lock()
        self._threads: ThreadPoolExecutor | None = None
        self._urgent_thread: ThreadPoolExecutor | None = None
        self._clock = ServerClock()
        self._closed = False

    def now(self) -> float:
        """Return the time by the server's clock; before the first operation, by our own."""
        return self._clock.now()

    def submit(self, operation: Callable[[Connection], T], *, urgent: bool = False) -> "Future[T]":
        """Queue an operation; an urgent one waits for no others but urgent ones."""
        return self._submit(lambda: self._transaction(self._engine, operation), urgent=urgent)

    def submit_read(self, operation: Callable[[Connection], T]) -> "Future[T]":
        """Queue a read-only operation, which sees one snapshot."""
        return self._submit(lambda: self._transaction(self._reader, operation))

    def close(self) -> None:
        """Finish what is queued and close the connections. Safe to call twice."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            pools = [pool for pool in (self._threads, self._urgent_thread) if pool is not None]
        for pool in pools:
            pool.shutdown(wait=True)
        self._engine.dispose()

    def in_writer(self) -> bool:
        """Whether the caller is itself an operation: never a danger here, there are several threads."""
        return False

    def _submit(self, work: Callable[[], T], *, urgent: bool = False) -> "Future[T]":
        outcome: Future[T] = Future()
        # From here on it can no longer be cancelled: whoever stops waiting does not stop the operation.
        outcome.set_running_or_notify_cancel()

        def run() -> None:
            try:
                outcome.set_result(work())
            except Exception as exc:
                outcome.set_exception(exc)

        with self._lock:
            if self._closed:
                raise RuntimeError("the database is closed")
            self._pool(urgent=urgent).submit(run)
        return outcome

    def _pool(self, *, urgent: bool) -> ThreadPoolExecutor:
        if urgent:
            self._urgent_thread = self._urgent_thread or ThreadPoolExecutor(1, "k2think-store-urgent")
            return self._urgent_thread
        self._threads = self._threads or ThreadPoolExecutor(self._connections, "k2think-store")
        return self._threads

    def _transaction(self, engine: Engine, operation: Callable[[Connection], T]) -> T:
        retries, reconnected = 0, False
        while True:
            committing = False
            try:
                with engine.connect() as connection:
                    self._clock.look(connection)
                    result = operation(connection)
                    committing = True
                    connection.commit()
                    return result
            except BaseException as exc:
                if must_retry(exc) and retries < RETRIES_MAX:
                    retries += 1
                    time.sleep(_RETRY_PAUSE_S * 2**retries * random.random())
                    continue
                if _stale_connection(exc) and not committing and not reconnected:
                    # The server was restarted while the connection lay in the pool: nothing was committed, and the
                    # pool has thrown all of its connections away.
                    reconnected = True
                    continue
                translated = translate(exc, place=self._place, secret=self._secret)
                if translated is exc:
                    raise
                raise translated from exc


class ServerClock:
    """What the server's clock says, carried on by our monotonic one: the processes of all machines agree on it."""

    def __init__(self) -> None:
        self._ahead_s: float | None = None
        """Of our monotonic clock; None = not known yet."""
        self._looked_at = 0.0

    def now(self) -> float:
        """Return the Unix time in seconds."""
        return time.time() if self._ahead_s is None else time.monotonic() + self._ahead_s

    def look(self, connection: Connection) -> None:
        """Ask the server, if that was long ago."""
        begin = time.monotonic()
        if self._ahead_s is not None and begin - self._looked_at < CLOCK_LOOK_S:
            return
        server: float = connection.execute(_CLOCK).scalar_one()
        self._looked_at = time.monotonic()
        self._ahead_s = server - (begin + self._looked_at) / 2


def _stale_connection(exc: BaseException) -> bool:
    return isinstance(exc, DBAPIError) and connection_gone(exc)


def _engine(url: URL, *, connections: int, pooled: bool) -> Engine:
    arguments = {name: value for name, value in _CONNECT_ARGS.items() if name not in url.query}
    if pooled:
        arguments["prepare_threshold"] = None  # what one session has prepared, the next does not know
    try:
        engine = create_engine(
            url,
            pool_size=connections + 1,
            max_overflow=0,
            isolation_level="READ COMMITTED",
            hide_parameters=True,
            connect_args=arguments,
        )
    except ModuleNotFoundError as exc:
        raise ConfigurationError(
            f"PostgreSQL needs the driver {exc.name}: pip install 'k2think[postgresql]', or unset K2THINK_DATABASE_URL"
        ) from exc
    event.listen(engine, "do_connect", _connect)
    if not pooled:  # else what is set for a session would be anybody's: the role's own settings count, and are checked
        event.listen(engine, "connect", _prepare)
    return engine


def _connect(_dialect: object, _record: object, words: list[Any], more: dict[str, Any]) -> Any:
    return _connection_class().connect(*words, **more)


@cache
def _connection_class() -> Any:
    import psycopg  # an extra, which who uses SQLite need not have

    class AnsweringConnection(psycopg.Connection[Any]):
        """Closes itself when the server does not answer, as behind a proxy that keeps a dead connection open."""

        def wait(self, *words: Any, **more: Any) -> Any:
            if "timeout" in more:
                return super().wait(*words, **more)
            began = time.monotonic()
            try:
                return super().wait(*words, **more, timeout=ANSWER_S)
            except psycopg.OperationalError as exc:
                if time.monotonic() - began < ANSWER_S:
                    raise
                self.pgconn.finish()
                raise psycopg.OperationalError(f"no answer within {ANSWER_S:g} s") from exc

    return AnsweringConnection


def _prepare(driver: Any, _record: object) -> None:
    """Whatever role or database say, a commit is told when it is safe, and no lost session holds its locks for ever.

    What is stricter than `on` stays, and so does another time-out.
    """
    wanted = {"synchronous_commit": ("off", "on"), "idle_in_transaction_session_timeout": ("0", f"{ANSWER_S:g}s")}
    driver.autocommit = True
    for name, (found, value) in wanted.items():
        driver.execute(f"SELECT set_config('{name}', '{value}', false) WHERE current_setting('{name}') = '{found}'")
    driver.autocommit = False
