"""The wire form, pinned: each example below dumps to exactly its file in `golden/`, and the file parses back to it.

After a change of the wire form that is meant (then also think of SCHEMA_VERSION, and of rows already in databases), write
the files anew and read the diff: `python tests/schemas/test_golden.py`
"""

from __future__ import annotations

import enum
import importlib
import inspect
import json
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import k2think.schemas
import pytest
from k2think.schemas.checks import AnswerForm, Checks, UnitTest
from k2think.schemas.completion import ChatMessage, FinishReason, TokenUsage
from k2think.schemas.jobs import (
    Comparison,
    JobError,
    JobStatus,
    SelectionReport,
    SolveRequest,
    SolveResult,
    Timings,
    UsageReport,
)
from k2think.schemas.messages import (
    Body,
    ComparePair,
    Envelope,
    GenerateCandidate,
    MakePlan,
    ScreenInput,
    ScreenOutput,
    ScreenPlan,
)
from k2think.schemas.outcomes import (
    Candidate,
    CheckStatus,
    Compared,
    Planned,
    Preference,
    Screened,
    ScreenVerdict,
    StepFailure,
    StepResult,
    StepStatus,
    StepView,
)
from k2think.schemas.policy import Plan, Policy, Priority, Sampling, Selection
from k2think.schemas.trace import (
    AttemptOutcome,
    AttemptTrace,
    CallTrace,
    EventKind,
    JobEvent,
    JobSummary,
    JobTrace,
    LeftCall,
    StepTrace,
)
from pydantic import BaseModel, TypeAdapter, ValidationError

GOLDEN = Path(__file__).parent / "golden"
JOB_ID = "01890a5d-ac96-774b-bcce-b302099a8057"
MESSAGE_ID = "01890a5d-ac97-7000-8000-000000000001"
NOW = 1_760_000_000.25
FREE_DICTS = {"metadata", "parameters", "rate_limits", "detail", "calls", "disqualified", "result"}
"""Fields whose keys are data, not names of ours (`result` in a StepTrace; a SolveResult there is checked on its own)."""

