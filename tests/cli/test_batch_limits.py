"""`k2think batch run` at its tenant's limit: the lines wait."""

from __future__ import annotations

import json

import pytest
from harness.cli import Cli

pytestmark = pytest.mark.timeout(400)  # a guard against hanging, for machines that are busy with other things


def test_beyond_the_jobs_in_flight_lines_wait(simulated_cli: Cli) -> None:
    lines = [json.dumps({"id": number, "problem": "What is 347 + 58?", "policy": {"n": 1}}) for number in range(5)]
    (simulated_cli.folder / "in.jsonl").write_text("\n".join(lines))
    assert simulated_cli.run("tenants", "set", "default", "--jobs-in-flight", "1").returncode == 0

    done = simulated_cli.run("batch", "run", "in.jsonl", "-o", "out.jsonl")

    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in (simulated_cli.folder / "out.jsonl").read_text().splitlines()]
    assert sorted((answer["id"], answer["answer"]) for answer in answers) == [(number, "405") for number in range(5)]
