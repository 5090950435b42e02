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
    faults = "kill:all-1,redis:lost,kill:gateway"

    code, report = chaos("--roles", "small", "--jobs", "100", "--pause", "0.05", "--killers", "0", "--only", faults)

    assert not report["violations"]
    assert code == 0
    assert report["accepted"] == 100
    assert report["lost"] == report["duplicated"] == report["tokens_unaccounted"] == 0
    assert report["tokens_sent"] > 0
    assert [fault["name"] for fault in report["faults"]] == faults.split(",")


@pytest.mark.timeout(TIMEOUT_S)
def test_a_result_taken_from_a_worker_that_lost_its_lease_is_noticed() -> None:
    code, tried = chaos("--self-test", "missing_fence")

    assert tried["missing_fence"]["caught"], tried
    assert code == 0
