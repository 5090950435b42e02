"""What the trace page makes of a trace, without a stack: bars, pairs, groups, names, figures, visible text."""

from __future__ import annotations

from typing import Any

import pytest
from k2think.gateway.ui.candidates import candidates, groups, pairs, speed_of
from k2think.gateway.ui.compare import compare
from k2think.gateway.ui.listing import Chosen, list_values
from k2think.gateway.ui.naming import letter, step_title
from k2think.gateway.ui.rendering import seconds
from k2think.gateway.ui.run_view import run_values
from k2think.gateway.ui.text import TEXT_CHARS_MAX, shortened, visible
from k2think.gateway.ui.waterfall import waterfall
from k2think.schemas.completion import TokenUsage
from k2think.schemas.jobs import JobStatus, SelectionReport, SolveRequest, SolveResult
from k2think.schemas.outcomes import StepFailure, StepStatus
from k2think.schemas.policy import Selection
from k2think.schemas.trace import AttemptOutcome, AttemptTrace, CallTrace, JobTrace, LeftCall, StepTrace
from k2think.store.overview import JobPoint

BEGIN = 1_795_000_000.0


def attempt(
    number: int,
    queued: float,
    claimed: float,
    ended: float | None,
    outcome: AttemptOutcome = AttemptOutcome.done,
    *,
    first_s: float | None = None,
) -> AttemptTrace:
    """One start of a step; times in seconds after BEGIN."""
    call = None
    if first_s is not None and ended is not None:
        usage = TokenUsage(prompt=10, completion=20, reasoning=15)
        call = CallTrace(
            backend="openai", model="m", usage=usage, time_to_first_token_s=first_s, duration_s=ended - claimed
        )
    return AttemptTrace(
        step="s",
        attempt=number,
        worker="w",
        outcome=outcome,
        queued_at=BEGIN + queued,
        claimed_at=BEGIN + claimed,
        finished_at=None if ended is None else BEGIN + ended,
        error=StepFailure(code="stalled", message="silence") if outcome is AttemptOutcome.failed else None,
        call=call,
    )


def step(name: str, kind: str, *attempts: AttemptTrace, status: StepStatus = StepStatus.done, **more: Any) -> StepTrace:
    fields = {"result": None, "failure": None, "finished_at": None} | more
    return StepTrace(name=name, kind=kind, status=status, created_at=BEGIN, attempts=attempts, **fields)


def compared(first: int, second: int, preference: str | None, **more: Any) -> StepTrace:
    """A verdict; None = it is still to come."""
    name = f"compare-{first}-{second}"
    if preference is None:
        return step(name, "compare_pair", status=StepStatus.ready)
    result = {"kind": "compared", "first": first, "second": second, "preference": preference, "reason": "r", **more}
    return step(name, "compare_pair", result=result)


def generated(index: int, answer: str) -> StepTrace:
    result = {"kind": "candidate", "index": index, "content": answer, "answer": answer}
    return step(f"generate-{index}", "generate_candidate", attempt(1, 0, 1, 3, first_s=0.5), result=result)


def trace(*steps: StepTrace, ended: float | None = 10.0, selection: SelectionReport | None = None) -> JobTrace:
    result = None
    if ended is not None:
        result = SolveResult(job_id="j", status=JobStatus.succeeded, answer="1", selection=selection)
    return JobTrace(
        job_id="j",
        tenant="default",
        status=JobStatus.running if ended is None else JobStatus.succeeded,
        created_at=BEGIN,
        started_at=BEGIN,
        finished_at=None if ended is None else BEGIN + ended,
        request=SolveRequest(problem="p"),
        result=result,
        steps=steps,
        events=(),
    )


def bars(picture: Any, row: int = 0) -> list[tuple[str, float, float]]:
    return [(bar.kind, round(bar.x, 1), round(bar.width, 1)) for bar in picture.rows[row].bars]


# ---- The waterfall


