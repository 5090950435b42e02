"""The evidence through the whole system: every row on the embedded stack, a few problems each."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_a_few_problems_through_the_whole_system(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "k2think.cli", "eval", "evidence", "--run", "--development", "--problems", "16"]
    done = subprocess.run(
        [*command, "--packed", str(tmp_path / "packed"), "--out", str(tmp_path / "evidence.md")],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "evidence.md").read_text()
    assert "16 problems." in page
    assert not [line for line in page.splitlines() if "Not finished" in line]


def test_the_shipped_page_is_what_the_stored_runs_give() -> None:
    command = [sys.executable, "-m", "k2think.cli", "eval", "evidence"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout == (ROOT / "docs" / "evidence.md").read_text(encoding="utf-8")
