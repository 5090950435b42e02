"""The chaos harness itself, in short: it finds every promise kept, and it notices one that is broken on purpose."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from harness.stack import clean_environment

ROOT = Path(__file__).parents[1]
TIMEOUT_S = 240


def chaos(*words: str) -> tuple[int, dict[str, Any]]:
    """Run the harness; return its exit code and its report."""
    with subprocess.Popen(
        [sys.executable, str(ROOT / "benchmarks" / "chaos"), *words],
        env=clean_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            printed, complaints = process.communicate(timeout=TIMEOUT_S - 40)
        except BaseException:
            process.terminate()  # it ends what it started
            process.wait(30)
            raise
    assert process.returncode in (0, 1), complaints
    assert printed, complaints
    return process.returncode, json.loads(printed)


@pytest.mark.timeout(TIMEOUT_S)
def test_a_hundred_jobs_and_three_faults_lose_nothing() -> None:
    faults = "kill:all-1,redis:flushall,kill:gateway"

    short = ("--roles", "small", "--jobs", "100", "--pause", "0.05", "--killers", "0", "--every", "1")
    code, report = chaos(*short, "--only", faults)

    assert not report["violations"]
    assert code == 0
    assert report["accepted"] == 100
    assert report["lost"] == report["duplicated"] == report["tokens_unaccounted"] == 0
    assert report["tokens_sent"] > 0
    assert [fault["name"] for fault in report["faults"]] == faults.split(",")


@pytest.mark.timeout(TIMEOUT_S)
@pytest.mark.parametrize("plant", ["missing_fence"])
def test_a_promise_that_is_broken_on_purpose_is_noticed(plant: str) -> None:
    code, tried = chaos("--self-test", plant)

    assert tried[plant]["caught"], tried
    assert code == 0


@pytest.mark.timeout(TIMEOUT_S)
@pytest.mark.parametrize("seeds", ["3,5"])
def test_several_seeds_are_summed_up_and_each_is_kept(tmp_path: Path, seeds: str) -> None:
    kept = tmp_path / "runs.jsonl"

    short = ("--roles", "small", "--jobs", "10", "--pause", "0.05", "--killers", "0", "--faults", "0")
    code, whole = chaos(*short, "--seeds", seeds, "--out", str(kept))

    assert code == 0
    assert whole["totals"]["accepted"] == 20
    assert [run["seed"] for run in whole["runs"]] == [3, 5]
    assert [json.loads(line)["seed"] for line in kept.read_text().splitlines()] == [3, 5]
