"""The state machine row by row: given a job's steps, what comes next."""

from collections.abc import Callable
from typing import Any

import pytest
from k2think.agents.pipeline import advance
from k2think.schemas.checks import Checks, UnitTest
from k2think.schemas.completion import ChatMessage, FinishReason, TokenUsage
from k2think.schemas.jobs import JobStatus, SolveRequest
from k2think.schemas.messages import ComparePair, GenerateCandidate, MakePlan, ScreenInput, ScreenOutput
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
from k2think.schemas.policy import Policy
from k2think.schemas.progress import Decision, JobView

SAFE = Screened(verdict=ScreenVerdict.safe)
T0 = 1_000.0


def done(name: str, result: StepResult, *, tokens: int = 0) -> StepView:
    return StepView(name=name, status=StepStatus.done, result=result, usage=TokenUsage(completion=tokens))


def running(name: str) -> StepView:
    return StepView(name=name, status=StepStatus.running)


def failed(name: str, code: str = "backend_unreachable") -> StepView:
    return StepView(name=name, status=StepStatus.failed, failure=StepFailure(code=code, message="no connection"))


def answer(index: int, text: str | None, **more: Any) -> StepView:
    return done(f"generate-{index}", Candidate(index=index, content=text or "", answer=text, **more))


def verdict(first: int, second: int, preference: str) -> StepView:
    result = Compared(first=first, second=second, preference=Preference(preference))
    return done(f"compare-{first}-{second}", result)


BEGUN = [done("screen_input", SAFE), done("plan", Planned(plan="add"))]


def job(*steps: StepView, request: SolveRequest | None = None, **policy: Any) -> JobView:
    chosen = request or SolveRequest(problem="6 times 7?", policy=Policy.model_validate(policy))
    return JobView("job", "default", JobStatus.running, chosen, T0, T0, steps={step.name: step for step in steps})


def created(decision: Decision) -> list[str]:
    return [step.name for step in decision.create]


