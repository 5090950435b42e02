"""`k2think train from-log` on a log that the embedded stack wrote."""

from __future__ import annotations

import json
from pathlib import Path

from harness.cli import Solved


def test_what_the_stack_solved_becomes_training_data(solved: Solved, tmp_path: Path) -> None:
    # Given what a batch left: a problem solved three times over, one by a single sample, a chat, and a refused one
    # When its tenant's jobs are made training data
    out = tmp_path / "out"
    manifest = solved.cli.json("train", "from-log", "--tenant", "default", "--out", str(out))
    # Then there is one conversation of the problem that a majority agrees on; the same problem is not taken twice
    (example,) = [json.loads(line) for line in (out / "examples.jsonl").read_text().splitlines()]
    assert example["messages"][0] == {"role": "user", "content": "What is 347 + 58?"}
    assert "405" in example["messages"][1]["content"]
    assert example["messages"][1]["content"].startswith("<think>\n")
    assert manifest["options"]["written_by_evidence"] == {"majority": 1}
    assert manifest["read"] == manifest["written"] + sum(manifest["rejected"].values())
    assert manifest["rejected"]["no_evidence"] >= 1
    assert "bomb" not in "".join(file.read_text() for file in out.iterdir())
