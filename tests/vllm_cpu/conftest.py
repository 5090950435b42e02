"""Tests on the real vLLM: `make test-vllm`. Where vLLM is not installed there are none; at the end stands what was measured."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import time
from typing import Any

import pytest

collect_ignore_glob = [] if importlib.util.find_spec("vllm") else ["test_*.py"]
figures = pytest.StashKey[list[dict[str, Any]]]()


@pytest.fixture
def measured(pytestconfig: pytest.Config) -> list[dict[str, Any]]:
    """Rows of the table at the end."""
    return pytestconfig.stash.setdefault(figures, [])


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print the table as Markdown, with date and versions."""
    rows = config.stash.get(figures, [])
    if not rows:
        return
    names = ("vllm", "torch", "transformers", "openvino-genai")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
    terminalreporter.section("vLLM")
    terminalreporter.write_line(f"{time.strftime('%Y-%m-%d')}, {versions}, Python {platform.python_version()}")
    terminalreporter.write_line("| " + " | ".join(rows[0]) + " |")
    terminalreporter.write_line("|" + "---|" * len(rows[0]))
    for row in rows:
        terminalreporter.write_line("| " + " | ".join(map(str, row.values())) + " |")
