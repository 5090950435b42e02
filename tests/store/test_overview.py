"""Looking over a tenant's jobs: filters, pages, points, and what a list withholds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from k2think.schemas.doors import Door, DoorNote
from k2think.schemas.errors import NotFound
from k2think.schemas.jobs import JobError, JobStatus
from k2think.schemas.outcomes import Screened, ScreenVerdict
from k2think.schemas.progress import Ending
from k2think.schemas.withheld import WITHHELD
from k2think.store.job_views import job_object, list_job_objects
from k2think.store.jobs import list_jobs
from k2think.store.overview import JobFilter, browse_jobs, job_door, job_points

if TYPE_CHECKING:
    from .conftest import Story

MINE = JobFilter("default")


def listed(story: Story, chosen: JobFilter = MINE, **options: Any) -> list[str]:
    """Return the problems of the matching jobs, and check that the points are of the same jobs."""
    rows = story.database.read_sync(lambda conn: browse_jobs(conn, chosen, **{"limit": 100, **options}))
    if not options:
        points = story.database.read_sync(lambda conn: job_points(conn, chosen, limit=100))
        assert [(point.job_id, point.status) for point in points] == [(row.job_id, row.status) for row in rows]
    return [row.problem for row in rows]


def note(door: Door) -> str:
    return DoorNote(door=door, details={"door": "jobs"}).model_dump_json()


def test_filters_hold_together(story: Story) -> None:
    story.accept("Old sum", door=note(Door.chat))
    story.now += 100
    story.accept("New SUM of 100% and a_b", door=note(Door.chat))
    story.now += 1
    ended = story.accept("Product", door=note(Door.batches)).job_id
    story.now += 1
    story.accept("From a terminal")
    story.accept("Sum of others", tenant="other", door=note(Door.chat))
    story.end(ended, Ending(JobStatus.failed, error=JobError(code="no_answer", message="none")))

    assert listed(story) == ["From a terminal", "Product", "New SUM of 100% and a_b", "Old sum"]
    assert listed(story, JobFilter("default", text="sum")) == ["New SUM of 100% and a_b", "Old sum"]
    assert listed(story, JobFilter("default", text="100%")) == ["New SUM of 100% and a_b"]
    assert listed(story, JobFilter("default", text="a_b")) == ["New SUM of 100% and a_b"]
    assert listed(story, JobFilter("default", text="a%b")) == []
    assert listed(story, JobFilter("default", door=Door.chat)) == ["New SUM of 100% and a_b", "Old sum"]
    assert listed(story, JobFilter("default", door=Door.jobs)) == []
    assert listed(story, JobFilter("default", without_door=True)) == ["From a terminal"]
    assert listed(story, JobFilter("default", status=JobStatus.failed)) == ["Product"]
    assert listed(story, JobFilter("default", status=JobStatus.queued, text="sum", since=story.now - 50)) == [
        "New SUM of 100% and a_b"
    ]
    assert listed(story, JobFilter("default", since=story.now + 50)) == []
    assert listed(story, JobFilter("other")) == ["Sum of others"]
    assert listed(story, JobFilter("nobody")) == []


def test_pages_follow_one_another(story: Story) -> None:
    for number in range(5):
        story.now += 1
        story.accept(f"Job {number}")
    first = story.database.read_sync(lambda conn: browse_jobs(conn, MINE, limit=2))
    assert [row.problem for row in first] == ["Job 4", "Job 3"]
    assert listed(story, limit=2, before=first[-1].job_id) == ["Job 2", "Job 1"]


@pytest.mark.parametrize(
    ("verdict", "status", "shown"),
    [
        (ScreenVerdict.safe, JobStatus.refused, True),
        (ScreenVerdict.unsafe, JobStatus.refused, False),
        (ScreenVerdict.error, JobStatus.failed, False),
    ],
)
def test_a_refused_request_is_not_in_the_list(
    story: Story, verdict: ScreenVerdict, status: JobStatus, *, shown: bool
) -> None:
    message = story.accept("The request")
    assert listed(story) == ["The request"], "not screened yet: it is the caller's own"
    claim = story.claimed(message)
    story.finish(claim, Screened(verdict=verdict))
    story.end(message.job_id, Ending(status, error=JobError(code=status.value, message="the answer was withheld")))

    problem = "The request" if shown else WITHHELD
    assert listed(story) == [problem]
    read = story.database.read_sync
    assert read(lambda conn: job_object(conn, message.job_id, tenant="default")).problem == problem
    assert [job.problem for job in read(lambda conn: list_job_objects(conn, tenant="default"))[0]] == [problem]
    assert [job.problem for job in read(list_jobs)] == [problem]


def test_the_door_is_the_owners_to_see(story: Story) -> None:
    job_id = story.accept("Mine", door=note(Door.responses)).job_id
    bare = story.accept("From a terminal").job_id

    found = story.database.read_sync(lambda conn: job_door(conn, job_id.upper(), tenant="default"))
    assert found == (job_id, DoorNote(door=Door.responses, details={"door": "jobs"}))
    assert story.database.read_sync(lambda conn: job_door(conn, bare, tenant="default")) == (bare, None)
    for asked, tenant in ((job_id, "other"), ("nonsense", "default")):
        with pytest.raises(NotFound):
            story.database.read_sync(lambda conn, one=asked, of=tenant: job_door(conn, one, tenant=of))
