"""The folder of a run: what it refuses, and what it goes on from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from harness.training import grpo_config, sft_config
from k2think.schemas.errors import ConfigurationError
from k2think.training import run_folder
from k2think.training.config import GrpoConfig, SftConfig
from k2think.training.mini.curve import read_metrics
from k2think.training.plot import GRPO_PANELS, draw_metrics
from k2think.training.run_folder import CHECKPOINT_FILES, RunFolder, manifest_of

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


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder like a model's, whose tokenizer stands in a folder of its own, and typed sets beside it."""
    folder = tmp_path / "model"
    (folder / "tokenizer").mkdir(parents=True)
    for name in ("config.json", "generation_config.json", "tokenizer/tokenizer.json", "tokenizer/chat_template.jinja"):
        (folder / name).write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    for name in ("examples.jsonl", "tasks.jsonl"):
        (tmp_path / name).touch()
    return folder


@pytest.mark.parametrize(
    ("file", "named"),
    [
        ("tokenizer/chat_template.jinja", "tokenizer_sha256.chat_template.jinja"),
        ("tokenizer/tokenizer.json", "tokenizer_sha256.tokenizer.json"),
        ("tokenizer/vocab.txt", "tokenizer_sha256.vocab.txt"),
        ("generation_config.json", "model_sha256"),
        ("model.safetensors", "model_sha256"),
    ],
)
def test_a_file_of_the_model_that_changed_is_refused(file: str, named: str, model: Path, tmp_path: Path) -> None:
    config = SftConfig.model_validate(sft_config(model, tmp_path, tmp_path / "run"))
    folder = RunFolder(tmp_path / "run")
    folder.begin(manifest_of(config, model=model))
    assert folder.resume(manifest_of(config, model=model)) is None
    (model / file).write_text("other")
    with pytest.raises(ConfigurationError, match=f"was begun with another {named}: ".replace(".", r"\.")):
        folder.resume(manifest_of(config, model=model))


def test_a_tokenizer_from_elsewhere_is_looked_at_there(model: Path, tmp_path: Path) -> None:
    content = sft_config(model, tmp_path, tmp_path / "run")
    content["model"]["tokenizer"] = str(tmp_path)
    (tmp_path / "merges.txt").touch()
    assert list(manifest_of(SftConfig.model_validate(content), model=model)["tokenizer_sha256"]) == ["merges.txt"]


def test_another_grader_is_refused_where_it_is_the_reward(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rewarded = GrpoConfig.model_validate(grpo_config(model, tmp_path, tmp_path / "run"))
    imitating = SftConfig.model_validate(sft_config(model, tmp_path, tmp_path / "sft"))
    folder, other = RunFolder(tmp_path / "run"), RunFolder(tmp_path / "sft")
    folder.begin(manifest_of(rewarded, model=model))
    other.begin(manifest_of(imitating, model=model))
    monkeypatch.setattr(run_folder, "grader_sha256", lambda: "0" * 64)
    with pytest.raises(ConfigurationError, match="was begun with another grader_sha256: "):
        folder.resume(manifest_of(rewarded, model=model))
    assert other.resume(manifest_of(imitating, model=model)) is None
    monkeypatch.setattr(run_folder, "__version__", "0.0.0")
    with pytest.raises(ConfigurationError, match=r"was begun with another libraries\.k2think: "):
        other.resume(manifest_of(imitating, model=model))


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
