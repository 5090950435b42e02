"""What a commit rests on: settings of the database by which something committed could be lost."""

from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import Connection, text

from .database import Database

_SQLITE_FULL = 2
"""`PRAGMA synchronous`: the log is flushed to the disk with every commit; EXTRA is 3."""


class Weight(StrEnum):
    """What comes of a fault."""

    refused = "refused"
    """No process starts."""
    awaited = "awaited"
    """Nothing can be written just now: processes wait, as they do for a service that is away."""
    risk = "risk"
    """The operator's own choice: each process says so once."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Something by which what was committed or sent could be lost."""

    weight: Weight
    """What comes of it."""
    what: str
    """What was found."""
    fix: str
    """What to do."""

    def __str__(self) -> str:
        return f"{self.what}: {self.fix}"


def database_faults(url: str, *, pooled: bool = False) -> list[Fault]:
    """Ask a connection such as those that write. Raises StoreUnavailable, StoreFull or StoreError."""
    database = Database(url, create_folder=False, pooled=pooled)
    try:
        return database.run_sync(_ask)
    finally:
        database.close()


def _ask(connection: Connection) -> list[Fault]:
    return _ask_sqlite(connection) if connection.dialect.name == "sqlite" else _ask_postgresql(connection)


def _ask_sqlite(connection: Connection) -> list[Fault]:
    faults: list[Fault] = []
    mode = str(connection.exec_driver_sql("PRAGMA journal_mode").scalar_one())
    level = int(connection.exec_driver_sql("PRAGMA synchronous").scalar_one())
    if mode != "wal":
        what = f"SQLite cannot keep a write-ahead log where its file is (journal mode {mode})"
        fix = "move it to a local disk (K2THINK_DATA_DIR, K2THINK_DATABASE_URL), or use PostgreSQL"
        faults.append(Fault(Weight.refused, what, fix))
    if level < _SQLITE_FULL:
        what = f"SQLite does not flush its commits to the disk (synchronous {level})"
        faults.append(Fault(Weight.refused, what, "use another build of SQLite, or PostgreSQL"))
    return faults


def _ask_postgresql(connection: Connection) -> list[Fault]:
    names = ("transaction_read_only", "synchronous_commit", "fsync", "full_page_writes")
    names += ("idle_in_transaction_session_timeout",)
    asked = ", ".join(f"current_setting('{name}')" for name in names)
    row = connection.execute(text(f"SELECT {asked}")).one()
    found = dict(zip(names, row, strict=True))
    faults: list[Fault] = []
    if found["transaction_read_only"] == "on":
        what = "PostgreSQL takes no writes (a standby, or default_transaction_read_only)"
        faults.append(Fault(Weight.awaited, what, "point K2THINK_DATABASE_URL at the primary"))
    if found["synchronous_commit"] == "off":
        what = "PostgreSQL tells of commits before they are safe (synchronous_commit off, against our own setting)"
        fix = "set it to on for the role or the database, and let the pool in front of it keep sessions' settings"
        faults.append(Fault(Weight.refused, what, fix))
    if found["idle_in_transaction_session_timeout"] == "0":
        what = "PostgreSQL lets a session that was lost in a transaction keep its locks (idle_in_transaction_session_timeout)"
        fix = "behind a pooler we set nothing for our sessions: ALTER ROLE … SET idle_in_transaction_session_timeout = '15s'"
        faults.append(Fault(Weight.risk, what, fix))
    for name in ("fsync", "full_page_writes"):
        if found[name] == "off":
            what = f"PostgreSQL runs with {name} off: a crash of its machine may destroy all that was committed"
            faults.append(Fault(Weight.risk, what, "switch it on, unless its storage makes it needless"))
    return faults
