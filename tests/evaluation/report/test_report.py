"""The report's figures, worked out by hand on small runs; runs that are damaged, empty or half finished."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from harness.evaluations import SPECS, MadeUp, chosen_among, items, outcome, right_or_wrong, sample, three_rows
from k2think.evaluation.published import read_published
from k2think.evaluation.records import ITEMS_NAME, MANIFEST_NAME, OUTCOMES_NAME, read_run
from k2think.evaluation.report.build import build_report
from k2think.evaluation.report.html import to_html
from k2think.evaluation.report.markdown import to_markdown
from k2think.evaluation.report.model import Part, Report, TargetReport
from k2think.evaluation.statistics import Estimate
from k2think.evaluation.suites.registry import SUITES
from k2think.schemas.errors import InvalidRequest, NotFound
from k2think.schemas.evaluation import Comparison, Graded, Item, Outcome, Row, Status


def part_of(run: MadeUp, folder: Path) -> Part:
    (part,) = build_report([read_run(run.write(folder / "run"))]).parts
    return part


def named(part: Part, name: str) -> TargetReport:
    return next(target for target in part.targets if target.name == name)


def value(estimate: Estimate | None) -> float:
    assert estimate is not None
    return estimate.value


# ---- Several samples


def picks(kinds: str, choice: int) -> tuple[list[Graded], int]:
    """Samples by letters: r right, b and c wrong answers, - none."""
    return [sample(None) if kind == "-" else sample(kind, right=kind == "r") for kind in kinds], choice


def best_of_three(table: list[tuple[str, int]], folder: Path) -> TargetReport:
    run = MadeUp(items({"a": len(table)}), {"best3": SPECS["best3"]})
    for item, (kinds, choice) in zip(run.items, table, strict=True):
        samples, index = picks(kinds, choice)
        run.outcomes.append(chosen_among(item, "best3", samples, index))
    return named(part_of(run, folder), "best3")


def test_vote_oracle_and_room_by_hand(tmp_path: Path) -> None:
    # Given     vote  oracle  one    chosen
    table = [
        ("rrb", 0),  # 1     1      2/3    1
        ("rbb", 0),  # 0     1      1/3    1
        ("rbc", 1),  # 1/3   1      1/3    0
        ("bcc", 0),  # 0     0      0      0
        ("r--", 0),  # 1     1      1/3    1
    ]
    best = best_of_three(table, tmp_path).best_of[0]
    assert value(best.majority) == pytest.approx((1 + 0 + 1 / 3 + 0 + 1) / 5)
    assert value(best.oracle) == pytest.approx(4 / 5)
    assert value(best.one) == pytest.approx((2 + 1 + 1 + 0 + 1) / 15)
    assert value(best.chosen) == pytest.approx(3 / 5)
    assert value(best.over_vote) == pytest.approx(3 / 5 - 7 / 15)
    assert value(best.room) == pytest.approx((3 / 5 - 1 / 3) / (4 / 5 - 1 / 3))
    assert "the mean of its own samples" in best.room_note
    assert best.left_out == 0


def test_the_room_begins_at_the_models_own_single_sample(tmp_path: Path) -> None:
    part = part_of(three_rows({"a": 60, "b": 60}), tmp_path)
    single, best = named(part, "single"), named(part, "best3")
    found = best.best_of[0]
    expected = (value(best.macro) - value(single.macro)) / (value(found.oracle) - value(single.macro))
    assert value(found.room) == pytest.approx(expected)
    assert found.room is not None
    assert found.room.low is not None
    assert found.room.high is not None
    assert 0 < found.room.low < expected < found.room.high < 1.2
    assert found.room_note == "single sample: single; oracle@3: of its own samples"


def test_a_row_that_stops_early_borrows_the_oracle_of_one_that_does_not(tmp_path: Path) -> None:
    run = MadeUp(items({"a": 40}), {"whole": SPECS["best3"], "early": SPECS["best3"], "single": SPECS["single"]})
    cut = sample(None, status=Status.errored, finish_reason="cancelled")
    for number, item in enumerate(run.items):
        kinds = ("rrb", "bbr", "bbb", "rrr")[number % 4]
        samples, _ = picks(kinds, 0)
        run.outcomes.append(chosen_among(item, "whole", samples, 0))
        run.outcomes.append(chosen_among(item, "early", [*samples[:2], cut], 0, stopped_early=True))
        run.outcomes.append(outcome(item, "single", samples[2]))
    part = part_of(run, tmp_path)
    early, whole = named(part, "early").best_of[0], named(part, "whole").best_of[0]
    assert (value(early.oracle), early.oracle_is_least) == (0.5, True)
    assert (value(whole.oracle), whole.oracle_is_least) == (0.75, False)
    assert value(early.majority) == value(whole.majority), "the votes were decided"
    assert value(early.room) == value(whole.room) == pytest.approx((0.5 - 0.5) / (0.75 - 0.5))
    assert "of the samples of whole, which stops none early" in early.room_note


def test_repeats_of_a_single_sample_are_samples_too(tmp_path: Path) -> None:
    run = MadeUp(items({"a": 2}), {"single": SPECS["single"]})
    for item, kinds in zip(run.items, ("rrbc", "bbbr"), strict=True):
        for repeat, one in enumerate(picks(kinds, 0)[0]):
            run.outcomes.append(outcome(item, "single", one, repeat=repeat))
    single = named(part_of(run, tmp_path), "single")
    (best,) = single.best_of
    assert best.n == 4
    assert value(best.majority) == pytest.approx((1 + 0) / 2)
    assert value(best.oracle) == 1.0
    assert best.chosen is None
    assert single.samples == 1


def test_a_lost_job_is_wrong_for_vote_and_oracle_alike(tmp_path: Path) -> None:
    run = MadeUp(items({"a": 2}), {"best3": SPECS["best3"]})
    run.outcomes.append(chosen_among(run.items[0], "best3", picks("rrr", 0)[0], 0))
    lost = sample(None, status=Status.errored, reason="deadline")
    run.outcomes.append(outcome(run.items[1], "best3", lost, candidates=(), chosen=None))
    best = named(part_of(run, tmp_path), "best3").best_of[0]
    assert [value(one) for one in (best.majority, best.oracle, best.chosen, best.one)] == [0.5] * 4


# ---- The judge, and repeats


def judged(item: Item, verdicts: list[tuple[int, int, int | None]], kinds: str = "rbc", repeat: int = 0) -> Outcome:
    samples, _ = picks(kinds, 0)
    said = [Comparison(first=first, second=second, choice=choice, usable=True) for first, second, choice in verdicts]
    return chosen_among(item, "best3", samples, 0, comparisons=said, repeat=repeat)


def test_the_judges_figures_by_hand(tmp_path: Path) -> None:
    run = MadeUp(items({"a": 4}), {"best3": SPECS["best3"]})
    a, b, c, d = run.items
    run.outcomes = [
        judged(a, [(0, 1, 0), (1, 0, 0)]),  # right both times
        judged(b, [(0, 1, 0), (1, 0, 1)]),  # moved with the order
        judged(c, [(0, 1, None), (1, 0, 1)]),  # a tie, then the wrong one: flipped, not moved
        judged(d, [(0, 1, 0), (1, 0, 1)], kinds="rrb"),  # equal answers say nothing
    ]
    unread = Comparison(first=1, second=2, choice=None, usable=False)
    run.outcomes[0] = run.outcomes[0].model_copy(update={"comparisons": (*run.outcomes[0].comparisons, unread)})
    judge = named(part_of(run, tmp_path), "best3").verifier
    assert judge is not None
    assert (judge.comparisons, judge.alike) == (9, 2)
    assert value(judge.usable) == pytest.approx(8 / 9)
    assert value(judge.ties) == pytest.approx(1 / 6)
    assert value(judge.position_swap) == pytest.approx(1 / 3)
    assert value(judge.flip) == pytest.approx(2 / 3)
    assert value(judge.first_shown) == pytest.approx(4 / 5)
    assert value(judge.agreement) == pytest.approx(3 / 5)
    assert judge.repeats is None


def test_repeats_of_judge_and_answers_by_hand(tmp_path: Path) -> None:
    run = MadeUp(items({"a": 3}), {"best3": SPECS["best3"]})
    same, other, free = run.items
    run.outcomes = [
        judged(same, [(0, 1, 0), (1, 0, 0)]),
        judged(same, [(0, 1, 0), (1, 0, 0)], repeat=1),
        judged(other, [(0, 1, 0)]),
        judged(other, [(1, 0, 1)], repeat=1).model_copy(update={"final": sample("b")}),
        outcome(free, "best3", sample(None, right=True, status=Status.graded)),
        outcome(free, "best3", sample(None, status=Status.graded), repeat=1),
    ]
    best = named(part_of(run, tmp_path), "best3")
    assert best.verifier is not None
    assert value(best.verifier.repeats) == 0.5
    assert best.stability is not None
    assert best.stability.pairs == 3
    assert value(best.stability.answer_flip) == 0.5, "programs are not compared as answers"
    assert value(best.stability.verdict_flip) == pytest.approx(2 / 3)


# ---- Origin


def test_the_manifest_stands_in_the_report(tmp_path: Path) -> None:
    spec = SPECS["best3"] | {"revision": "rev-7", "server": "vllm 0.32", "template_sha256": "f" * 64}
    run = MadeUp(items({"a": 5}), {"best3": spec}, manifest={"suite_options": {"seed": 42}})
    run.ask("best3", lambda item, repeat: outcome(item, "best3", right_or_wrong(True)))
    text = to_markdown(build_report([read_run(run.write(tmp_path / "run"))]))
    for words in ("rev-7", "vllm 0.32", "f" * 64, "seed = 42", "0" * 64, "temperature = 1.0", "n = 3", "k2think 0.1.0"):
        assert words in text.replace("\\", "")


def test_answers_to_look_at_are_picked_by_nobody(tmp_path: Path) -> None:
    run = MadeUp(items({"a": 30}), {"single": SPECS["single"]})
    run.ask("single", lambda item, repeat: outcome(item, "single", sample("7", text="x" * 5_000)))
    first = named(part_of(run, tmp_path / "1"), "single").examples
    run.outcomes.reverse()
    assert named(part_of(run, tmp_path / "2"), "single").examples == first
    assert len(first) == 3
    assert len({example.problem for example in first}) == 3
    assert max(len(example.text) for example in first) < 700


# ---- Damaged, empty, half finished


def written(report: Report) -> str:
    json.loads(report.model_dump_json())
    assert Report.model_validate_json(report.model_dump_json()) == report
    assert "<html" in to_html(report)
    return to_markdown(report).replace("\\", "")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    run = three_rows({"a": 10, "b": 20})
    return run.write(tmp_path / "run")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (MANIFEST_NAME, ["manifest.json is missing", "row unknown", "its row is unknown"]),
        (ITEMS_NAME, ["items.jsonl is missing", "| unknown | 30 |"]),
        (OUTCOMES_NAME, ["outcomes.jsonl is missing", "holds no outcome", "180 of 180 questions", "| 0 of 180 |"]),
    ],
)
def test_a_missing_file_leaves_the_rest_of_the_report(name: str, words: list[str], folder: Path) -> None:
    (folder / name).unlink()
    text = written(build_report([read_run(folder)]))
    for expected in words:
        assert expected in text, text


def test_an_empty_folder_has_a_report_that_says_so(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    text = written(build_report([read_run(tmp_path / "empty")]))
    assert "run empty holds no outcome: there is nothing to report of it." in text


def test_a_half_finished_run_says_how_much_is_missing(folder: Path) -> None:
    log = folder / OUTCOMES_NAME
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join(lines[:90]) + lines[90][:50])
    report = build_report([read_run(folder)])
    text = written(report)
    assert "run run is not finished: 90 of 180 questions have no outcome." in text
    assert "the last line of outcomes.jsonl is torn" in text
    counts = {target.name: (target.counts.expected, target.counts.missing) for target in report.parts[0].targets}
    assert counts == {"single": (60, 0), "best3": (60, 30), "outside3": (60, 60)}
    assert named(report.parts[0], "outside3").macro is None
    assert (named(report.parts[0], "outside3").if_wrong, named(report.parts[0], "outside3").if_right) == (0.0, 1.0)


def test_outcomes_of_unknown_problems_are_left_out_loudly(folder: Path) -> None:
    items_file = folder / ITEMS_NAME
    kept = [line for line in items_file.read_text().splitlines(keepends=True) if '"a-' not in line]
    items_file.write_text("".join(kept))
    report = build_report([read_run(folder)])
    assert "20 outcomes are about problems that the suite does not have" in written(report)
    assert {target.counts.missing for target in report.parts[0].targets} == {0}


def test_a_report_is_the_same_whenever_it_is_made(folder: Path) -> None:
    reports = [build_report([read_run(folder)]) for _ in range(2)]
    assert to_html(reports[0]) == to_html(reports[1])


# ---- Published figures


def test_the_shipped_figures_are_of_suites_that_there_are() -> None:
    figures = read_published()
    assert {figure.suite for figure in figures} <= SUITES.keys()
    k2think = {figure.suite: figure for figure in figures if figure.is_of("LLM360/K2-Think")}
    assert k2think["aime_2024"].percent == 90.83
    assert {figure.row for figure in k2think.values()} == {Row.outside_scaffold}
    assert all(figure.settings and figure.url.startswith("https://") for figure in figures)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[[figure]]\nmodel = 1", "figure.0.model: Input should be a valid string"),
        ("[[figure", "is no TOML"),
        (
            '[[figure]]\nmodel = "m"\nsuite = "s"\nrow = "best"\npercent = 3\nsettings = "s"\nsource = "s"\nurl = "x"',
            "row",
        ),
    ],
    ids=["field", "toml", "row"],
)
def test_a_wrong_file_of_figures_is_a_designed_error(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "ours.toml"
    path.write_text(text)
    with pytest.raises(InvalidRequest, match=words):
        read_published(path)


def test_a_file_of_figures_that_is_not_there_is_a_designed_error(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="name a file of published figures"):
        read_published(tmp_path / "none.toml")


def test_many_targets_keep_their_places(tmp_path: Path) -> None:
    fields: dict[str, Any] = SPECS["single"]
    run = MadeUp(items({"a": 10}), {f"t{n}": fields | {"model": f"m{n % 2}"} for n in range(4)})
    for name in run.targets:
        run.ask(name, lambda item, repeat, name=name: outcome(item, name, right_or_wrong(True)))
    assert [target.name for target in part_of(run, tmp_path).targets] == ["t0", "t2", "t1", "t3"]