ROWS: list[tuple[str, JobView, list[str], list[str]]] = [
    ("a new job is screened", job(), ["screen_input"], []),
    ("while it is screened nothing else happens", job(running("screen_input")), [], []),
    ("a safe request is planned", job(done("screen_input", SAFE)), ["plan"], []),
    ("without a plan it is sampled", job(done("screen_input", SAFE), plan="off"), ["generate-0", "generate-1", "generate-2"], []),
    ("each sample may have its plan", job(done("screen_input", SAFE), plan="per_sample", n=2), ["plan-0", "plan-1"], []),
    (
        "a sample does not wait for the plan of another",
        job(done("screen_input", SAFE), done("plan-0", Planned(plan="a")), running("plan-1"), plan="per_sample", n=2),
        ["generate-0"],
        [],
    ),
    ("a shared plan is sampled n times", job(*BEGUN), ["generate-0", "generate-1", "generate-2"], []),
    (
        "a plan that is to be shown is screened by itself while it is sampled",
        job(*BEGUN, show_plan=True),
        ["screen_plan", "generate-0", "generate-1", "generate-2"],
        [],
    ),
    ("a plan of a single sample is not shown", job(BEGUN[0], done("plan-0", Planned(plan="a")), plan="per_sample", n=1, show_plan=True), ["generate-0"], []),
    ("no plan, nothing to show", job(BEGUN[0], failed("plan"), show_plan=True, n=1), ["generate-0"], []),
    (
        "nothing waits for the screening of the plan",
        job(*BEGUN, running("screen_plan"), answer(0, "42"), running("generate-1"), answer(2, "42"), show_plan=True),
        ["screen_output"],
        ["generate-1"],
    ),
    (
        "a plan that may not be shown is worked with all the same",
        job(*BEGUN, done("screen_plan", Screened(verdict=ScreenVerdict.unsafe)), answer(0, "42"), answer(1, "41"), show_plan=True),
        ["generate-2"],
        [],
    ),
    ("a failed plan is no plan", job(BEGUN[0], failed("plan")), ["generate-0", "generate-1", "generate-2"], []),
    ("one of three waits", job(*BEGUN, answer(0, "42"), running("generate-1"), running("generate-2")), [], []),
    (
        "two of three agree: stop, no judge",
        job(*BEGUN, answer(0, "42"), running("generate-1"), answer(2, "42.0")),
        ["screen_output"],
        ["generate-1"],
    ),
    (
        "without early stop all are waited for",
        job(*BEGUN, answer(0, "42"), running("generate-1"), answer(2, "42"), early_stop=False),
        [],
        [],
    ),
    (
        "disagreement is judged in both orders",
        job(*BEGUN, answer(0, "42"), answer(1, "41"), answer(2, None)),
        ["compare-0-1", "compare-1-0"],
        [],
    ),
    (
        "or in one, if set so",
        job(*BEGUN, answer(0, "42"), answer(1, "41"), answer(2, None), swap_order=False),
        ["compare-0-1"],
        [],
    ),
    (
        "the larger cluster is the favourite, one representative each",
        job(*BEGUN, answer(0, "7"), answer(1, "42"), answer(2, "42"), answer(3, "8"), n=4),
        ["compare-1-0", "compare-0-1"],
        [],
    ),
    (
        "the winner meets the next challenger",
        job(*BEGUN, answer(0, "1"), answer(1, "2"), answer(2, "3"), verdict(0, 1, "second"), verdict(1, 0, "first")),
        ["compare-1-2", "compare-2-1"],
        [],
    ),
    (
        "a verdict that flips with the order is a tie, and the favourite stays",
        job(*BEGUN, answer(0, "1"), answer(1, "2"), answer(2, None), verdict(0, 1, "first"), verdict(1, 0, "first")),
        ["screen_output"],
        [],
    ),
    (
        "a judge that fails is a tie",
        job(*BEGUN, answer(0, "1"), answer(1, "2"), answer(2, None), failed("compare-0-1"), failed("compare-1-0")),
        ["screen_output"],
        [],
    ),
    (
        "the paper judges even those that agree, in one order",
        job(*BEGUN, answer(0, "42"), answer(1, "42"), answer(2, "42"), preset="paper"),
        ["compare-0-1"],
        [],
    ),
    ("a vote needs no judge", job(*BEGUN, answer(0, "1"), answer(1, "2"), answer(2, "3"), selection="vote"), ["screen_output"], []),
    (
        "the first usable one may be enough",
        job(*BEGUN, running("generate-0"), answer(1, "2"), running("generate-2"), selection="first"),
        ["screen_output"],
        ["generate-0", "generate-2"],
    ),
    (
        "cut off, empty and unparseable lose before any judging",
        job(*BEGUN, answer(0, "1", finish_reason=FinishReason.length), answer(1, "2"), answer(2, None)),
        ["screen_output"],
        [],
    ),
    (
        "tokens spent: no judge is called",
        job(*BEGUN, answer(0, "1"), done("generate-1", Candidate(index=1, content="2", answer="2"), tokens=99), answer(2, "3"), token_budget=50),
        ["screen_output"],
        [],
    ),
]  # fmt: skip


@pytest.mark.parametrize(("what", "given", "creates", "cancels"), ROWS, ids=[row[0] for row in ROWS])
def test_what_comes_next(what: str, given: JobView, creates: list[str], cancels: list[str]) -> None:
    decision = advance(given, now=T0 + 1)

    assert created(decision) == creates
    assert list(decision.cancel) == cancels
    assert decision.ending is None
    assert decision.wake_at is not None, "a job that goes on is always looked at again"


def test_asking_twice_gives_the_same_steps() -> None:
    for _what, given, creates, _cancels in ROWS:
        assert created(advance(given, now=T0 + 1)) == creates == created(advance(given, now=T0 + 2))


