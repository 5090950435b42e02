"""The folder of a run: what it refuses, and what it goes on from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from k2think.schemas.errors import ConfigurationError
from k2think.training.mini.curve import read_metrics
from k2think.training.plot import GRPO_PANELS, draw_metrics
from k2think.training.run_folder import CHECKPOINT_FILES, RunFolder

MANIFEST: dict[str, Any] = {
    "config": {
        "run": {"out": "a", "seed": 1, "threads": 1},
        "optimizer": {"learning_rate": 0.1},
        "cluster": {"nodes": 1},
    },
    "data_sha256": {"a.jsonl": "1"},
}


def changed(**parts: Any) -> dict[str, Any]:
    return json.loads(json.dumps(MANIFEST)) | parts


def checkpoint(folder: RunFolder, step: int, *, without: str | None = None) -> Path:
    path = folder.path / f"checkpoint-{step}"
    path.mkdir()
    for name in (*CHECKPOINT_FILES, "model.safetensors"):
        if name != without:
            (path / name).write_text(json.dumps({"global_step": step}), encoding="utf-8")
    return path


def test_a_run_is_not_written_over(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.begin(MANIFEST)
    with pytest.raises(ConfigurationError, match="holds a run already: go on with it by --resume"):
        folder.begin(MANIFEST)


def test_there_must_be_a_run_to_go_on_with(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="holds no run to go on with: leave out --resume"):
        RunFolder(tmp_path / "run").resume(MANIFEST)


def test_a_run_killed_before_its_first_checkpoint_starts_anew(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.begin(MANIFEST)
    folder.metrics.write_text('{"step": 1, "loss": 2}\n{"step": 2, "lo', encoding="utf-8")
    assert folder.resume(MANIFEST) is None
    assert folder.metrics.read_text(encoding="utf-8") == ""


def test_it_goes_on_from_the_newest_whole_checkpoint(tmp_path: Path) -> None:
    # Given one that was being written, and metrics beyond the last whole one
    folder = RunFolder(tmp_path / "run")
    folder.begin(MANIFEST)
    checkpoint(folder, 5)
    whole = checkpoint(folder, 10)
    for step, without in ((15, "trainer_state.json"), (20, "optimizer.pt"), (100, "model.safetensors")):
        checkpoint(folder, step, without=without)
    damaged = checkpoint(folder, 25)
    (damaged / "trainer_state.json").write_text('{"global_st', encoding="utf-8")
    folder.metrics.write_text(
        "".join(f'{{"step": {step}, "tokens": {step}}}\n' for step in range(1, 16)) + '{"st', encoding="utf-8"
    )
    # When the run goes on
    assert folder.resume(MANIFEST) == whole
    # Then what is broken is gone, and the metrics end where the checkpoint does
    assert [path.name for path in folder.checkpoints()] == ["checkpoint-5", "checkpoint-10"]
    assert [row["step"] for row in read_metrics(folder.metrics)] == list(range(1, 11))
    assert folder.last("tokens") == 10


@pytest.mark.parametrize(
    ("manifest", "named"),
    [
        pytest.param(
            changed(config=MANIFEST["config"] | {"optimizer": {"learning_rate": 0.2}}),
            "optimizer.learning_rate",
            id="rate",
        ),
        pytest.param(
            changed(config=MANIFEST["config"] | {"run": {"out": "b", "seed": 2, "threads": 1}}), "run.seed", id="seed"
        ),
        pytest.param(changed(data_sha256={"a.jsonl": "2"}), "data_sha256.a.jsonl", id="data"),
        pytest.param(changed(model_sha256="3"), "model_sha256", id="model"),
    ],
)
def test_what_would_make_other_weights_is_refused(manifest: dict[str, Any], named: str, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.begin(MANIFEST)
    with pytest.raises(ConfigurationError, match=f"was begun with another {named}: ".replace(".", r"\.")):
        folder.resume(manifest)


def test_what_decides_no_weight_may_change(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.begin(MANIFEST)
    config = MANIFEST["config"] | {"run": {"out": "b", "seed": 1, "threads": 8}, "cluster": {"nodes": 9}}
    assert folder.resume(changed(config=config)) is None


def test_the_plot_shows_what_was_measured_and_nothing_else() -> None:
    rows = [{"step": step, "reward": step / 4, "entropy": 1.0} for step in range(1, 4)]
    held_out = {"step": 2, "evaluation": {"reward": 0.9}}
    drawn = draw_metrics([*rows, held_out], GRPO_PANELS)
    assert drawn.count("<polyline") == 2
    assert drawn.count("<circle") == 1, "a single point is a dot"
    assert "mean reward" in drawn
    assert "entropy" in drawn
    assert "correct" not in drawn
    assert "nan" not in drawn.lower()
