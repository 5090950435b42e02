"""The chaos harness itself: a short run keeps every promise, and each promise that is broken on purpose is noticed.

`K2THINK_CHAOS_PLANTS=all` tries all planted faults, which takes minutes; otherwise the quickest few are tried.
"""

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
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "chaos"), *words],
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S - 10,
        check=False,
    )
    assert done.returncode in (0, 1), done.stderr
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


@pytest.mark.timeout(TIMEOUT_S)
def test_a_hundred_jobs_and_three_faults_lose_nothing() -> None:
    code, report = chaos("--jobs", "100", "--only", "kill:generator,redis:lost,kill:gateway", "--every", "3")

    assert not report["violations"]
    assert code == 0
    assert report["accepted"] == 100
    assert report["lost"] == report["duplicated"] == report["tokens_unaccounted"] == 0
    assert report["tokens_sent"] > 0
    assert len(report["faults"]) == 3