def test_bodies_carry_what_the_agents_need() -> None:
    request = SolveRequest(
        messages=(ChatMessage(role="system", content="Be brief."), ChatMessage(role="user", content="6 times 7?")),
        policy=Policy.model_validate({"sampling": {"seed": 7}, "backend": "fast"}),
    )

    plan = advance(job(done("screen_input", SAFE), request=request), now=T0).create[0].body
    samples = [step.body for step in advance(job(*BEGUN, request=request), now=T0).create]

    assert isinstance(plan, MakePlan)
    assert plan.messages == request.messages
    assert all(isinstance(body, GenerateCandidate) for body in samples)
    assert [body.sampling.seed for body in samples if isinstance(body, GenerateCandidate)] == [7, 8, 9]
    assert {body.plan for body in samples if isinstance(body, GenerateCandidate)} == {"add"}
    assert {body.backend for body in samples if isinstance(body, GenerateCandidate)} == {"fast"}


def test_the_judge_sees_answers_without_reasoning() -> None:
    steps = [*BEGUN, answer(0, "1", reasoning="secret one"), answer(1, "2", reasoning="secret two"), answer(2, None)]

    bodies = [step.body for step in advance(job(*steps), now=T0).create]

    assert all(isinstance(body, ComparePair) for body in bodies)
    assert "secret" not in "".join(body.model_dump_json() for body in bodies)


def test_everything_shown_is_screened() -> None:
    steps = [*BEGUN, answer(0, "42", reasoning="six sevens"), answer(1, "42"), answer(2, "42")]

    body = advance(job(*steps), now=T0).create[0].body

    assert isinstance(body, ScreenOutput)
    assert (body.content, body.reasoning, body.plan) == ("42", "six sevens", "add")


AGREED = [*BEGUN, answer(0, "42"), answer(1, "42"), answer(2, "41")]


@pytest.mark.parametrize(
    ("steps", "policy", "status", "code"),
    [
        ([done("screen_input", Screened(verdict=ScreenVerdict.unsafe, category="weapons"))], {}, "refused", "refused"),
        ([done("screen_input", Screened(verdict=ScreenVerdict.error))], {}, "failed", "screening_failed"),
        ([failed("screen_input")], {}, "failed", "screening_failed"),
        ([*AGREED, done("screen_output", SAFE)], {}, "succeeded", None),
        ([*AGREED, done("screen_output", Screened(verdict=ScreenVerdict.unsafe))], {}, "refused", "refused"),
        ([*AGREED, failed("screen_output")], {}, "failed", "screening_failed"),
        ([*BEGUN, answer(0, None), answer(1, None), answer(2, None)], {}, "failed", "no_answer"),
        ([*BEGUN, failed("generate-0"), failed("generate-1"), failed("generate-2")], {}, "failed", "backend_unreachable"),
        ([*BEGUN, failed("generate-0"), answer(1, None), failed("generate-2")], {}, "failed", "no_answer"),
        (
            [*BEGUN, done("generate-0", Candidate(index=0, content="", answer=None), tokens=60), running("generate-1"), running("generate-2")],
            {"token_budget": 50},
            "failed",
            "token_budget",
        ),
    ],
)  # fmt: skip
def test_endings(steps: list[StepView], policy: dict[str, Any], status: str, code: str | None) -> None:
    ending = advance(job(*steps, **policy), now=T0 + 1).ending

    assert ending is not None
    assert ending.status == status
    assert (ending.error.code if ending.error else None) == code


def test_a_plan_that_spends_the_token_budget_is_told_as_the_reason() -> None:
    plan = done("plan", Planned(plan="add"), tokens=60)

    ending = advance(job(done("screen_input", SAFE), plan, token_budget=50), now=T0 + 1).ending

    assert ending is not None
    assert ending.error is not None
    assert ending.error.code == "token_budget"
    assert "the token budget of 50 was spent before any candidate" in ending.error.message


def test_the_report_tells_how_the_winner_was_chosen() -> None:
    steps = [*BEGUN, answer(0, "1"), answer(1, "2"), answer(2, None), verdict(0, 1, "second"), verdict(1, 0, "first")]

    ending = advance(job(*steps, done("screen_output", SAFE)), now=T0).ending

    assert ending is not None
    assert ending.selection is not None
    assert ending.winner == ending.selection.winner == 1
    assert ending.selection.clusters == ((0,), (1,))
    assert [item.winner for item in ending.selection.comparisons] == [1, 1]
    assert list(ending.selection.disqualified) == [2]


