"""Runs made up to flatter, and what the report says of each: the tricks of published evaluations, one by one."""

from __future__ import annotations

import html
import random
import re
from pathlib import Path
from typing import Any

import pytest
from harness.evaluations import SPECS, MadeUp, chosen_among, items, outcome, right_or_wrong, sample, spent, three_rows
from k2think.evaluation.published import Published
from k2think.evaluation.records import data_sha256, read_run
from k2think.evaluation.report.build import build_report, compare
from k2think.evaluation.report.html import to_html
from k2think.evaluation.report.markdown import to_markdown
from k2think.evaluation.report.model import Caution, Report, TargetReport
from k2think.schemas.errors import InvalidRequest
from k2think.schemas.evaluation import (
    Cleanliness,
    Comparison,
    ContaminationReport,
    Item,
    ItemOverlap,
    LookedAt,
    OverlapKind,
    Row,
    Status,
)

ALONE = {"single": SPECS["single"]}


def report_of(*runs: MadeUp, folder: Path, **more: Any) -> Report:
    report = build_report([read_run(run.write(folder / f"run{place}")) for place, run in enumerate(runs)], **more)
    shown_everywhere(report)
    return report


def shown_everywhere(report: Report) -> None:
    """Every warning stands in the Markdown and in the page, the loud ones before any figure."""
    markdown, page = to_markdown(report), to_html(report)
    words = " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page)).split())
    for caution in (*report.warnings, *(one for part in report.parts for one in part.warnings)):
        assert " ".join(caution.text.split()) in words
        assert caution.text.split(",")[0].split("(")[0][:40] in markdown.replace("\\", "")
        if caution.loud:
            assert page.index(html.escape(caution.text[:20])) < page.index('class="part"')


def warning(report: Report, code: str, target: str | None = None) -> Caution:
    found = [
        one for part in (report, *report.parts) for one in part.warnings if (one.code, one.target) == (code, target)
    ]
    assert len(found) == 1, (
        f"{code}: {[(one.code, one.target) for part in (report, *report.parts) for one in part.warnings]}"
    )
    return found[0]


def codes(report: Report) -> set[str]:
    return {one.code for part in (report, *report.parts) for one in part.warnings}


def target(report: Report, name: str = "single") -> TargetReport:
    return next(one for part in report.parts for one in part.targets if one.name == name)


