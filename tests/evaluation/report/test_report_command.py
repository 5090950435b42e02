"""`k2think eval report` and `k2think eval compare` at the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from harness.evaluations import SPECS, MadeUp, items, outcome, right_or_wrong, three_rows
from k2think.cli.app import app, main
from k2think.evaluation.report.model import PairReport, Report
from typer.testing import CliRunner

RUNNER = CliRunner()


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return three_rows({"a": 20, "b": 20}).write(tmp_path / "run")


def failed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str) -> str:
    """Run the command as a shell would; return what it says to whoever used it wrongly."""
    monkeypatch.setattr("sys.argv", ["k2think", "eval", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return said


def test_a_report_is_written_in_all_forms(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "made" / "report"
    done = RUNNER.invoke(app, ["eval", "report", str(run), "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert sorted(path.name for path in out.iterdir()) == ["report.html", "report.json", "report.md"]
    report = Report.model_validate_json((out / "report.json").read_text())
    assert [target.name for target in report.parts[0].targets] == ["single", "best3", "outside3"]
    assert (out / "report.md").read_text().startswith("# Evaluation: made\\_up\n")
    assert "warnings: the report begins with them" in done.output


def test_without_a_folder_it_is_printed(run: Path) -> None:
    assert RUNNER.invoke(app, ["eval", "report", str(run)]).stdout.startswith("# Evaluation")
    Report.model_validate(json.loads(RUNNER.invoke(app, ["eval", "report", str(run), "--format", "json"]).stdout))


def test_a_broken_run_is_reported_as_far_as_it_goes(run: Path) -> None:
    (run / "manifest.json").unlink()
    done = RUNNER.invoke(app, ["eval", "report", str(run)])
    assert done.exit_code == 0
    assert "manifest.json is missing" in done.stdout


def test_two_targets_are_compared(run: Path) -> None:
    done = RUNNER.invoke(app, ["eval", "compare", f"{run}:best3", f"{run}:single"])
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("best3 − single\nmacro average: +")
    assert "paired over 40 problems" in done.stdout
    assert "also differs: 3 against 1 samples a problem" in done.stdout
    done = RUNNER.invoke(app, ["eval", "compare", f"{run}:best3", f"{run}:single", "--json"])
    assert PairReport.model_validate_json(done.stdout).ours == "best3"


def test_a_run_with_one_target_needs_no_name(tmp_path: Path) -> None:
    folders: list[str] = []
    for name in ("one", "two"):
        made = MadeUp(items({"a": 20}), {"only": SPECS["single"]})
        made.ask("only", lambda item, repeat: outcome(item, "only", right_or_wrong(True)))
        folders.append(str(made.write(tmp_path / name)))
    done = RUNNER.invoke(app, ["eval", "compare", *folders])
    assert done.stdout.startswith("one:only − two:only\n")


def test_wrong_use_is_explained(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def said(*arguments: str) -> str:
        return failed(capsys, monkeypatch, *arguments)

    assert "there is no such folder" in said("report", str(tmp_path / "nowhere"))
    assert "--format: 'pdf' is none of md, html, json" in said("report", str(run), "--format", "pdf")
    assert "add --out DIR" in said("report", str(run), "--format", "md,html")
    assert "a run is named twice" in said("report", str(run), f"{run}/.")
    assert "cannot be written" in said("report", str(run), "--out", f"{run}/manifest.json/below")
    assert "give FOLDER:TARGET" in said("compare", "nowhere:x", f"{run}:single")
    assert "its targets are single, best3, outside3" in said("compare", f"{run}:x", f"{run}:single")
    assert "has 3 targets" in said("compare", str(run), f"{run}:single")
    overlap = tmp_path / "overlap.json"
    assert "k2think eval contamination" in said("report", str(run), "--contamination", str(overlap))
    overlap.write_text("{")
    assert "is no report on contamination" in said("report", str(run), "--contamination", str(overlap))
    assert "cannot be read" in said("report", str(run), "--against-published", str(tmp_path / "none.toml"))
