"""The schema's version: brought up to date, or told apart from what this version of k2think understands.

Alembic is imported only where something must be done: a database that is up to date costs one query.
"""

import contextlib
import time
from collections.abc import Generator
from enum import StrEnum
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, create_engine, inspect, text
from sqlalchemy.pool import NullPool

from ..schemas.errors import SchemaMismatch, StoreUnavailable
from .database import parse_url
from .door_tables import metadata
from .errors import sqlite_busy, translate

HEAD = "0003"
"""Newest revision that this version knows; a test holds it equal to the scripts' own head."""
_KNOWN = ("0001", "0002", "0003")
"""All revisions that this version knows, oldest first."""
_ADVISORY_LOCK = 0x6B327468  # "k2th"
_LOCK_TIMEOUT_S = 60.0
_LOCK_POLL_S = 0.05
_FOLDER_MODE = 0o700


class SchemaState(StrEnum):
    """How the database's schema relates to this version of k2think."""

    current = "current"
    behind = "behind"
    """Written by an older version: `upgrade` brings it up to date."""
    newer = "newer"
    """Written by a newer version, which this one does not understand."""
    empty = "empty"
    """No tables of ours yet: `upgrade` makes them."""


def check(url: str) -> SchemaState:
    """Return the state of the database's schema; raise StoreUnavailable or StoreError when it cannot be asked."""
    parsed = parse_url(url)
    if parsed.get_backend_name() == "sqlite" and not Path(parsed.database or "").exists():
        return SchemaState.empty
    with _connection(parsed) as conn:
        return schema_state(conn)


def schema_state(conn: Connection) -> SchemaState:
    """As `check`, by an open connection."""
    return _state(_revision(conn))


def require_current(url: str) -> None:
    """Raise SchemaMismatch, with what to do, unless the database's schema is the one of this version."""
    state, place = check(url), parse_url(url).render_as_string(hide_password=True)
    if state is SchemaState.newer:
        raise _newer(place)
    if state is not SchemaState.current:
        found = "has no tables yet" if state is SchemaState.empty else "was written by an older version of k2think"
        raise SchemaMismatch(f"the database {place} {found}: run `k2think db upgrade`")


def upgrade(url: str) -> None:
    """Bring the schema up to date; does nothing when it is. Safe when several processes do it at once.

    Raises SchemaMismatch for a database from a newer version, StoreUnavailable, StoreFull or StoreError.
    """
    parsed = parse_url(url)
    place = parsed.render_as_string(hide_password=True)
    if parsed.get_backend_name() == "sqlite":
        _make_folder(Path(parsed.database or ""), place)
    with _connection(parsed) as conn:
        state = _state(_revision(conn))
        if state is SchemaState.newer:
            raise _newer(place)
        if state is SchemaState.current:
            return
        with _exclusive(conn):
            # Another process may have done it while this one waited.
            state = _state(_revision(conn))
            if state is SchemaState.newer:
                raise _newer(place)
            if state is not SchemaState.current:
                _run_scripts(conn)


def alembic_config() -> Any:
    """Return Alembic's configuration for our scripts."""
    from alembic.config import Config

    config = Config()
    # The option is a format string.
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.attributes["metadata"] = metadata
    return config


def _run_scripts(conn: Connection) -> None:
    from alembic import command

    config = alembic_config()
    config.attributes["connection"] = conn
    command.upgrade(config, HEAD)


def _state(revision: str | None) -> SchemaState:
    if revision is None:
        return SchemaState.empty
    if revision == HEAD:
        return SchemaState.current
    return SchemaState.behind if revision in _KNOWN else SchemaState.newer


def _newer(place: str) -> SchemaMismatch:
    return SchemaMismatch(
        f"the database {place} was written by a newer version of k2think: install that version, or point "
        "K2THINK_DATABASE_URL at another database"
    )


def _revision(conn: Connection) -> str | None:
    if not inspect(conn).has_table("alembic_version"):
        return None
    return conn.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none()


@contextlib.contextmanager
def _exclusive(conn: Connection) -> Generator[None]:
    """Keep other processes from doing the same at once, and commit at the end: all or nothing."""
    if conn.dialect.name == "sqlite":
        _begin_exclusive(conn)
    else:
        # Held until the end of the transaction.
        conn.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADVISORY_LOCK})
    try:
        yield
    except BaseException:
        conn.exec_driver_sql("ROLLBACK") if conn.dialect.name == "sqlite" else conn.rollback()
        raise
    conn.exec_driver_sql("COMMIT") if conn.dialect.name == "sqlite" else conn.commit()


def _begin_exclusive(conn: Connection) -> None:
    end = time.monotonic() + _LOCK_TIMEOUT_S
    while True:
        try:
            conn.exec_driver_sql("BEGIN EXCLUSIVE")
            return
        except Exception as exc:
            if not sqlite_busy(getattr(exc, "orig", exc)) or time.monotonic() > end:
                raise
        time.sleep(_LOCK_POLL_S)


@contextlib.contextmanager
def _connection(url: URL) -> Generator[Connection]:
    # Nothing is prepared: a pooler may give the next transaction another session.
    arguments: dict[str, Any] = (
        {} if url.get_backend_name() == "sqlite" else {"connect_timeout": 5, "prepare_threshold": None}
    )
    engine = create_engine(url, poolclass=NullPool, hide_parameters=True, connect_args=arguments)
    if url.get_backend_name() == "sqlite":
        # The driver begins and commits nothing by itself, so that a schema change is one transaction.
        engine = engine.execution_options(isolation_level="AUTOCOMMIT")
    place = url.render_as_string(hide_password=True)
    try:
        with engine.connect() as conn:
            yield conn
    except Exception as exc:
        translated = translate(exc, place=place, secret=str(url.password) if url.password else None)
        if translated is exc:
            raise
        raise translated from exc
    finally:
        engine.dispose()


def _make_folder(path: Path, place: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=_FOLDER_MODE)
    except OSError as exc:
        raise StoreUnavailable(f"the folder of the database {place} cannot be made: {exc.strerror or exc}") from exc
