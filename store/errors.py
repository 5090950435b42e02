"""The one place where errors of the databases become ours."""

from typing import Any

from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from ..schemas.errors import K2ThinkError, SchemaMismatch, StoreError, StoreFull, StoreUnavailable

_SQLITE_UNAVAILABLE = (
    "SQLITE_BUSY",
    "SQLITE_LOCKED",
    "SQLITE_CANTOPEN",
    "SQLITE_READONLY",
    "SQLITE_PERM",
    "SQLITE_PROTOCOL",
)
# Writing beyond a quota or a file-size limit is an I/O error for SQLite; only ENOSPC is "full".
_SQLITE_FULL = ("SQLITE_FULL", "SQLITE_IOERR_WRITE", "SQLITE_IOERR_SHMSIZE", "SQLITE_IOERR_TRUNCATE", "SQLITE_TOOBIG")
_SQLITE_GONE = ("SQLITE_IOERR", "SQLITE_NOTADB", "SQLITE_CORRUPT", "SQLITE_READONLY_DBMOVED", "SQLITE_CANTOPEN")

_PG_FULL = "53100"
_PG_UNAVAILABLE_CLASSES = ("08", "53", "57P", "28", "3D")
_PG_OTHER_SCHEMA = ("42P01", "42703", "3F000")
_PG_RETRY = ("40001", "40P01")
_PG_CONNECTION_ERRORS = ("OperationalError", "ConnectionTimeout", "InterfaceError")
# libpq's own errors carry no SQLSTATE; so do psycopg's data errors, which are something else.

UPGRADE_HINT = "run `k2think db upgrade` (with the newest k2think that uses this database)"


def translate(exc: BaseException, *, place: str, secret: str | None = None) -> Exception:
    """Return our error for an error of SQLAlchemy or a driver; other exceptions come back unchanged.

    `place` names the database in messages (without password); `secret` is struck out of the driver's words. What is no
    Exception (a panic of a native library, a SystemExit) becomes one: it is for the caller, not for the store's thread.
    """
    if not isinstance(exc, Exception):
        return RuntimeError(f"an operation of the store was ended by {type(exc).__name__}: {exc}")
    if isinstance(exc, K2ThinkError) or not (isinstance(exc, SQLAlchemyError) or _is_driver_error(exc)):
        return exc
    original: Any = exc.orig if isinstance(exc, DBAPIError) and exc.orig is not None else exc
    words = " ".join(str(original).split())
    if secret:
        words = words.replace(secret, "***")
    if sqlite_code := getattr(original, "sqlite_errorname", None):
        return _from_sqlite(sqlite_code, words, place)
    if hasattr(original, "sqlstate"):
        lost = _lost(exc) or (original.sqlstate is None and type(original).__name__ in _PG_CONNECTION_ERRORS)
        return _from_postgresql(original.sqlstate or "", words, place, lost=lost)
    if isinstance(exc, PoolTimeoutError):
        return StoreUnavailable(f"the database {place} cannot be reached: {words}")
    return StoreError(f"the database {place} failed: {words}")


def must_retry(exc: BaseException) -> bool:
    """Whether the transaction lost against another one (deadlock, serialization) and is worth running again."""
    return getattr(getattr(exc, "orig", None), "sqlstate", None) in _PG_RETRY


def connection_gone(exc: BaseException) -> bool:
    """Whether the connection that raised it is of no further use."""
    original = getattr(exc, "orig", exc)
    name = getattr(original, "sqlite_errorname", None) or ""
    return _lost(exc) or name.startswith(_SQLITE_GONE)


def sqlite_busy(exc: BaseException) -> bool:
    """Whether another process holds SQLite's lock."""
    return (getattr(exc, "sqlite_errorname", None) or "").startswith(("SQLITE_BUSY", "SQLITE_LOCKED"))


def _lost(exc: BaseException) -> bool:
    return isinstance(exc, DBAPIError) and exc.connection_invalidated


def _is_sqlite(exc: object) -> bool:
    return type(exc).__module__ == "sqlite3"


def _is_driver_error(exc: Exception) -> bool:
    return _is_sqlite(exc) or type(exc).__module__.startswith("psycopg")


def _from_sqlite(code: str, words: str, place: str) -> StoreError:
    if code.startswith(_SQLITE_FULL):
        return StoreFull(
            f"no space left for the database {place} ({words}): free space on its disk, or raise the quota"
        )
    if code.startswith("SQLITE_CANTOPEN"):
        return StoreUnavailable(
            f"the database {place} cannot be opened ({words}): its folder must exist and be writable; `k2think db upgrade` makes it"
        )
    if code.startswith(("SQLITE_READONLY", "SQLITE_PERM")):
        return StoreUnavailable(
            f"the database {place} cannot be written ({words}): check the rights of the file and its folder"
        )
    if code.startswith(_SQLITE_UNAVAILABLE):
        return StoreUnavailable(f"the database {place} is in use by another process for too long ({words}); try again")
    if "no such table" in words or "no such column" in words or "has no column" in words:
        return SchemaMismatch(f"the database {place} has another schema ({words}): {UPGRADE_HINT}")
    if code.startswith("SQLITE_NOTADB"):
        return StoreError(f"{place} is not an SQLite database ({words}): point K2THINK_DATABASE_URL elsewhere")
    return StoreError(f"the database {place} failed: {words} ({code})")


def _from_postgresql(state: str, words: str, place: str, *, lost: bool) -> StoreError:
    if state == _PG_FULL:
        return StoreFull(f"no space left for the database {place} ({words}): free space on its disk")
    if state in _PG_OTHER_SCHEMA:
        return SchemaMismatch(f"the database {place} has another schema ({words}): {UPGRADE_HINT}")
    if state in _PG_RETRY:
        return StoreUnavailable(f"the database {place} is too contended ({words}); try again")
    if lost or state.startswith(_PG_UNAVAILABLE_CLASSES):
        return StoreUnavailable(f"the database {place} cannot be reached: {words}")
    return StoreError(f"the database {place} failed: {words} ({state})")
