"""The samples, and short words for reading what was written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SAMPLES = Path(__file__).parents[1] / "samples"


@pytest.fixture
def samples() -> Path:
    """The folder of samples."""
    return SAMPLES


@pytest.fixture
def lines() -> Callable[[Path], list[dict[str, Any]]]:
    """A function that reads JSON lines."""
    return lambda path: [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
