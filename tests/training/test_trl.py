"""A few real steps of SFT and GRPO with TRL, on the bundled model and its own problems."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from harness.training import TRL, grpo_config, mini_checkpoint, need, sft_config, typed_sets, written
from k2think.grading.score import score_sync
from k2think.schemas.scores import Task
from k2think.training.config import GrpoConfig, SftConfig
from k2think.training.config_file import load_config
from k2think.training.mini.curve import read_metrics
from k2think.training.records import read_tasks, write_records


@pytest.fixture(autouse=True)
def trl_is_there() -> None:
    need(*TRL)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    need(*TRL)
    return mini_checkpoint(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return typed_sets(tmp_path_factory.mktemp("sets"))


def weights(folder: Path) -> dict[str, Any]:
    from safetensors.numpy import load_file

    return load_file(folder / "model.safetensors")


def same(left: dict[str, Any], right: dict[str, Any]) -> bool:
    assert left.keys() == right.keys()
    return all((left[name] == right[name]).all() for name in left)


def untimed(metrics: Path) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name != "wall_s"} for row in read_metrics(metrics)]


def killed_after_first_step(run: Path, copy: Path) -> None:
    """Make the folder that a kill leaves which comes while the second checkpoint is being written."""
    shutil.copytree(run, copy)
    shutil.rmtree(copy / "final")
    (copy / "checkpoint-2" / "trainer_state.json").unlink()
    with (copy / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"step": 2, "lo')


def test_sft_learns_and_goes_on_where_it_was_killed(model: Path, sets: Path, tmp_path: Path) -> None:
    from k2think.training.sft import train_sft

    # Given a run with held-out conversations
    content = sft_config(model, sets, tmp_path / "a")
    content["data"]["evaluation"] = [str(sets / "examples-held-out.jsonl")]
    content["run"]["evaluate_every"] = 2
    final = train_sft(load_config(written(content, tmp_path / "a.yaml"), SftConfig))
    # Then the weights have changed, and every step is in the metrics
    assert not same(weights(final), weights(model))
    rows = untimed(tmp_path / "a" / "metrics.jsonl")
    assert [row["step"] for row in rows] == [1, 2, 2]
    assert rows[0]["loss"] > 0
    assert rows[2]["evaluation"]["loss"] > 0
    assert (tmp_path / "a" / "metrics.svg").read_text(encoding="utf-8").count("<polyline") >= 3
    # When the same run is killed in the middle and gone on with
    killed_after_first_step(tmp_path / "a", tmp_path / "b")
    content["run"]["out"] = str(tmp_path / "b")
    again = train_sft(load_config(written(content, tmp_path / "b.yaml"), SftConfig), resume=True)
    # Then it makes the same weights of the same data, and the metrics are those of one run
    assert same(weights(again), weights(final))
    assert untimed(tmp_path / "b" / "metrics.jsonl") == rows


@pytest.fixture
def graded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Task, str, float | None]]:
    """Every answer that GRPO had graded: its task, its text, its reward."""
    from k2think.training.rewards import Rewards

    seen: list[tuple[Task, str, float | None]] = []
    call = Rewards.__call__

    def spy(self: Any, *, completions: Any, index: Any, **kwargs: Any) -> list[float | None]:
        values = call(self, completions=completions, index=index, **kwargs)
        texts = [completion[0]["content"] for completion in completions]
        seen.extend(zip([self._tasks[place] for place in index], texts, values, strict=True))
        return values

    monkeypatch.setattr(Rewards, "__call__", spy)
    return seen


def test_grpo_learns_from_grading_and_goes_on_where_it_was_killed(
    model: Path, sets: Path, tmp_path: Path, graded: list[tuple[Task, str, float | None]]
) -> None:
    from k2think.training.grpo import train_grpo

    # Given three problems, and one whose truth is missing, so that its check must fail
    tasks = list(read_tasks(sets / "tasks.jsonl"))[:4]
    write_records(tmp_path / "tasks.jsonl", [*tasks[:3], tasks[3].model_copy(update={"truth": None})])
    content = grpo_config(model, tmp_path, tmp_path / "a")
    final = train_grpo(load_config(written(content, tmp_path / "a.yaml"), GrpoConfig))
    # Then every reward is what the score says, and what cannot be checked has none
    assert len(graded) == 32
    for task, text, value in graded:
        assert value == (
            None if task.truth is None else score_sync("procedural", text, task.truth, {"source": task.source}).value
        )
    valued = [value for _, _, value in graded if value is not None]
    assert len(valued) == 24
    assert {0.0, 1.0} <= set(valued), "with one kind of reward nothing can be learnt"
    # And the metrics tell the same
    rows = untimed(tmp_path / "a" / "metrics.jsonl")
    assert sum(row["grading_errors"] for row in rows) == 8
    assert sum(row["answers"] for row in rows) == 32
    for row, part in zip(rows, (graded[:16], graded[16:]), strict=True):
        checked = [value for _, _, value in part if value is not None]
        assert row["reward"] == pytest.approx(sum(checked) / len(checked), abs=1e-5)
        assert row["correct_share"] == pytest.approx(row["reward"], abs=1e-4)
        assert 0 <= row["no_signal_share"] <= 1
    # And the weights have changed
    assert not same(weights(final), weights(model))
    # When the same run is killed in the middle and gone on with
    killed_after_first_step(tmp_path / "a", tmp_path / "b")
    content["run"]["out"] = str(tmp_path / "b")
    again = train_grpo(load_config(written(content, tmp_path / "b.yaml"), GrpoConfig), resume=True)
    # Then it samples the same answers to the same problems, and makes the same weights
    assert graded[32:] == graded[16:32]
    assert same(weights(again), weights(final))
    assert json.dumps(untimed(tmp_path / "b" / "metrics.jsonl")) == json.dumps(rows)
