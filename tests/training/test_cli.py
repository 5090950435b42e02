"""The training commands: light to import, clear about what is missing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from k2think.schemas.errors import ConfigurationError, InvalidRequest
from k2think.training.cli import app
from k2think.training.writing import writing
from typer.testing import CliRunner

HEAVY = ("torch", "transformers", "optimum", "openvino", "openvino_genai")


def test_importing_the_commands_loads_nothing_heavy() -> None:
    code = f"import sys, k2think.training.cli; print([m for m in {HEAVY!r} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # Given an installation without the network files' library
    monkeypatch.setitem(sys.modules, "openvino", None)
    # When a model is to be made
    result = CliRunner().invoke(app, ["mini", "--out", str(tmp_path)])
    # Then one line says what is missing and how to get it, and nothing was begun
    assert result.exit_code == 2
    assert "openvino" in result.output
    assert "pip install 'k2think[train]'" in result.output
    assert len(result.output.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_a_folder_without_a_model_is_not_measured(tmp_path: Path) -> None:
    pytest.importorskip("openvino_genai", reason="the embedded engine is not installed (extra `embedded`)")
    result = CliRunner().invoke(app, ["mini-eval", str(tmp_path)])
    assert isinstance(result.exception, ConfigurationError)
    assert "lacks" in str(result.exception)


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        with (
            pytest.raises(InvalidRequest, match=r"cannot be written \(.+\): name another folder"),
            writing(out),
        ):
            pytest.fail("it was written")


def test_mini_data_tells_of_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = CliRunner().invoke(app, ["mini-data", "--out", str(tmp_path / "file" / "below")])
    assert isinstance(result.exception, InvalidRequest)


def test_mini_eval_prints_json(shipped_folder: Path) -> None:
    pytest.importorskip("openvino_genai", reason="the embedded engine is not installed (extra `embedded`)")
    result = CliRunner().invoke(app, ["mini-eval", str(shipped_folder), "--per-family", "1"])
    assert result.exit_code == 0, result.output
    figures = json.loads(result.stdout)
    assert figures["problems"] == 8
    assert {"solving", "solving_by_policy", "refusals", "judging"} <= figures.keys()
