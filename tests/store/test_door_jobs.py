"""Jobs as one door shows them again: its own, of one tenant; and the plan only once it has passed its screening."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import pytest
from k2think.schemas.completion import ChatMessage
from k2think.schemas.doors import Door, DoorNote
from k2think.schemas.jobs import JobError, JobStatus
from k2think.schemas.messages import MakePlan, ScreenPlan
from k2think.schemas.outcomes import Planned, Screened, ScreenVerdict, StepResult
from k2think.schemas.progress import Ending, NewStep
from k2think.store.door_jobs import change_note, door_job, door_note, screened_plan

if TYPE_CHECKING:
    from conftest import Story

TURN = (ChatMessage(role="user", content="What is 1 + 1?"),)
NOTE = DoorNote(door=Door.responses, model="k2think", details={"instructions": "Be ½ as long.\x00", "n": 1})
PLAN = "Count."


def accepted(story: Story, *, tenant: str = "default", note: DoorNote | None = NOTE) -> str:
    door = None if note is None else note.model_dump_json()
    return story.accept(tenant=tenant, door=door, metadata={"a": "b"}).job_id


def find(story: Story, job_id: str, *, tenant: str = "default", door: Door = Door.responses) -> Any:
    return story.database.read_sync(lambda conn: door_job(conn, job_id, tenant=tenant, door=door))


def test_a_job_comes_back_with_what_its_door_noted(story: Story) -> None:
    job_id = accepted(story)

    found = find(story, job_id)

    assert (found.id, found.status, found.note) == (job_id, JobStatus.queued, NOTE)
    assert (found.request.metadata, found.result, found.created_at) == ({"a": "b"}, None, story.now)
    story.end(job_id, Ending(JobStatus.cancelled, error=JobError(code="cancelled", message="x")))
    ended = find(story, job_id)
    assert (ended.status, ended.result.status, ended.finished_at) == ("cancelled", "cancelled", story.now)


def test_another_tenants_or_doors_job_is_not_there(story: Story) -> None:
    job_id, bare = accepted(story), accepted(story, note=None)
    assert find(story, job_id, tenant="other") is None
    assert find(story, job_id, door=Door.chat) is None
    assert find(story, bare) is None
    assert find(story, str(uuid.uuid4())) is None


def test_a_note_can_be_changed(story: Story) -> None:
    job_id, other = accepted(story), accepted(story)
    changed = NOTE.model_copy(update={"details": {"deleted": True}})

    story.database.run_sync(lambda conn: change_note(conn, job_id, changed))

    notes = [story.database.read_sync(lambda conn, one=each: door_note(conn, one)) for each in (job_id, other)]
    assert notes == [changed, NOTE]
    assert story.database.read_sync(lambda conn: door_note(conn, str(uuid.uuid4()))) is None


def done(story: Story, job_id: str, step: NewStep, result: StepResult) -> None:
    (message,) = story.create(job_id, step)
    claim = story.claimed(message)
    assert story.finish(claim, result)


@pytest.mark.parametrize(
    ("verdict", "shown"), [(ScreenVerdict.safe, PLAN), (ScreenVerdict.unsafe, None), (ScreenVerdict.error, None)]
)
def test_a_plan_is_shown_once_it_has_passed(story: Story, verdict: ScreenVerdict, shown: str | None) -> None:
    job_id = accepted(story)

    def plan() -> str | None:
        return story.database.read_sync(lambda conn: screened_plan(conn, job_id))

    assert plan() is None
    done(story, job_id, NewStep("plan", MakePlan(messages=TURN)), Planned(plan=PLAN))
    assert plan() is None
    done(story, job_id, NewStep("screen_plan", ScreenPlan(messages=TURN, plan=PLAN)), Screened(verdict=verdict))
    assert plan() == shown
