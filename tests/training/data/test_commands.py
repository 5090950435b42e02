"""The commands: what they print, and how they say what is wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from k2think.schemas.errors import InvalidRequest, NotFound
from k2think.training.cli import app
from typer.testing import CliRunner

HEAVY = ("sqlalchemy", "aiohttp", "pyarrow", "huggingface_hub", "sympy", "numpy")


def test_the_commands_load_nothing_heavy() -> None:
    code = f"import sys, k2think.training.data.commands; print([m for m in {HEAVY!r} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_convert_and_mix_tell_what_they_did(samples: Path, tmp_path: Path) -> None:
    out, mixed = tmp_path / "out", tmp_path / "mixed"
    told = CliRunner().invoke(app, ["convert", "am", str(samples / "am"), "--out", str(out), "--verify", "off"])
    assert told.exit_code == 0, told.output
    assert "12 of 12 records" in told.stdout
    assert "written: math am_thinking_v1_distilled/math 4" in told.stdout
    assert "name the sets to keep out by --against" in told.stderr
    words = ["mix", str(out), "--weight", "math=2", "--weight", "code=1", "--seed", "4", "--out", str(mixed), "--json"]
    told = CliRunner().invoke(app, words)
    assert told.exit_code == 0, told.output
    manifest = json.loads(told.stdout)
    assert manifest["options"]["weights"] == {"math": 2.0, "code": 1.0}
    assert (manifest["written"], manifest["seed"]) == (6, 4)


@pytest.mark.parametrize("weight", ["math", "math=", "=2", "math=-1", "math=inf", "math=nan"], ids=str)
def test_a_weight_that_is_none_is_refused(weight: str, tmp_path: Path) -> None:
    told = CliRunner().invoke(app, ["mix", str(tmp_path), "--weight", weight, "--out", str(tmp_path / "out")])
    assert isinstance(told.exception, InvalidRequest)
    assert "NAME=NUMBER" in str(told.exception)


def test_whose_jobs_must_be_said_and_there_must_be_some(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("K2THINK_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.delenv("K2THINK_DATABASE_URL", raising=False)
    for words in ([], ["--tenant", "a", "--all-tenants"]):
        told = CliRunner().invoke(app, ["from-log", "--out", "out", *words])
        assert isinstance(told.exception, InvalidRequest)
        assert "--all-tenants" in str(told.exception)
    told = CliRunner().invoke(app, ["from-log", "--out", "out", "--all-tenants"])
    assert isinstance(told.exception, NotFound)
    assert "there are no jobs yet" in str(told.exception)
    assert not list(tmp_path.iterdir())
