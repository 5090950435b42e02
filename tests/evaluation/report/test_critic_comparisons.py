"""Figures that flatter by what they stand beside: best-of-N as a single sample, other problems, what others have published."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from harness.evaluations import SPECS, MadeUp, chosen_among, items, outcome, right_or_wrong, sample, three_rows
from harness.reports import ALONE, half_right, report_of, target, warning
from k2think.evaluation.published import Published
from k2think.evaluation.records import read_run
from k2think.evaluation.report.build import compare
from k2think.evaluation.report.markdown import to_markdown
from k2think.evaluation.report.model import Report
from k2think.schemas.errors import InvalidRequest
from k2think.schemas.evaluation import Comparison, Item, Row, Status


def codes(report: Report) -> set[str]:
    return {one.code for part in (report, *report.parts) for one in part.warnings}


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


# ---- What is compared with what


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"grader_sha256": "1" * 64}, "grader"),
        ({"data_sha256": "1" * 64}, "problems"),
        ({"judge": "fast: big-judge"}, "judge"),
    ],
    ids=["grader", "problems", "judge"],
)
def test_runs_of_another_grader_or_judge_or_other_problems_are_not_compared(
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


def test_who_judged_free_answers_stands_in_the_report(tmp_path: Path) -> None:
    run = MadeUp(items({"a": 40}), ALONE, manifest={"judge": "fast: big-judge"})
    half_right(run)
    text = to_markdown(report_of(run, folder=tmp_path)).replace("\\", "")
    assert "grader 000000000000, judge fast: big-judge." in text
    assert "| judge of free answers | fast: big-judge |" in text


def test_other_backends_behind_the_same_model_are_a_difference(tmp_path: Path) -> None:
    hashes = {"generator": "a" * 64, "verifier": "b" * 64}
    spec = SPECS["best3"] | {"revision": "r"}
    run = MadeUp(
        items({"a": 40}),
        {
            "one": spec | {"backends_sha256": hashes},
            "two": spec | {"backends_sha256": hashes | {"verifier": "c" * 64}},
            "three": spec | {"backends_sha256": {"generator": "a" * 64}},
        },
    )
    for name in run.targets:
        half_right(run, name)
    report = report_of(run, folder=tmp_path)
    found = {(pair.ours, pair.theirs): pair.caveats for pair in report.parts[0].pairs}
    assert "backends: verifier hash cccccccc against hash bbbbbbbb" in found["two", "one"]
    assert not any("backends" in caveat for caveat in found["three", "one"])
    assert f"verifier = sha256 {'c' * 64}" in to_markdown(report)


@pytest.mark.parametrize("repeats", [1, 2])
def test_a_gap_that_is_the_same_everywhere_has_no_small_p(repeats: int, tmp_path: Path) -> None:
    run = MadeUp(items({"a": 2}), {"ours": SPECS["single"], "theirs": SPECS["single"]})
    for name in run.targets:
        run.ask(
            name,
            lambda item, repeat, name=name: outcome(item, name, right_or_wrong(name == "ours"), repeat=repeat),
            repeats=repeats,
        )
    (pair,) = report_of(run, folder=tmp_path).parts[0].pairs
    assert pair.difference.method == "rule_of_three"
    assert (pair.p, pair.p_holm) == ((0.5, 0.5) if repeats == 1 else (None, None))


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
