"""Published sets, on samples made by hand in their published forms (samples/README.md)."""

from __future__ import annotations

import csv
import json
import pickle
import subprocess
import sys
from base64 import b64encode
from pathlib import Path
from typing import Any
from zlib import compress

import numpy
import pytest
from harness.hub import COMMIT, Hub, serving_hub
from harness.stack import clean_environment
from k2think.evaluation.preflight import check_grading
from k2think.evaluation.suites.options import SuiteOptions
from k2think.evaluation.suites.registry import SUITES, load_suite, suite
from k2think.grading import sandbox
from k2think.grading.sandbox import sandbox_problem
from k2think.grading.sandboxes.choice import choose
from k2think.grading.score import score_task
from k2think.schemas.errors import ConfigurationError, GradingError, InvalidRequest, NotFound
from k2think.schemas.evaluation import Item
from k2think.schemas.sandbox_settings import SandboxSettings

SAMPLES = Path(__file__).parents[1] / "samples"
FOLDERS = {
    "aime_2024": "aime_2024",
    "aime_2025": "aime_2025",
    "hmmt_2025": "hmmt_2025",
    "omni_math_hard": "omni_math",
    "livecodebench_v5": "livecodebench",
    "scicode": "scicode",
    "gpqa_diamond": "gpqa",
    "hle": "hle",
}
CANARY = "SAMPLE CANARY"


def options(name: str, **more: Any) -> SuiteOptions:
    if name == "scicode":
        more.setdefault("targets_file", SAMPLES / "scicode" / "test_data.h5")
    return SuiteOptions(path=SAMPLES / FOLDERS[name], **more)


def load(name: str, **more: Any) -> dict[str, Item]:
    return {item.task.id: item for item in suite(name, options(name, **more))}


# --- what is read -------------------------------------------------------------------------------------------------


def test_every_published_suite_has_a_sample() -> None:
    assert set(FOLDERS) == set(SUITES) - {"mini"}


@pytest.mark.parametrize("name", sorted(FOLDERS))
def test_no_item_holds_a_canary_and_all_tell_where_they_are_from(name: str) -> None:
    items, told = load_suite(name, options(name))
    assert items
    assert all(CANARY not in item.model_dump_json() for item in items)
    assert told["origin"]
    assert str(SAMPLES) not in json.dumps(told), "where it lay on this machine is nobody's business"


def test_contests() -> None:
    assert {name: item.task.truth for name, item in load("aime_2024").items()} == {
        "aime_2024-60": "016",
        "aime_2024-61": "298",
    }
    assert {item.subset: item.task.truth for item in load("aime_2025").values()} == {
        "Number Theory": "3",
        "Combinatorics": "30",
    }
    assert load("hmmt_2025")["hmmt_2025-2"].task.truth == "\\sqrt{2}+\\sqrt{5}"


async def test_answers_of_contests_are_checked_by_equivalence() -> None:
    score = await score_task(load("aime_2024")["aime_2024-60"].task, "So it is \\boxed{16}.")
    assert score.correct
    score = await score_task(load("hmmt_2025")["hmmt_2025-1"].task, "\\boxed{\\pi/2}")
    assert score.correct


def test_omni_math_keeps_what_is_hard() -> None:
    items = load("omni_math_hard").values()
    assert [(item.subset, item.task.truth) for item in items] == [("Algebra", "2"), ("Number Theory", "3")]


def test_gpqa_shuffles_the_choices_of_each_item_by_the_seed() -> None:
    seeds = [load("gpqa_diamond", seed=seed) for seed in range(12)]
    letters = [[item.task.truth for item in items.values()] for items in seeds]
    assert len({tuple(pair) for pair in letters}) > 4
    assert load("gpqa_diamond", seed=3) == seeds[3]
    for items in seeds:
        for item in items.values():
            choices: Any = item.task.meta["choices"]
            right = choices["ABCD".index(str(item.task.truth))]
            assert right in ("The photon", "Argon")
            assert f"({item.task.truth}) {right}" in item.task.prompt


async def test_a_letter_of_gpqa_is_graded() -> None:
    item = load("gpqa_diamond")["gpqa_diamond-recSample01"]
    right = await score_task(item.task, f"<think>A or B?</think><answer>{item.task.truth}</answer>")
    wrong = await score_task(item.task, "<answer>Energy</answer>")
    assert (right.correct, wrong.correct) == (True, False)