PROBLEM = (ChatMessage(role="user", content="What is ½ + ½?\n«Antworte» 日本"),)
CHAT = (
    ChatMessage(role="system", content="Be short."),
    ChatMessage(role="user", content="Hello"),
    ChatMessage(role="assistant", content="Hi"),
    ChatMessage(role="user", content="What is 347 + 58?"),
)
CHECKS = Checks(
    answer_form=AnswerForm.integer,
    unit_tests=(UnitTest(stdin="1 2\n", expected_stdout="3\n"), UnitTest(code="assert add(1, 2) == 3")),
)
BODIES: tuple[Body, ...] = (
    ScreenInput(messages=CHAT),
    MakePlan(messages=PROBLEM, candidate=2, templates="paper", seed=7),
    ScreenPlan(messages=PROBLEM, plan="Add the halves."),
    GenerateCandidate(
        messages=PROBLEM,
        candidate=1,
        plan="Add the halves.",
        sampling=Sampling(temperature=0.5, top_p=0.9, max_tokens=512, stop=("</answer>", "END"), seed=8),
        checks=CHECKS,
        backend="fast",
        templates="default",
    ),
    ComparePair(messages=PROBLEM, first=2, second=0, first_answer="1", second_answer="2", templates="mini", seed=9),
    ScreenOutput(messages=PROBLEM, candidate=0, content="It is 1.", reasoning="Two halves.", plan="Add the halves."),
)
RESULTS: tuple[StepResult, ...] = (
    Screened(verdict=ScreenVerdict.unsafe, category="weapons", layer="guard"),
    Planned(plan="Add the halves.", topics=("fractions",), difficulty="easy"),
    Candidate(
        index=1,
        content="It is \\boxed{1}.",
        answer="1",
        reasoning="Two halves.",
        finish_reason=FinishReason.length,
        check=CheckStatus.failed,
        check_detail="test 2: expected 3",
    ),
    Compared(first=2, second=0, preference=Preference.second, usable=False, reason="unreadable"),
)
REQUEST = SolveRequest(
    problem="What is 347 + 58?",
    policy=Policy(
        n=5,
        plan=Plan.per_sample,
        selection=Selection.vote,
        early_stop=False,
        swap_order=False,
        sampling=Sampling(seed=1),
        templates="mini",
        soft_timeout_s=30.5,
        deadline_s=60,
        token_budget=10_000,
        priority=Priority.batch,
        backend="fast",
        as_is=True,
        show_plan=True,
    ),
    checks=CHECKS,
    metadata={"line": "17"},
    idempotency_key="order-17",
)
SUCCEEDED = SolveResult(
    job_id=JOB_ID,
    status=JobStatus.succeeded,
    answer="405",
    content="The sum is 405.",
    reasoning="347 + 58 = 405",
    finish_reason=FinishReason.stop,
    plan="Add.",
    selection=SelectionReport(
        method=Selection.consensus_then_pairwise,
        clusters=((0, 2), (1,)),
        votes=2,
        comparisons=(Comparison(first=0, second=1, winner=None, usable=True, reason="alike"),),
        winner=0,
        disqualified={3: "cut off"},
    ),
    usage=UsageReport(
        planner=TokenUsage(prompt=10, completion=5),
        generator=TokenUsage(prompt=60, completion=90, reasoning=70),
        verifier=TokenUsage(prompt=80, completion=8),
        total=TokenUsage(prompt=150, completion=103, reasoning=70),
        calls={"planner": 1, "generator": 4, "verifier": 2},
        wasted_tokens=12,
    ),
    timings=Timings(queue=0.01, plan=0.5, generate=2.25, verify=0.75, screen=0.02, total=3.5),
    metadata={"line": "17"},
)
EVENT = JobEvent(
    seq=42,
    job_id=JOB_ID,
    at=NOW + 1,
    kind=EventKind.step_finished,
    step="generate.0",
    detail={"attempt": 1, "worker": "generator@host:1", "status": "done"},
)
ATTEMPT = AttemptTrace(
    step="generate.0",
    attempt=1,
    worker="generator@host:1",
    outcome=AttemptOutcome.done,
    queued_at=NOW,
    claimed_at=NOW + 0.5,
    finished_at=NOW + 1,
    error=None,
    call=CallTrace(
        backend="fast",
        model="k2think-mini",
        prompt=list(PROBLEM),
        parameters={"temperature": 1.0, "stop": ["</answer>"]},
        raw_text="<answer>1",
        reasoning="Two halves.",
        answer="1",
        usage=TokenUsage(prompt=10, completion=20, reasoning=15),
        usage_estimated=True,
        finish_reason="stop",
        time_to_first_token_s=0.125,
        duration_s=0.5,
        retries=1,
        limit_wait_s=0.25,
        engine_queue_s=0.0625,
        engine_prompt_s=0.03125,
        engine_completion_s=0.25,
        cached_prompt_tokens=8,
        draft_acceptance=0.75,
        accepted_length=2.5,
        rate_limits={"x-ratelimit-remaining-requests-day": "99"},
        left_calls=[
            LeftCall(
                backend="slow",
                model="simulated",
                reason="hedge_lost",
                usage=TokenUsage(prompt=10, completion=3),
                duration_s=0.5,
            )
        ],
    ),
)
STEP = StepTrace(
    name="generate.0",
    kind="generate_candidate",
    status=StepStatus.done,
    created_at=NOW,
    finished_at=NOW + 1,
    result={"kind": "candidate", "index": 0, "content": "1", "answer": "1"},
    failure=None,
    attempts=(ATTEMPT,),
)


def envelope(body: Body) -> Envelope:
    return Envelope(
        message_id=MESSAGE_ID,
        job_id=JOB_ID,
        step=f"{body.kind}.0",
        attempt=2,
        tenant="acme",
        priority=Priority.normal,
        traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        body=body,
    )


EXAMPLES: dict[str, BaseModel] = {
    **{f"envelope_{body.kind}": envelope(body) for body in BODIES},
    **{f"result_{result.kind}": result for result in RESULTS},
    "solve_request_problem": REQUEST,
    "solve_request_chat": SolveRequest(messages=CHAT),
    "solve_request_paper": SolveRequest(problem="1+1", policy=Policy.model_validate("paper")),
    "solve_result_succeeded": SUCCEEDED,
    "solve_result_refused": SolveResult(
        job_id=JOB_ID, status=JobStatus.refused, error=JobError(code="refused", message="The request was withheld.")
    ),
    "solve_result_failed": SolveResult(
        job_id="", status=JobStatus.failed, error=JobError(code="invalid_request", message="the problem is empty")
    ),
    "step_view_failed": StepView(
        name="make_plan",
        status=StepStatus.failed,
        failure=StepFailure(code="dead_letter", message="given up after 3 attempts"),
        usage=TokenUsage(prompt=3, completion=2, reasoning=1),
    ),
    "job_event": EVENT,
    "job_summary": JobSummary(
        job_id=JOB_ID,
        tenant="acme",
        status=JobStatus.succeeded,
        created_at=NOW,
        finished_at=NOW + 3.5,
        problem="What is 347 + 58?",
        answer="405",
        error_code=None,
    ),
    "job_trace": JobTrace(
        job_id=JOB_ID,
        tenant="acme",
        status=JobStatus.succeeded,
        created_at=NOW,
        started_at=NOW + 0.5,
        finished_at=NOW + 3.5,
        request=REQUEST,
        result=SUCCEEDED,
        steps=(STEP,),
        events=(EVENT,),
    ),
}
VOCABULARY = "vocabulary"
"""Name of the file that holds the values of every enumeration."""


