"""Runs made up to flatter, and what the report says of what they leave out, who is behind them, averages, costs, leaks."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from harness.evaluations import SPECS, MadeUp, chosen_among, items, outcome, right_or_wrong, sample, spent
from harness.reports import ALONE, half_right, report_of, target, warning
from k2think.evaluation.records import data_sha256
from k2think.evaluation.report.html import to_html
from k2think.evaluation.report.markdown import to_markdown
from k2think.schemas.errors import InvalidRequest
from k2think.schemas.evaluation import (
    Cleanliness,
    Comparison,
    ContaminationReport,
    ItemOverlap,
    LookedAt,
    OverlapKind,
    Row,
    Status,
)


def test_an_honest_run_has_no_loud_warning(tmp_path: Path) -> None:
    run = MadeUp(items({"a": 40, "b": 40}), ALONE)
    half_right(run)
    report = report_of(run, folder=tmp_path)
    assert not [one for part in (report, *report.parts) for one in part.warnings if one.loud]
    assert target(report).macro is not None
    assert target(report).macro.value == 0.5  # type: ignore[union-attr]


# ---- Leaving out what went wrong


def test_questions_that_failed_and_were_dropped_are_missing_with_bounds(tmp_path: Path) -> None:
    run = MadeUp(items({"a": 100}), ALONE)
    half_right(run)
    run.outcomes = [one for one in run.outcomes if one.final.correct] + run.outcomes[1:21:2]
    report = report_of(run, folder=tmp_path)
    single = target(report)
    assert single.counts.missing == 40
    assert single.macro is not None
    assert single.macro.value == pytest.approx(50 / 60), "of what is there"
    assert (single.if_wrong, single.if_right) == (0.5, 0.9)
    assert warning(report, "missing", "single").text == (
        "40 of 100 questions have no outcome; if these 40 were all wrong the figure would be 50.0 %, if all right 90.0 %."
    )
    assert "40 of 100" in warning(report, "unfinished").text


@pytest.mark.parametrize("status", [Status.errored, Status.truncated, Status.unparsed, Status.refused])
def test_what_has_no_answer_is_wrong_and_counted_apart(status: Status, tmp_path: Path) -> None:
    run = MadeUp(items({"a": 40}), ALONE)
    half_right(run)
    run.outcomes[1::2] = [one.model_copy(update={"final": sample(None, status=status)}) for one in run.outcomes[1::2]]
    single = target(report_of(run, folder=tmp_path))
    assert single.macro is not None
    assert single.macro.value == 0.5
    assert getattr(single.counts, status.value) == 20
    assert single.counts.wrong == 0


def test_answers_whose_check_crashed_are_left_out_with_bounds(tmp_path: Path) -> None:
    run = MadeUp(items({"a": 40}), ALONE)
    half_right(run)
    run.outcomes[1] = run.outcomes[1].model_copy(update={"final": sample(None, status=Status.ungraded)})
    report = report_of(run, folder=tmp_path)
    single = target(report)
    assert single.macro is not None
    assert single.macro.value == pytest.approx(20 / 39)
    assert (single.if_wrong, single.if_right) == (0.5, 21 / 40)
    assert "if these 1 were all wrong the figure would be 50.0 %" in warning(report, "ungraded", "single").text


def test_asking_until_the_answer_is_right_changes_nothing(tmp_path: Path) -> None:
    run = MadeUp(items({"a": 40}), ALONE)
    half_right(run)
    wrong = [one for one in run.outcomes if not one.final.correct]
    run.outcomes += [one.model_copy(update={"final": sample("42", right=True)}) for one in wrong]
    report = report_of(run, folder=tmp_path)
    single = target(report)
    assert single.macro is not None
    assert single.macro.value == 0.5
    assert single.counts.tried_again == 20
    assert single.spending.total.calls == 60, "what was paid for is counted"
    assert "the first answer stands" in warning(report, "damaged").text


# ---- Who is behind the figure


def test_an_outside_judge_must_be_named(tmp_path: Path) -> None:
    run = MadeUp(items({"a": 40}), {"single": {"row": Row.outside_scaffold}})
    half_right(run)
    report = report_of(run, folder=tmp_path)
    assert "is not named" in warning(report, "outside_unnamed", "single").text
    assert "scaffold with an outside model that is NOT NAMED" in to_markdown(report)
    assert "NOT NAMED" in to_html(report)


@pytest.mark.parametrize("row", [Row.single, Row.self_scaffold])
def test_a_row_of_the_model_alone_with_an_outside_model_is_called_that(row: Row, tmp_path: Path) -> None:
    run = MadeUp(items({"a": 40}), {"single": {"row": row, "outside_models": ("big-judge",)}})
    half_right(run)
    assert "yet big-judge took part" in warning(report_of(run, folder=tmp_path), "outside_hidden", "single").text


def test_a_row_that_was_not_run_stands_there_as_not_run(tmp_path: Path) -> None:
    run = MadeUp(items({"a": 40}), {"best3": SPECS["best3"]})
    half_right(run, "best3")
    assert "| mini | single sample | not run |" in to_markdown(report_of(run, folder=tmp_path))


# ---- Averages that hide


def test_a_subset_with_two_thirds_of_the_problems_does_not_hide_in_the_average(tmp_path: Path) -> None:
    # Omni-MATH-HARD: 173 problems beside three contests of thirty.
    sizes = {"aime24": 30, "aime25": 30, "hmmt25": 30, "omni": 173}
    run = MadeUp(items(sizes), ALONE)
    run.ask("single", lambda item, repeat: outcome(item, "single", right_or_wrong(item.subset == "omni")))
    report = report_of(run, folder=tmp_path)
    single = target(report)
    assert single.macro is not None
    assert single.micro is not None
    assert single.macro.value == 0.25
    assert single.micro.value == pytest.approx(173 / 263)
    assert "subset omni is 66% of the problems" in warning(report, "dominated").text
    assert [round(line.weight, 3) for line in single.subsets] == [0.114, 0.114, 0.114, 0.658]
    assert "| omni | 173 | 65.8 % |" in to_markdown(report)


def test_many_comparisons_are_adjusted_for(tmp_path: Path) -> None:
    names = [f"try{number}" for number in range(5)]
    run, generator = MadeUp(items({"a": 40}), dict.fromkeys(names, SPECS["single"])), random.Random(3)
    for name in names:
        run.ask(name, lambda item, repeat, name=name: outcome(item, name, right_or_wrong(generator.random() < 0.5)))
    report = report_of(run, folder=tmp_path)
    assert "10 pairs are compared" in warning(report, "many_pairs").text
    found = [(pair.p, pair.p_holm) for pair in report.parts[0].pairs if pair.p is not None and pair.p_holm is not None]
    assert len(found) == 10
    assert all(adjusted >= p for p, adjusted in found)
    assert min(adjusted for _, adjusted in found) >= min(1, 10 * min(p for p, _ in found))


# ---- Costs


def test_a_judges_calls_cannot_be_left_out_of_the_ledger(tmp_path: Path) -> None:
    run = MadeUp(items({"a": 40}), {"best3": SPECS["best3"]})
    samples = [sample("42", right=True), sample("7"), sample("8")]
    verdicts = [
        Comparison(first=0, second=1, choice=0, usable=True),
        Comparison(first=1, second=0, choice=0, usable=True),
    ]
    cheap = {"generator": spent(1, 100)}
    run.ask("best3", lambda item, repeat: chosen_among(item, "best3", samples, 0, comparisons=verdicts, spent=cheap))
    assert "tokens and calls are too low" in warning(report_of(run, folder=tmp_path), "ledger", "best3").text


def test_all_that_was_paid_for_is_added_up(tmp_path: Path) -> None:
    run = MadeUp(items({"a": 10}), {"best3": SPECS["best3"]})
    samples = [sample("42", right=True), sample("7"), sample("8")]
    ledger = {"planner": spent(1, 40, 0.5), "generator": spent(4, 390, 2.0), "verifier": spent(2, 20, None)}
    run.ask("best3", lambda item, repeat: chosen_among(item, "best3", samples, 0, spent=ledger))
    spending = target(report_of(run, folder=tmp_path), "best3").spending
    assert [role.role for role in spending.roles] == ["planner", "generator", "verifier"]
    assert (spending.total.calls, spending.total.completion, spending.total.prompt) == (70, 4_500, 3_500)
    assert spending.tokens_per_question == 800
    assert spending.discarded == 2_000
    assert spending.total.cost is None, "the judge's price is not known, so the sum is not"
    assert spending.known_cost == 25.0


# ---- Contamination


def overlaps(run: MadeUp, statuses: list[Cleanliness], declared: str | None) -> ContaminationReport:
    return ContaminationReport(
        suite="made_up",
        data_sha256=data_sha256(run.items),
        declared=declared,
        counted=(OverlapKind.exact, OverlapKind.ngram13),
        ngram8_coverage_min=0.5,
        looked_at=(LookedAt(data="train.jsonl", sha256="0" * 64, records=10),),
        items=tuple(
            ItemOverlap(item=item.task.id, status=status) for item, status in zip(run.items, statuses, strict=True)
        ),
        k2think_version="0.1.0",
    )


def test_clean_only_stands_beside_all(tmp_path: Path) -> None:
    run = MadeUp(items({"a": 40}), ALONE)
    half_right(run)
    statuses = [Cleanliness.contaminated if number % 2 == 0 else Cleanliness.clean for number in range(40)]
    statuses[1] = Cleanliness.unknown
    found = overlaps(run, statuses, "train.jsonl and nothing else")
    report = report_of(run, folder=tmp_path, contamination=[found])
    clean = target(report).clean_only
    assert (clean.clean, clean.contaminated, clean.unknown) == (19, 20, 1)
    assert clean.on_clean is not None
    assert clean.on_contaminated is not None
    assert (clean.on_clean.value, clean.on_contaminated.value) == (0.0, 1.0)
    assert "20 of the problems are in its training data" in warning(report, "contaminated", "single").text


def test_undeclared_training_data_is_never_clean(tmp_path: Path) -> None:
    run = MadeUp(items({"a": 40}), ALONE)
    half_right(run)
    report = report_of(run, folder=tmp_path, contamination=[overlaps(run, [Cleanliness.clean] * 40, None)])
    clean = target(report).clean_only
    assert (clean.clean, clean.unknown, clean.on_clean) == (0, 40, None)
    assert "unknown: not declared" in to_markdown(report)
    report = report_of(run, folder=tmp_path)
    assert "contamination is unknown" in warning(report, "training_data_unknown", "single").text


def test_overlaps_of_other_problems_are_refused(tmp_path: Path) -> None:
    run, other = MadeUp(items({"a": 40}), ALONE), MadeUp(items({"b": 40}), ALONE)
    half_right(run)
    with pytest.raises(InvalidRequest, match="is of other problems"):
        report_of(run, folder=tmp_path, contamination=[overlaps(other, [Cleanliness.clean] * 40, "x")])
