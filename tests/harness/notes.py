"""Rows for tests of the store that only count."""

from sqlalchemy import Connection, text


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
    """Return the keys that were noted."""
    return {row.id for row in conn.execute(text("SELECT id FROM jobs"))}