def test_the_queue_is_told_from_the_first_token_and_from_work() -> None:
    picture = waterfall(trace(step("generate-0", "generate_candidate", attempt(1, 1, 3, 9, first_s=2))), now=0)

    assert bars(picture) == [("wait", 10, 20), ("first", 30, 20), ("run", 50, 40)]
    assert (picture.rows[0].waited_s, picture.rows[0].ran_s) == (2, 6)
    assert (picture.rows[0].agent, picture.rows[0].title) == ("generator", "Candidate 0")
    assert picture.ticks == ((0, 0), (20, 2), (40, 4), (60, 6), (80, 8), (100, 10))


def test_every_attempt_is_in_the_row_of_its_step() -> None:
    lost = attempt(1, 0, 1, 4, AttemptOutcome.lost)
    failed = attempt(2, 4, 5, 6, AttemptOutcome.failed, first_s=0.5)
    row = step("plan", "make_plan", lost, failed, attempt(3, 6, 7, 10))
    picture = waterfall(trace(row), now=0)

    assert [kind for kind, _, _ in bars(picture)] == ["wait", "lost", "wait", "failed", "wait", "run"]
    assert [bar.attempt for bar in picture.rows[0].bars] == [1, 1, 2, 2, 3, 3]
    assert (picture.rows[0].attempts, picture.rows[0].trouble) == (3, ("lost", "failed"))
    assert (picture.rows[0].waited_s, picture.rows[0].ran_s) == (3, 7)


def test_what_is_not_over_reaches_to_now() -> None:
    running = step("plan", "make_plan", attempt(1, 0, 2, None, AttemptOutcome.running), status=StepStatus.running)
    waiting = step("generate-0", "generate_candidate", status=StepStatus.ready)
    backing_off = step(
        "generate-1", "generate_candidate", attempt(1, 0, 1, 2, AttemptOutcome.failed), status=StepStatus.ready
    )
    picture = waterfall(trace(running, waiting, backing_off, ended=None), now=BEGIN + 4)

    assert bars(picture, 0) == [("wait", 0, 50), ("run", 50, 50)]
    assert bars(picture, 1) == [("wait", 0, 100)]
    assert bars(picture, 2) == [("wait", 0, 25), ("failed", 25, 25), ("wait", 50, 50)]
    assert (picture.rows[1].waited_s, picture.rows[1].ran_s) == (4, None)


def test_no_bar_leaves_the_picture_and_none_is_too_small_to_see() -> None:
    late = attempt(1, 0, 9.9999, 30)  # clocks of two machines
    early = attempt(1, -5, -4, 0.00001)
    for shown in (late, early):
        picture = waterfall(trace(step("plan", "make_plan", shown), ended=0.0001), now=0)
        for bar in picture.rows[0].bars:
            assert 0 <= bar.x <= bar.x + bar.width <= 100.001
            assert bar.width >= 0.25


def test_two_pictures_can_have_one_scale() -> None:
    assert bars(waterfall(trace(step("plan", "make_plan", attempt(1, 0, 0, 10))), now=0, span_s=20)) == [("run", 0, 50)]


# ---- Candidates and pairs


def test_groups_and_the_winner_are_marked() -> None:
    report = SelectionReport(
        method=Selection.vote,
        clusters=((1, 2), (0,)),
        votes=2,
        winner=2,
        disqualified={3: "empty: no answer was given"},
    )
    found = trace(*(generated(index, answer) for index, answer in enumerate(("7", "8", "8.0", ""))), selection=report)
    views = candidates(found)

    assert [(view.index, view.group, view.winner) for view in views] == [
        *((0, "B", False), (1, "A", False), (2, "A", True), (3, "", False)),
    ]
    assert views[3].out == "empty: no answer was given"
    assert [(group.letter, group.answer, group.members, group.won) for group in groups(found, views)] == [
        *(("A", "8", (1, 2), True), ("B", "7", (0,), False)),
    ]
    speed = views[0].speed
    assert speed is not None
    assert (speed.first_s, speed.rate, speed.completion, speed.reasoning) == (0.5, 20 / 1.5, 20, 15)
    assert speed.engine == ""


