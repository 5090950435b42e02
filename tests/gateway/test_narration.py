"""What is told of a job before its answer is there: the same lines for the same events, and no text unscreened."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from k2think.gateway.narration import Narrator, Told
from k2think.gateway.responses.stream import Script
from k2think.schemas.completion import FinishReason
from k2think.schemas.doors import Door, DoorNote
from k2think.schemas.jobs import CUT_OFF, JobError, JobStatus, SolveRequest, SolveResult
from k2think.schemas.policy import Policy
from k2think.schemas.responses import ResponseBody, ResponseDetails
from k2think.schemas.trace import EventKind, JobEvent
from k2think.store.door_jobs import DoorJob
from openai.types.responses import ResponseStreamEvent
from pydantic import BaseModel

JOB_ID = "01890a5d-ac96-774b-bcce-b302099a8057"
AT = 1_760_000_000.25
PLAN = "Add ones, then tens."
SUCCEEDED = SolveResult(
    job_id=JOB_ID, status=JobStatus.succeeded, answer="405", content="It is 405.", reasoning="5 + 8 is 13.", plan=PLAN
)
THEIRS: dict[str, type[BaseModel]] = {
    get_args(event.model_fields["type"].annotation)[0]: event for event in get_args(get_args(ResponseStreamEvent)[0])
}
"""The client's types of events, by their names. The union of them takes half a minute to build."""
STORY = [
    ("accepted", None),
    ("step_started", "screen_input"),
    ("step_finished", "screen_input"),
    ("step_started", "plan"),
    ("step_finished", "plan"),
    ("step_started", "screen_plan"),
    ("step_started", "generate-0"),
    ("step_started", "generate-1"),
    ("step_finished", "screen_plan"),
    ("step_retried", "generate-1"),
    ("step_finished", "generate-0"),
    ("step_started", "generate-1"),
    ("step_finished", "generate-1"),
    ("step_failed", "generate-2"),
    ("step_started", "compare-0-1"),
    ("step_started", "compare-1-0"),
    ("step_finished", "compare-0-1"),
    ("step_started", "screen_output"),
    ("finished", None),
]
TOLD = [
    "Planning.",
    "Sampling 3 candidates.",
    f"Plan:\n{PLAN}",
    "Candidate 2 is tried again.",
    "1 of 3 candidates done.",
    "2 of 3 candidates done.",
    "Candidate 3 failed.",
    "Comparing candidates 1 and 2.",
    "Comparing candidates 2 and 1.",
    "Screening the answer.",
]


def events(story: list[tuple[str, str | None]]) -> list[JobEvent]:
    return [
        JobEvent(seq=10 * number, job_id=JOB_ID, at=AT, kind=EventKind(kind), step=step)
        for number, (kind, step) in enumerate(story, 1)
    ]


def told(
    story: list[tuple[str, str | None]], *, screened: bool = True, result: SolveResult = SUCCEEDED, **policy: Any
) -> list[Told]:
    narrator = Narrator(Policy.model_validate({"show_plan": True, **policy}))
    found: list[Told] = []
    for event in events(story):
        plan = PLAN if screened and narrator.wants_plan(event) else None
        end = result if event.kind is EventKind.finished else None
        found.append(Told(event, narrator.lines(event, plan=plan, result=end), end))
    return found


def lines(story: list[tuple[str, str | None]], **options: Any) -> list[str]:
    return [line for item in told(story, **options) for line in item.lines]


def test_a_job_is_told_step_by_step() -> None:
    assert lines(STORY) == TOLD


def test_a_plan_that_was_not_let_pass_is_told_only_with_an_answer_that_was() -> None:
    refused = SolveResult(job_id=JOB_ID, status=JobStatus.refused, error=JobError(code="refused", message="withheld"))
    without = [line for line in TOLD if PLAN not in line]
    assert lines(STORY, screened=False, result=refused) == without
    assert lines(STORY, screened=False) == [*without, f"Plan:\n{PLAN}"]
    assert lines(STORY, show_plan=False) == [*without, f"Plan:\n{PLAN}"]