async def test_hle_leaves_out_pictures_and_asks_a_judge_only_about_free_answers() -> None:
    asked: list[str] = []

    async def judge(question: str, truth: str, answer: str) -> bool | None:
        asked.append(answer)
        return True

    items = load("hle")
    assert set(items) == {"hle-sample000001", "hle-sample000002"}
    choice = await score_task(items["hle-sample000001"].task, "<answer>C</answer>", judge=judge)
    assert choice.correct
    assert not asked
    free = items["hle-sample000002"].task
    assert (await score_task(free, "<answer>nowhere at all</answer>", judge=judge)).correct
    assert len(asked) == 1
    assert (await score_task(free, "<answer>nowhere at all</answer>")).reason == "unjudged"


# --- LiveCodeBench ------------------------------------------------------------------------------------------------


def test_livecodebench_is_cut_by_dates_both_days_included() -> None:
    window = load("livecodebench_v5", published_from="2024-10-20", published_until="2025-01-04")
    assert [item.published for item in window.values()] == ["2024-10-20", "2024-11-30", "2025-01-04"]
    with pytest.raises(InvalidRequest, match="no item is left"):
        load("livecodebench_v5", published_from="2026-01-01")


@pytest.mark.skipif(bool(sandbox_problem()), reason="no sandbox on this machine")
@pytest.mark.parametrize(
    ("number", "program", "right"),
    [
        pytest.param(1, "a, b = map(int, input().split())\nprint(a + b)", True, id="stdin"),
        pytest.param(1, "print(3)", False, id="public-test-alone"),
        pytest.param(
            2, "class Solution:\n    def turned(self, values):\n        return values[::-1]", True, id="function"
        ),
        pytest.param(2, "class Solution:\n    def turned(self, values):\n        return values", False, id="wrong"),
    ],
)
async def test_private_tests_decide(number: int, program: str, right: bool) -> None:
    item = load("livecodebench_v5")[f"livecodebench_v5-sample_{number}"]
    score = await score_task(item.task, f"```python\n{program}\n```")
    assert score.correct is right, score


async def test_a_pickle_that_would_run_something_is_refused_and_not_run(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "ran",))

    row = json.loads((SAMPLES / "livecodebench" / "test.jsonl").read_text())
    row["private_test_cases"] = b64encode(compress(pickle.dumps(Bomb()))).decode()
    (tmp_path / "rows.jsonl").write_text(json.dumps(row))
    (item,) = suite("livecodebench_v5", SuiteOptions(path=tmp_path / "rows.jsonl"))
    with pytest.raises(GradingError, match="private tests"):
        await score_task(item.task, "")
    assert not (tmp_path / "ran").exists()


# --- SciCode ------------------------------------------------------------------------------------------------------

SOLUTION = """
import numpy as np

def column_means(table):
    return np.mean(table, axis=0)

def best_column(table):
    means = column_means(table)
    return float(np.max(means)), int(np.argmax(means))
"""


def test_scicode_asks_for_all_steps_and_shows_no_expected_value() -> None:
    item = load("scicode")["scicode-901"]
    assert "def column_means(table):" in item.task.prompt
    assert "def best_column(table):" in item.task.prompt
    assert "ground_truth" not in item.model_dump_json()
    assert "target" not in item.task.prompt


@pytest.mark.skipif(bool(sandbox_problem()), reason="no sandbox on this machine")
async def test_scicode_is_right_when_every_step_is(monkeypatch: pytest.MonkeyPatch) -> None:
    item = load("scicode")["scicode-901"]
    # Given a sandbox without numpy, which is told before anything is asked
    with pytest.raises(ConfigurationError, match=r"programs in the sandbox do not have .numpy."):
        await check_grading([item])
    # And one that has it
    packages = SandboxSettings(packages_dir=Path(numpy.__file__).parents[1])
    monkeypatch.setattr(sandbox, "configured", lambda: choose(packages))
    await check_grading([item])
    right = await score_task(item.task, f"```python\n{SOLUTION}```")
    wrong = await score_task(item.task, f"```python\n{SOLUTION.replace('np.max', 'np.min')}```")
    assert (right.correct, wrong.correct) == (True, False), right
    assert "step 901.2" in wrong.detail