def test_the_engines_own_times_make_the_speed() -> None:
    call = CallTrace(
        backend="fast",
        usage=TokenUsage(prompt=10, completion=20),
        duration_s=9.0,
        engine_queue_s=0.5,
        engine_prompt_s=0.25,
        engine_completion_s=0.01,
        cached_prompt_tokens=8,
        left_calls=[
            LeftCall(backend="away", model="m", reason="backend_unreachable", usage=TokenUsage(), duration_s=0.31)
        ],
        draft_acceptance=0.625,
        accepted_length=2.5,
    )
    speed = speed_of(call)
    assert speed is not None
    assert speed.rate == pytest.approx(2000.0)
    assert speed.engine == (
        "in vain from away (backend_unreachable, 0.3 s), queue 0.500 s, prompt 0.250 s, decoding 0.010 s, 8 prompt tokens from its cache, "
        "62% of its drafts accepted, 2.50 tokens a verification"
    )


@pytest.mark.parametrize(
    ("verdicts", "outcome", "flipped", "winner"),
    [
        ((("first", "second"),), "candidate 0 is better in both orders", False, 0),
        ((("second", "first"),), "candidate 1 is better in both orders", False, 1),
        ((("first", "first"),), "tie: the verdict flipped with the order", True, None),
        ((("second", "second"),), "tie: the verdict flipped with the order", True, None),
        ((("first", "tie"),), "tie: preferred in one order only", False, None),
        ((("tie", "tie"),), "tie", False, None),
        ((("first", None),), "being judged", False, None),
    ],
)
def test_a_pair_is_judged_by_both_orders(verdicts: Any, outcome: str, *, flipped: bool, winner: int | None) -> None:
    ((one, other),) = verdicts
    (pair,) = pairs(trace(compared(1, 0, other), compared(0, 1, one)))

    assert (pair.outcome, pair.flipped, pair.winner) == (outcome, flipped, winner)
    assert [(verdict.first, verdict.second) for verdict in pair.verdicts] == [(0, 1), (1, 0)]


def test_a_pair_in_one_order_unusable_or_given_up() -> None:
    (single,) = pairs(trace(compared(0, 2, "second")))
    (unusable,) = pairs(trace(compared(0, 2, "tie", usable=False)))
    stopped = [step(f"compare-{name}", "compare_pair", status=StepStatus.cancelled) for name in ("0-1", "1-0")]
    (given_up,) = pairs(trace(*stopped))

    assert single.outcome == "candidate 2 is better"
    assert (unusable.outcome, unusable.verdicts[0].state) == ("tie: no usable verdict", "unusable")
    assert given_up.outcome == "no longer needed"


def test_what_was_paid_for_is_counted_by_agent() -> None:
    retried = step(
        "plan",
        "make_plan",
        attempt(1, 0, 1, 2, AttemptOutcome.failed, first_s=0.5),
        attempt(2, 2, 3, 5, first_s=1),
    )
    values = run_values(trace(retried, generated(0, "1")), None, now=10.0)

    assert [(row.agent, row.calls, row.prompt + row.completion) for row in values["agents"]] == [
        *(("planner", 2, 60), ("generator", 1, 30)),
    ]
    assert values["tokens"] == 90
    assert [(row.number, row.bad, row.error) for row in values["attempts"]] == [
        *((1, True, "silence (stalled)"), (2, False, ""), (1, False, "")),
    ]


def test_a_comparison_of_two_runs_names_what_differs() -> None:
    sections = {section.title: section for section in compare(trace(generated(0, "1")), trace(ended=None))}

    assert {line.name for line in sections["Outcome"].lines if line.differs} >= {"Status", "Answer", "Candidates"}
    assert not any(line.differs for line in sections["Policy"].lines)
    assert sections["Time"].measured
    assert sections["Tokens"].lines[1].right == "–"


