"""The examples of docs/client.md run as they stand there, but for the gateway's address and keys that stand for one job."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from harness.stack import clean_environment

if TYPE_CHECKING:
    from harness.live import LiveGateway

PAGE = Path(__file__).parents[2] / "docs" / "client.md"
EXAMPLES = re.findall(r"^```python\n(.+?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
DEFAULT_URL = "http://127.0.0.1:8400"
TIMEOUT_S = 100


def test_the_examples_are_found() -> None:
    assert len(EXAMPLES) == PAGE.read_text(encoding="utf-8").count("```python") >= 10
    assert all("import" in example for example in EXAMPLES)


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_an_example_runs_and_prints(live_gateway: LiveGateway, tmp_path: Path, number: int) -> None:
    code = EXAMPLES[number].replace(DEFAULT_URL, live_gateway.url)
    code = re.sub(r"\b(Async)?Client\((?=\)|\w+=)", rf'\g<0>base_url="{live_gateway.url}", ', code)
    code = re.sub(r'idempotency_key="[^"]+"', f'idempotency_key="{uuid.uuid4().hex}"', code)

    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=tmp_path,
        env={**clean_environment(), "PATH": os.defpath},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    assert not done.stderr
