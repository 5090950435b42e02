"""Jobs looked for by time and by the beginning of their id: exactly those are found, by a range of the index."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from k2think.schemas.ids import uuid7
from k2think.store.job_views import list_job_objects
from k2think.store.lookup import job_ids_beginning
from k2think.store.tables import metadata
from sqlalchemy import Connection, create_engine, event
from sqlalchemy.pool import StaticPool

if TYPE_CHECKING:
    from conftest import Story

NOW = 1_795_000_000.0


def listed(story: Story, **window: float) -> list[str]:
    found, _more = story.database.read_sync(lambda conn: list_job_objects(conn, tenant="default", **window))
    return [job.id for job in found]


def test_a_window_of_time_is_exact_however_long_before_the_id_was_chosen(story: Story) -> None:
    ids: list[str] = []
    for age_s in (0.0, 600.0, -5.0):
        story.now += 10
        ids.append(story.accept(job_id=uuid7(now_s=story.now - age_s)).job_id)
    first = story.now - 20

    assert set(listed(story)) == set(ids)
    assert set(listed(story, created_after=first)) == set(ids[1:])
    assert listed(story, created_before=first + 0.001) == ids[:1]
    assert listed(story, created_after=first, created_before=first + 20) == ids[1:2]
    assert listed(story, created_after=1e300) == listed(story, created_before=-1e300) == []
    assert set(listed(story, created_after=-1e300, created_before=1e300)) == set(ids)


def test_ids_are_found_by_any_beginning(story: Story) -> None:
    job_id = story.accept().job_id
    story.now += 10_000_000
    other = story.accept().job_id

    def beginning(prefix: str) -> list[str]:
        return story.database.read_sync(lambda conn: job_ids_beginning(conn, prefix, limit=5))

    shared = next(n for n in range(36) if job_id[n] != other[n])
    assert beginning(job_id[:shared]) == [other, job_id]
    for length in range(shared + 1, 37):
        assert beginning(job_id[:length]) == [job_id], length
    assert beginning(job_id[:6] + "-" + job_id[6:9]) == beginning(job_id + "0") == beginning("%") == []


@pytest.mark.parametrize(
    ("look", "range_"),
    [
        (lambda conn: job_ids_beginning(conn, "019a2b3c", limit=5), "(id>? AND id<?)"),
        (
            lambda conn: list_job_objects(conn, tenant="t", created_after=NOW, created_before=NOW + 60),
            "(tenant=? AND id>? AND id<?)",
        ),
    ],
    ids=["beginning", "window"],
)
def test_the_index_gives_no_more_than_the_range(look: Callable[[Connection], Any], range_: str) -> None:
    engine = create_engine("sqlite://", poolclass=StaticPool)
    asked: list[tuple[str, Any]] = []
    with engine.connect() as conn:
        metadata.create_all(conn)

        @event.listens_for(engine, "before_cursor_execute")
        def note(_conn: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, _many: bool) -> None:
            asked.append((statement, parameters))

        look(conn)
        [(words, values)] = asked
        plan = [str(row[3]) for row in conn.exec_driver_sql(f"EXPLAIN QUERY PLAN {words}", values)]
    engine.dispose()
    assert any(line.startswith("SEARCH jobs") and line.endswith(range_) for line in plan), plan