def vocabulary() -> dict[str, list[str | int]]:
    found: dict[str, list[str | int]] = {}
    for module in pkgutil.iter_modules(k2think.schemas.__path__, "k2think.schemas."):
        for name, value in vars(importlib.import_module(module.name)).items():
            if inspect.isclass(value) and issubclass(value, enum.Enum) and value.__module__ == module.name:
                found[name] = [member.value for member in value]
    return dict(sorted(found.items()))


def text_of(content: Any) -> str:
    """Write JSON so that equal text means equal content, 1 and 1.0 told apart."""
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def dump(name: str) -> str:
    return text_of(json.loads(EXAMPLES[name].model_dump_json()) if name in EXAMPLES else vocabulary())


def golden(name: str) -> str:
    return (GOLDEN / f"{name}.json").read_text(encoding="utf-8")


def parse(name: str, text: str | bytes) -> object:
    """Parse as a reader does, who knows of a step's result only that it is of the union."""
    if name.startswith("result_"):
        return TypeAdapter[StepResult](StepResult).validate_json(text)
    return type(EXAMPLES[name]).model_validate_json(text)


@pytest.mark.parametrize("name", [*EXAMPLES, VOCABULARY])
def test_what_we_write_is_what_the_file_says(name: str) -> None:
    assert dump(name) == golden(name)


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_file_parses_back_to_an_equal_model(name: str) -> None:
    parsed = parse(name, golden(name))
    assert type(parsed) is type(EXAMPLES[name])
    assert parsed == EXAMPLES[name]


def test_no_file_is_left_over() -> None:
    assert {file.stem for file in GOLDEN.iterdir()} == {*EXAMPLES, VOCABULARY}


@pytest.mark.parametrize(("union", "examples"), [(Body, BODIES), (StepResult, RESULTS)])
def test_every_kind_of_a_union_has_one_example(union: Any, examples: tuple[object, ...]) -> None:
    members = get_args(get_args(union)[0])
    assert len(members) >= 4
    assert [type(example) for example in examples] == list(members)


@pytest.mark.parametrize("example", [*BODIES, *RESULTS, REQUEST, REQUEST.policy], ids=lambda e: type(e).__name__)
def test_an_example_leaves_no_field_at_its_default(example: BaseModel) -> None:
    # `kind` is a constant, `messages` of the problem form and the preset must stay what they are.
    ours = {name: field for name, field in type(example).model_fields.items() if name not in {"kind", "preset"}}
    at_default = {name for name, field in ours.items() if getattr(example, name) == field.get_default()}
    assert at_default <= ({"messages"} if example is REQUEST else set())


def surprises(node: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Walk the objects in a JSON document whose field names are ours."""
    if isinstance(node, dict):
        if path and path[-1] in FREE_DICTS and "job_id" not in node:
            return
        yield path
        for key, value in node.items():
            yield from surprises(value, (*path, key))
    elif isinstance(node, list):
        for number, value in enumerate(node):
            yield from surprises(value, (*path, str(number)))


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_unknown_field_is_refused_at_every_depth(name: str) -> None:
    paths = list(surprises(json.loads(golden(name))))
    assert () in paths
    for path in paths:
        document = json.loads(golden(name))
        node = document
        for part in path:
            node = node[int(part)] if isinstance(node, list) else node[part]
        node["surprise"] = 1
        with pytest.raises(ValidationError, match=r"surprise\s+Extra inputs are not permitted"):
            parse(name, json.dumps(document))


@pytest.mark.parametrize("name", EXAMPLES)
def test_what_crosses_a_border_is_frozen(name: str) -> None:
    example = EXAMPLES[name]
    for field in type(example).model_fields:
        with pytest.raises(ValidationError, match="frozen"):
            setattr(example, field, getattr(example, field))


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for stale in GOLDEN.iterdir():
        stale.unlink()
    for each in (*EXAMPLES, VOCABULARY):
        (GOLDEN / f"{each}.json").write_text(dump(each), encoding="utf-8")