def half_right(run: MadeUp, name: str = "single", **more: Any) -> None:
    """Every other problem is solved."""
    numbers = {item.task.id: number for number, item in enumerate(run.items)}
    run.ask(
        name,
        lambda item, repeat: outcome(item, name, right_or_wrong(numbers[item.task.id] % 2 == 0), repeat=repeat, **more),
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


# ---- Best-of-N for a single sample


def test_best_of_three_labelled_single_is_found_out(tmp_path: Path) -> None:
    run = MadeUp(items({"a": 40}), ALONE)
    generator = random.Random(1)

    def chosen(item: Item, repeat: int) -> Any:
        samples = [right_or_wrong(generator.random() < 0.5) for _ in range(3)]
        best = max(range(3), key=lambda index: samples[index].correct)
        return chosen_among(item, "single", samples, best, repeat=repeat)

    run.ask("single", chosen)
    report = report_of(run, folder=tmp_path)
    assert "40 answers were chosen among several samples" in warning(report, "not_single", "single").text
    assert target(report).samples == 3


def test_a_plan_from_elsewhere_in_a_single_sample_is_found_out(tmp_path: Path) -> None:
    run = MadeUp(items({"a": 40}), ALONE)
    half_right(run, planned=True)
    report = report_of(run, folder=tmp_path)
    assert "40 had a plan or a judge" in warning(report, "not_single", "single").text
    assert "40 outcomes are less than the work" in warning(report, "ledger", "single").text


def test_best_of_three_against_a_single_sample_says_so_beside_vote_and_oracle(tmp_path: Path) -> None:
    report = report_of(three_rows({"a": 40, "b": 40}), folder=tmp_path)
    pair = next(one for one in report.parts[0].pairs if (one.ours, one.theirs) == ("best3", "single"))
    assert "3 against 1 samples a problem" in pair.caveats
    assert pair.tokens_ratio == pytest.approx(570 / 150)
    best = target(report, "best3").best_of[0]
    assert None not in (best.majority, best.oracle, best.over_vote, best.room)
    assert best.oracle is not None
    assert best.chosen is not None
    assert best.majority is not None
    assert best.majority.value < best.chosen.value < best.oracle.value


def test_another_models_single_sample_is_not_compared_with_our_best_of_three(tmp_path: Path) -> None:
    run = MadeUp(items({"a": 40}), {"ours": SPECS["best3"], "theirs": SPECS["single"] | {"model": "rival"}})
    half_right(run, "ours")
    half_right(run, "theirs")
    report = report_of(run, folder=tmp_path)
    assert report.parts[0].pairs == ()
    found = read_run(tmp_path / "run0")
    pair = compare((found, "ours"), (found, "theirs"))
    assert "different models in different rows" in pair.caveats[0]
    assert "not a comparison of the models" in pair.caveats[0]


def test_a_judge_that_is_no_better_than_a_vote_is_called_that(tmp_path: Path) -> None:
    run, generator = MadeUp(items({"a": 60}), {"best3": SPECS["best3"]}), random.Random(2)

    def guessed(item: Item, repeat: int) -> Any:
        samples = [right_or_wrong(generator.random() < 0.5) for _ in range(3)]
        choice = generator.randrange(3)
        verdicts = [Comparison(first=i, second=j, choice=i, usable=True) for i, j in ((0, 1), (1, 0), (1, 2), (2, 1))]
        return chosen_among(item, "best3", samples, choice, comparisons=verdicts, repeat=repeat)

    run.ask("best3", guessed)
    report = report_of(run, folder=tmp_path)
    assert {"no_better_than_vote", "position_bias", "judge_guesses"} <= codes(report)
    judge = target(report, "best3").verifier
    assert judge is not None
    assert judge.position_swap is not None
    assert judge.position_swap.value == 1.0
    assert judge.agreement is not None
    assert judge.agreement.value == 0.5


def test_a_judge_that_saw_one_order_only_is_called_that(tmp_path: Path) -> None:
    run = MadeUp(items({"a": 40}), {"best3": SPECS["best3"]})
    samples = [sample("42", right=True), sample("7"), sample("8")]
    verdicts = [Comparison(first=0, second=1, choice=0, usable=True)]
    run.ask("best3", lambda item, repeat: chosen_among(item, "best3", samples, 0, comparisons=verdicts))
    assert "one order only" in warning(report_of(run, folder=tmp_path), "one_order", "best3").text


def test_early_stops_make_no_oracle_look_reached(tmp_path: Path) -> None:
    run = MadeUp(items({"a": 40}), {"best3": SPECS["best3"]})
    samples = [sample("7"), sample("7"), sample(None, status=Status.errored, finish_reason="cancelled")]
    run.ask("best3", lambda item, repeat: chosen_among(item, "best3", samples, 0, stopped_early=True))
    report = report_of(run, folder=tmp_path)
    best = target(report, "best3").best_of[0]
    assert best.oracle_is_least
    assert best.room is None
    assert best.one is None
    assert best.majority is not None, "the vote is decided"
    assert "≥ 0.0" in to_markdown(report)
    assert warning(report, "oracle_is_least", "best3")


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
    for pair in report.parts[0].pairs:
        assert pair.p_holm >= pair.p
    assert min(pair.p_holm for pair in report.parts[0].pairs) >= min(1, 10 * min(p.p for p in report.parts[0].pairs))


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


# ---- What is compared with what


@pytest.mark.parametrize(
    ("changed", "words"),
    [({"grader_sha256": "1" * 64}, "grader"), ({"data_sha256": "1" * 64}, "problems")],
    ids=["grader", "problems"],
)
def test_runs_of_another_grader_or_other_problems_are_not_compared(
    changed: dict[str, Any], words: str, tmp_path: Path
) -> None:
    one, other = MadeUp(items({"a": 40}), ALONE), MadeUp(items({"a": 40}), ALONE, manifest=changed)
    half_right(one)
    half_right(other)
    report = report_of(one, other, folder=tmp_path)
    assert len(report.parts) == 2
    assert all(part.pairs == () for part in report.parts)
    assert words in warning(report, "not_comparable").text
    runs = [read_run(tmp_path / name) for name in ("run0", "run1")]
    with pytest.raises(InvalidRequest, match=f"cannot be compared: they differ in {words}"):
        compare((runs[0], "single"), (runs[1], "single"))
    pair = compare((runs[0], "single"), (runs[1], "single"), anyway=True)
    assert pair.caveats[0] == f"NOT THE SAME {words.upper()}: the difference may come from that"


def test_runs_of_the_same_problems_stand_together_under_names_of_their_own(tmp_path: Path) -> None:
    runs = [MadeUp(items({"a": 40}), {"single": SPECS["single"] | {"template_sha256": digest * 64}}) for digest in "ab"]
    for run in runs:
        half_right(run)
    report = report_of(*runs, folder=tmp_path)
    (pair,) = report.parts[0].pairs
    assert (pair.theirs, pair.ours) == ("run0:single", "run1:single")
    assert "prompts: hash bbbbbbbb against aaaaaaaa" in pair.caveats
    assert "not the same in 1 of 1 pairs (run1:single − run0:single)" in warning(report, "prompts_differ").text


def published(value: float, row: Row = Row.single, model: str = "owner/Mini") -> Published:
    return Published(
        model=model,
        suite="made_up",
        row=row,
        percent=value,
        settings="one sample",
        source="A paper",
        url="https://example.org",
    )


def test_a_published_figure_outside_our_interval_is_a_warning(tmp_path: Path) -> None:
    run = MadeUp(items({"a": 100}), ALONE)
    half_right(run)
    figures = [published(80.0), published(52.0), published(90.0, Row.outside_scaffold), published(90.0, model="other")]
    report = report_of(run, folder=tmp_path, published=figures)
    assert "A paper has 80.0 % for owner/Mini" in warning(report, "differs_from_published", "single").text
    assert [line.differs for line in target(report).published] == [True, False, False, False]
    assert "another row" in target(report).published[2].note
    assert "another model" in target(report).published[3].note


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