def test_the_tests_that_are_made_hold_for_a_right_solution_and_fail_for_another() -> None:
    # Our own sample, so that it may run here without a sandbox
    truth: Any = load("scicode")["scicode-901"].task.truth
    cases = [case for step in truth["steps"] for case in step["test_cases"]]
    assert len(cases) == 3
    for case in cases:
        exec(f"{truth['required_dependencies']}\n{SOLUTION}\n{case}", {})  # noqa: S102
    wrong = SOLUTION.replace("np.max", "np.min")
    with pytest.raises(AssertionError):
        exec(f"{truth['required_dependencies']}\n{wrong}\n{cases[2]}", {})  # noqa: S102


def test_scicode_says_where_the_expected_values_come_from() -> None:
    with pytest.raises(InvalidRequest, match="--scicode-targets"):
        suite("scicode", SuiteOptions(path=SAMPLES / "scicode"))
    with pytest.raises(InvalidRequest, match="no HDF5 file"):
        load("scicode", targets_file=SAMPLES / "README.md")


# --- what is wrong with a file ------------------------------------------------------------------------------------


def test_another_format_is_told_by_its_fields(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"prompt": "x", "label": 3}\n')
    with pytest.raises(InvalidRequest, match=r"rows.jsonl, line 1 has no field 'problem_idx'.*it has: label, prompt"):
        suite("aime_2025", SuiteOptions(path=tmp_path / "rows.jsonl"))


def test_two_items_of_one_id_are_refused(tmp_path: Path) -> None:
    with (SAMPLES / "gpqa" / "gpqa_diamond.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    (tmp_path / "twice.jsonl").write_text("".join(json.dumps(row) + "\n" for row in (rows[0], rows[0])))
    with pytest.raises(InvalidRequest, match="two items have the id 'gpqa_diamond-recSample01'"):
        suite("gpqa_diamond", SuiteOptions(path=tmp_path / "twice.jsonl"))


@pytest.mark.parametrize(
    ("name", "error", "said"),
    [
        pytest.param("chess", InvalidRequest, "no suite 'chess'", id="unknown"),
        pytest.param("nowhere.jsonl", InvalidRequest, "cannot be read", id="own-missing"),
    ],
)
def test_unknown_suites(name: str, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        suite(name, SuiteOptions())


def test_a_path_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no such file or folder"):
        suite("hle", SuiteOptions(path=tmp_path / "nothing"))


def test_items_of_ones_own(tmp_path: Path) -> None:
    items = suite("gpqa_diamond", options("gpqa_diamond"))
    file = tmp_path / "own.jsonl"
    file.write_text("".join(item.model_dump_json() + "\n" for item in items))
    assert suite(str(file), SuiteOptions(limit=1)) == items[:1]
    with pytest.raises(InvalidRequest, match="seed means nothing here"):
        suite(str(file), SuiteOptions(seed=3))


# --- the hub ------------------------------------------------------------------------------------------------------


def from_hub(folder: Path, hub: Hub, *names: str) -> list[str]:
    """Load suites in a process whose hub is this one: the library reads its address when it is imported."""
    code = (
        "from k2think.evaluation.suites.options import SuiteOptions\n"
        "from k2think.evaluation.suites.registry import load_suite\n"
        "from k2think.schemas.errors import K2ThinkError\n"
        f"for name in {names!r}:\n"
        "    try: items, told = load_suite(name, SuiteOptions())\n"
        "    except K2ThinkError as exc: print(exc)\n"
        "    else: print(len(items), told['origin'])\n"
    )
    environment = {
        **clean_environment(),
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(folder),
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=100, check=True)
    return done.stdout.splitlines()


def test_a_set_comes_from_the_hub_at_a_commit_and_what_the_hub_refuses_is_explained(tmp_path: Path) -> None:
    pytest.importorskip("huggingface_hub")
    hub = Hub(
        models={"Idavidrein/gpqa": SAMPLES / "gpqa", "MathArena/aime_2025": SAMPLES, "cais/hle": SAMPLES / "hle"},
        gated={"cais/hle"},
    )
    with serving_hub(hub):
        loaded, other, gated, unknown = from_hub(tmp_path, hub, "gpqa_diamond", "aime_2025", "hle", "livecodebench_v5")
    assert loaded == f"2 Idavidrein/gpqa@{COMMIT}"
    assert "holds no data/*.parquet" in other
    assert "cais/hle is gated: ask for access" in gated
    assert "no data set 'livecodebench/code_generation_lite'" in unknown