def test_a_single_candidate_is_not_counted() -> None:
    story = [("step_failed", "plan"), ("step_started", "generate-0"), ("step_finished", "generate-0")]
    assert lines(story, n=1) == ["No plan came about.", "Sampling a candidate."]


def test_plans_of_their_own_are_made_once_in_the_telling() -> None:
    story = [("step_started", "plan-0"), ("step_started", "plan-1"), ("step_retried", "plan-0")]
    assert lines(story, plan="per_sample") == ["Planning.", "A step is tried again."]


def test_a_single_sample_of_a_model_is_told_without_a_word() -> None:
    result = SUCCEEDED.model_copy(update={"plan": None})
    assert lines(STORY, result=result, screened=False, n=1, plan="off", as_is=True) == []


def door_job(**fields: Any) -> DoorJob:
    body = ResponseBody.model_validate({"model": "k2think", "input": "347 + 58?", **fields})
    details = ResponseDetails.of(body, digest="d")
    note = DoorNote(door=Door.responses, model="k2think", details=details.model_dump())
    request = SolveRequest(messages=body.as_chat().conversation)
    return DoorJob(JOB_ID, JobStatus.running, note, request, None, AT, None)


def written(result: SolveResult, story: list[tuple[str, str | None]] = STORY, **fields: Any) -> list[dict[str, Any]]:
    script = Script(door_job(**fields))
    return [event for item in told(story, result=result) for event in script.events(item)]


def ended(status: str, **fields: Any) -> SolveResult:
    return SolveResult.model_validate({"job_id": JOB_ID, "status": status, **fields})


RESULTS: list[tuple[SolveResult, str, str, list[str]]] = [
    (SUCCEEDED, "response.completed", "completed", ["reasoning", "message"]),
    (
        SUCCEEDED.model_copy(update={"finish_reason": FinishReason.length}),
        "response.incomplete",
        "incomplete",
        ["reasoning", "message"],
    ),
    (
        ended("refused", error=JobError(code="refused", message="withheld")),
        "response.incomplete",
        "incomplete",
        ["reasoning", "message"],
    ),
    (ended("failed", error=JobError(code=CUT_OFF, message="x")), "response.incomplete", "incomplete", ["reasoning"]),
    (ended("failed", error=JobError(code="no_answer", message="x")), "response.failed", "failed", ["reasoning"]),
    (ended("expired", error=JobError(code="expired", message="x")), "response.failed", "failed", ["reasoning"]),
    (ended("cancelled", error=JobError(code="cancelled", message="x")), "response.failed", "cancelled", ["reasoning"]),
]


@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize(("result", "kind", "status", "items"), RESULTS, ids=[row[0].status for row in RESULTS])
def test_every_ending_is_a_sequence_that_the_client_can_read(
    result: SolveResult, kind: str, status: str, items: list[str], background: bool
) -> None:
    found = written(result, background=background)

    parsed = [THEIRS[event["type"]].model_validate(_plain(event)) for event in found]
    assert [event.sequence_number for event in parsed] == list(range(len(parsed)))
    assert [event.type for event in parsed] == [event["type"] for event in found]
    last: Any = parsed[-1]
    assert (last.type, last.response.status) == (kind, status)
    assert [item.type for item in last.response.output] == items
    assert [event["item"].type for event in found if event["type"] == "response.output_item.done"] == items
    assert ("response.queued" in {event["type"] for event in found}) is background


def test_a_job_that_ended_before_it_began_has_a_beginning_and_an_end() -> None:
    result = ended("cancelled", error=JobError(code="cancelled", message="x"))
    kinds = [event["type"] for event in written(result, [("accepted", None), ("finished", None)])]
    assert kinds == ["response.created", "response.failed"]


def test_a_long_answer_comes_in_pieces_that_are_the_whole() -> None:
    text = "word " * 1000
    found = written(SUCCEEDED.model_copy(update={"content": text}))
    deltas = [event["delta"] for event in found if event["type"] == "response.output_text.delta"]
    assert len(deltas) > 5
    assert "".join(deltas) == text


def _plain(event: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value.model_dump(mode="json") if hasattr(value, "model_dump") else value for name, value in event.items()
    }
