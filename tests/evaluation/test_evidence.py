"""The evidence: what its page says follows from the runs alone, whatever they say."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from harness.evaluations import MadeUp, chosen_among, items, outcome, right_or_wrong
from k2think.evaluation.evidence import archive, plan
from k2think.evaluation.evidence.document import ROWS, document
from k2think.evaluation.evidence.run import CONTROL, MAIN
from k2think.evaluation.records import Run, read_run
from k2think.evaluation.suites.mini import mini
from k2think.evaluation.suites.options import SuiteOptions
from k2think.schemas.errors import InvalidRequest, NotFound
from k2think.schemas.evaluation import Item, Outcome, Row
from k2think.training.mini.examples import PLAN_LINES
from k2think.training.mini.families import FAMILIES

SIZES = {"arithmetic": 150, "logic": 150}
SKILL = {"base": 0.05, "sft": 0.7, "mini": 0.85, "sft-whole": 0.65, "mini-whole": 0.8, "shuffled": 0.5, "plan": 0.85}
CHOSEN = {
    "sft-vote": 0.9,
    "sft-consensus": 0.9,
    "vote": 0.9,
    "pairwise": 0.2,
    "consensus": 0.92,
    "both": 0.93,
    "early": 0.93,
}
"""Share of problems with a right candidate in which it is chosen."""
CELL = {"tokens_per_s": 100.0, "tokens_per_cpu_s": 90.0, "ratio": 0.5, "ratio_cpu": 0.6, "same_text": 4, "requests": 4}
SPECULATION = {
    "options": {"model": None, "threads": 1},
    "machine": {"cores": 2, "load_before": 0.1},
    "cells": [{"streams": 16, "plain": CELL, "lookup 4": CELL}],
}
Make = Callable[..., Mapping[str, Run]]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """`make(mini=0.7)`: the evidence's runs, with other skills than usual."""

    def build(**skills: float) -> Mapping[str, Run]:
        generator = random.Random(7)
        skill, chosen = {**SKILL, **skills}, {**CHOSEN, **skills}
        asked = items(SIZES)
        luck = {item.task.id: generator.random() for item in asked}

        def alone(item: Item, target: str) -> Outcome:
            return outcome(item, target, right_or_wrong(luck[item.task.id] < skill[target], generator))

        def three(item: Item, target: str) -> Outcome:
            samples = [right_or_wrong(generator.random() < 0.8, generator) for _ in range(3)]
            best = max(range(3), key=lambda index: samples[index].correct)
            worst = min(range(3), key=lambda index: samples[index].correct)
            return chosen_among(item, target, samples, best if luck[item.task.id] < chosen[target] else worst)

        made = {}
        for name, targets in ((MAIN, [one for one in ROWS if one != "shuffled"]), (CONTROL, ["shuffled"])):
            specs = {
                one: {"row": Row.self_scaffold if one in CHOSEN or one == "plan" else Row.single, "model": f"mini-{one}"
                      if one.startswith(("base", "sft")) else "mini"}
                for one in targets
            }  # fmt: skip
            run = MadeUp(asked, specs, manifest={"suite": name})
            for one in targets:
                run.ask(one, lambda item, _, one=one: (three if one in CHOSEN else alone)(item, one))
            made[name] = read_run(run.write(tmp_path / name))
        return made

    return build


def finding(page: str, rows: str) -> str:
    """What the page says of a pair of rows."""
    [line] = [line for line in page.splitlines() if f"| {rows} |" in line]
    return line.split("|")[-2].strip()


def test_less_than_was_asked_for_is_said_to_be_so(make: Make) -> None:
    page = document(make(mini=0.735, early=0.6), speculation=SPECULATION, notes="Plans bring little, because.")
    assert finding(page, "mini − sft") == "a gain, but below the 5 points asked for"
    assert finding(page, "early − both") == "**a difference**"
    rows = [line for line in page.splitlines() if line.startswith(("| vote", "| pairwise")) and line.count("|") == 9]
    assert [line.split("|")[-2].strip() for line in rows] == ["yes", "**no**"], "of the room, half was asked for"
    assert "Plans bring little, because." in page
    assert "| 16 | lookup 4 | 100 | 100 | 160.00 | 160.00 | 90 | 90 | 0.50× | 0.60× | 4 of 4 |" in page


def test_runs_of_another_kind_are_refused(make: Make) -> None:
    runs = dict(make())
    with pytest.raises(InvalidRequest, match="no run control"):
        document({MAIN: runs[MAIN]}, speculation=None, notes="")
    with pytest.raises(InvalidRequest, match="no target base"):
        document({MAIN: runs[CONTROL], CONTROL: runs[CONTROL]}, speculation=None, notes="")


def test_the_findings_follow_from_the_figures_and_packing_changes_none(make: Make, tmp_path: Path) -> None:
    runs = make()
    for name, run in runs.items():
        archive.pack(run.folder, tmp_path / "packed" / f"{name}.tar.xz")
    first = (tmp_path / "packed" / "main.tar.xz").read_bytes()
    archive.pack(runs[MAIN].folder, tmp_path / "packed" / "main.tar.xz")
    assert (tmp_path / "packed" / "main.tar.xz").read_bytes() == first
    with archive.unpacked(tmp_path / "packed") as folders:
        page = document({name: read_run(folder) for name, folder in folders.items()}, speculation=None, notes="")
        assert "<answer>" not in (folders[MAIN] / "outcomes.jsonl").read_text()
    assert page == document(runs, speculation=None, notes="")
    assert finding(page, "mini − sft") == "a gain"
    assert finding(page, "plan − mini") == "**no gain shown**"
    assert finding(page, "plan − shuffled") == "a gain"
    assert finding(page, "pairwise − mini") == "**a loss**"
    assert finding(page, "early − both") == "no difference shown"
    assert "Not measured in these runs" in page


def test_packed_runs_that_are_not_there_are_told(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="makes them"), archive.unpacked(tmp_path / "none"):
        pass


def test_the_control_gives_each_problem_the_plan_of_another_family() -> None:
    asked = mini(SuiteOptions(n=80))
    foreign = plan.with_foreign_plans(asked)
    assert [item.task.id for item in foreign] == [item.task.id for item in asked]
    given = [item.task.prompt.partition("<plan>")[2].partition("</plan>")[0] for item in foreign]
    assert set(given) <= set(PLAN_LINES)
    assert len(set(given)) > 8
    assert not any(line in FAMILIES[item.subset].plans for line, item in zip(given, foreign, strict=True))
    # Nothing else of the problem changes.
    assert all(
        item.task.prompt.endswith(" ".join(own.task.prompt.split())) for item, own in zip(foreign, asked, strict=True)
    )


def test_the_declared_targets_are_valid_and_labelled() -> None:
    targets = {**plan.main_targets(), **plan.control_targets()}
    assert set(targets) == set(ROWS)
    assert {name for name, one in targets.items() if one.row is Row.single} == {
        "base", "sft", "mini", "sft-whole", "mini-whole", "shuffled",
    }  # fmt: skip
    assert {name for claim in plan.CLAIMS for name in (claim.ours, claim.theirs)} <= set(targets)


def test_the_command_tells_what_is_missing(tmp_path: Path) -> None:
    def evidence(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "k2think.cli", "eval", "evidence", *words]
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)

    done = evidence("--packed", str(tmp_path))
    assert (done.returncode, "--run` makes them" in done.stderr) == (2, True), done.stderr
    done = evidence("--problems", "20")
    assert (done.returncode, "add --run" in done.stderr) == (2, True), done.stderr