# ---- The list


def test_figures_are_about_all_that_was_chosen() -> None:
    ended = [JobPoint(f"{n}", JobStatus.succeeded, BEGIN, BEGIN + n, 10) for n in (1, 2, 3)]
    others = [
        JobPoint("f", JobStatus.failed, BEGIN, BEGIN + 100, 5),
        JobPoint("r", JobStatus.running, BEGIN, None, None),
    ]
    strip = list_values([], [*ended, *others], Chosen("", "", "", "", ""), now=BEGIN + 7, took_s=0)["strip"]

    assert (strip["total"], strip["unfinished"], strip["succeeded"], strip["tokens"]) == (5, 1, "75%", 35)
    assert (strip["median_s"], strip["p95_s"]) == (2.5, 100)
    assert [(name, number) for name, number, _, _ in strip["shares"]] == [
        *(("running", 1), ("succeeded", 3), ("failed", 1)),
    ]
    assert sum(share for _, _, _, share in strip["shares"]) == pytest.approx(100)
    nothing = list_values([], [], Chosen("", "", "", "", ""), now=BEGIN, took_s=0)["strip"]
    assert (nothing["median_s"], nothing["p95_s"], nothing["succeeded"]) == (None, None, "–")


@pytest.mark.parametrize(("took_s", "renew_s"), [(0.001, 4), (0.5, 20), (60, 120)])
def test_a_list_that_is_hard_to_find_is_asked_for_rarely(took_s: float, renew_s: int) -> None:
    assert list_values([], [], Chosen("", "", "", "", ""), now=BEGIN, took_s=took_s)["renew_s"] == renew_s


def test_an_address_holds_the_filters_that_are_set() -> None:
    chosen = Chosen("failed", "a&b=<c>", "chat", "", "")
    assert chosen.address(before="x") == "/ui?status=failed&text=a%26b%3D%3Cc%3E&door=chat&before=x"
    assert Chosen("", "", "", "", "x").address() == "/ui"


# ---- Words


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("screen_input", "Screen request"),
        ("screen_plan", "Screen plan"),
        ("plan", "Plan"),
        ("plan-3", "Plan 3"),
        ("generate-12", "Candidate 12"),
        ("compare-0-2", "Compare 0 with 2"),
        ("something else", "something else"),
    ],
)
def test_steps_have_names_in_words(name: str, title: str) -> None:
    assert step_title(name) == title


def test_letters_go_on_after_z() -> None:
    assert [letter(place) for place in (0, 25, 26, 51, 52)] == ["A", "Z", "AA", "AZ", "BA"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (0.0004, "0 ms"),
        (0.25, "250 ms"),
        (2.5, "2.50 s"),
        (12.34, "12.3 s"),
        (61, "1 min 1 s"),
        (3_660, "1 h 1 min"),
    ],
)
def test_durations_read_well(value: float | None, text: str) -> None:
    assert seconds(value) == text


def test_what_is_not_seen_is_shown() -> None:
    assert visible("a\x1b[31m\x00\x7f\r\nb\tc") == "a␛[31m␀␡\nb\tc"
    assert visible("a\u202eb\u200bc\U000e0041") == "a‹U+202E›b‹U+200B›c‹U+E0041›"
    assert visible("\ud800") == "\N{REPLACEMENT CHARACTER}"
    assert visible("नि\u200dमि 👩‍💻") == "नि\u200dमि 👩‍💻", "joiners belong to scripts and emoji"


def test_long_texts_are_cut_with_a_word() -> None:
    assert shortened("x" * TEXT_CHARS_MAX) == "x" * TEXT_CHARS_MAX
    assert shortened("x" * (TEXT_CHARS_MAX + 1_234)).endswith(
        "… (1,234 more characters: the trace as JSON has them all)"
    )