def test_the_soft_timeout_goes_on_with_what_there_is() -> None:
    given = job(*BEGUN, answer(0, "42"), running("generate-1"), running("generate-2"), soft_timeout_s=5.0)

    before, after = advance(given, now=T0 + 4), advance(given, now=T0 + 5)

    assert (created(before), before.wake_at) == ([], T0 + 5)
    assert (created(after), after.cancel) == (["screen_output"], ("generate-1", "generate-2"))


def test_the_soft_timeout_waits_for_the_first_usable_one() -> None:
    given = job(*BEGUN, answer(0, None), running("generate-1"), running("generate-2"), soft_timeout_s=5.0)

    decision = advance(given, now=T0 + 6)

    assert (created(decision), decision.cancel, decision.ending) == ([], (), None)


def test_the_deadline_ends_everything() -> None:
    ending = advance(job(*BEGUN, running("generate-0"), deadline_s=60.0), now=T0 + 60).ending

    assert ending is not None
    assert ending.status is JobStatus.expired


def test_answers_that_only_symbolic_maths_can_tell_apart_are_asked_about_first() -> None:
    steps = [*BEGUN, answer(0, "\\sin^2(x)+\\cos^2(x)"), answer(1, "1"), answer(2, None)]
    asked = advance(job(*steps), now=T0)
    known = job(*steps)
    known.equivalences[0, 1] = True

    assert asked.undecided == ((0, 1),)
    assert created(advance(known, now=T0)) == ["screen_output"]


def unit_tested(index: int, status: CheckStatus) -> StepView:
    return answer(index, f"code {index}", check=status, check_detail="test 1 failed")


@pytest.mark.parametrize(
    ("steps", "expect"),
    [
        (lambda: [unit_tested(0, CheckStatus.failed), unit_tested(1, CheckStatus.passed), running("generate-2")], ["screen_output"]),
        (lambda: [unit_tested(0, CheckStatus.failed), running("generate-1"), running("generate-2")], []),
    ],
)  # fmt: skip
def test_unit_tests_outrank_the_judge(steps: Callable[[], list[StepView]], expect: list[str]) -> None:
    request = SolveRequest(problem="write f", checks=Checks(unit_tests=(UnitTest(code="f()"),)))

    decision = advance(job(*BEGUN, *steps(), request=request), now=T0)

    assert created(decision) == expect


@pytest.mark.parametrize(
    ("status", "code"), [(CheckStatus.failed, "checks_failed"), (CheckStatus.error, "checks_unavailable")]
)
def test_no_candidate_passes(status: CheckStatus, code: str) -> None:
    request = SolveRequest(problem="write f", checks=Checks(unit_tests=(UnitTest(code="f()"),)))

    ending = advance(job(*BEGUN, *(unit_tested(i, status) for i in range(3)), request=request), now=T0).ending

    assert ending is not None
    assert ending.error is not None
    assert ending.error.code == code


def test_a_chat_may_have_no_final_answer() -> None:
    request = SolveRequest(messages=(ChatMessage(role="user", content="Write a haiku."),))
    texts = [done(f"generate-{i}", Candidate(index=i, content=f"haiku {i}", answer=None)) for i in range(3)]

    assert created(advance(job(*BEGUN, *texts, request=request), now=T0)) == ["compare-0-1", "compare-1-0"]


def test_a_job_that_has_ended_stays_ended() -> None:
    given = JobView("job", "default", JobStatus.cancelled, SolveRequest(problem="x"), T0, T0)

    assert advance(given, now=T0 + 9_999) == Decision()


def test_the_request_is_screened_as_it_came() -> None:
    body = advance(job(), now=T0).create[0].body

    assert isinstance(body, ScreenInput)
    assert body.messages[-1].content == "6 times 7?"
