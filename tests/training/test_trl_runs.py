"""Runs with TRL that take longer: killed at any moment, an adapter, and whether something is learnt."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from harness.training import TRL, grpo_config, mini_checkpoint, need, sft_config, typed_sets, written
from k2think.training.config import SftConfig
from k2think.training.config_file import load_config
from k2think.training.mini.curve import read_metrics
from k2think.training.mini.typed import write_sets

pytestmark = pytest.mark.timeout(1200)

K2THINK = Path(sys.executable).with_name("k2think")
START_S = 400.0


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    need(*TRL, "peft")
    return mini_checkpoint(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return typed_sets(tmp_path_factory.mktemp("sets"))


def weights(folder: Path) -> dict[str, Any]:
    from safetensors.numpy import load_file

    return load_file(folder / "model.safetensors")


def run(*words: str | Path) -> str:
    done = subprocess.run([K2THINK, "train", *words], capture_output=True, text=True, check=False, timeout=START_S)
    assert done.returncode == 0, done.stderr
    return done.stdout


def killed_after(step: int, out: Path, *words: str | Path) -> None:
    """Start a command and end it with SIGKILL once the step is in the metrics, wherever it is by then."""
    with subprocess.Popen([K2THINK, "train", *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        try:
            end = time.monotonic() + START_S
            while time.monotonic() < end and process.poll() is None:
                if (out / "metrics.jsonl").is_file() and len((out / "metrics.jsonl").read_text().splitlines()) >= step:
                    break
                time.sleep(0.01)
            else:
                assert process.stderr is not None
                pytest.fail(f"the run ended by itself: {process.stderr.read().decode()[-2000:]}")
        finally:
            process.kill()


@pytest.mark.parametrize("kind", ["sft", "grpo"])
def test_a_run_that_is_killed_twice_makes_the_same_weights(kind: str, model: Path, sets: Path, tmp_path: Path) -> None:
    make = sft_config if kind == "sft" else grpo_config
    whole = written(make(model, sets, tmp_path / "whole", steps=6, save_every=2), tmp_path / "whole.yaml")
    broken = written(make(model, sets, tmp_path / "broken", steps=6, save_every=2), tmp_path / "broken.yaml")
    run(kind, whole)
    killed_after(3, tmp_path / "broken", kind, broken)
    killed_after(5, tmp_path / "broken", kind, broken, "--resume")
    run(kind, broken, "--resume")
    left, right = (weights(tmp_path / name / "final") for name in ("whole", "broken"))
    assert all((left[name] == right[name]).all() for name in left)
    rows = [
        [
            {name: value for name, value in row.items() if name != "wall_s"}
            for row in read_metrics(tmp_path / name / "metrics.jsonl")
        ]
        for name in ("whole", "broken")
    ]
    assert rows[0] == rows[1]
    # And what ran to its end is not begun again by accident
    again = subprocess.run([K2THINK, "train", kind, broken], capture_output=True, text=True, check=False)
    assert again.returncode == 2
    assert "holds a run already: go on with it by --resume" in again.stderr
    assert "Traceback" not in again.stderr


def test_an_adapter_is_trained_and_merged(model: Path, sets: Path, tmp_path: Path) -> None:
    from k2think.training.sft import train_sft

    content = sft_config(model, sets, tmp_path / "run")
    content["model"]["lora"] = {"rank": 4, "alpha": 8, "targets": ["q_proj", "v_proj"]}
    final = train_sft(load_config(written(content, tmp_path / "c.yaml"), SftConfig))
    # Then checkpoints hold the adapter alone, and the final model is a whole one with only those layers changed
    assert (tmp_path / "run" / "checkpoint-2" / "adapter_model.safetensors").is_file()
    before, after = weights(model), weights(final)
    assert before.keys() == after.keys()
    changed = {name.split(".")[-2] for name in before if (before[name] != after[name]).any()}
    assert changed == {"q_proj", "v_proj"}


def test_sft_mends_a_damaged_model_on_its_own_problems(model: Path, tmp_path: Path) -> None:
    from k2think.training.sft import train_sft
    from safetensors.numpy import save_file

    # Given the bundled model with noise in its weights
    damaged = mini_checkpoint(tmp_path / "damaged")
    noise = np.random.default_rng(1)
    tensors = weights(damaged)
    for array in tensors.values():
        array += noise.normal(0, 0.75 * array.std(), array.shape).astype(array.dtype)
    save_file(tensors, damaged / "model.safetensors", metadata={"format": "pt"})
    write_sets(tmp_path / "sets", examples=640, tasks=1, held_out=48, seed=3)
    content = sft_config(damaged, tmp_path / "sets", tmp_path / "run", steps=40, save_every=40, evaluate_every=20)
    content["sft"] |= {"batch": 16, "micro_batch": 16}
    content["data"]["evaluation"] = [str(tmp_path / "sets" / "examples-held-out.jsonl")]
    # When it is trained for a few steps
    train_sft(load_config(written(content, tmp_path / "c.yaml"), SftConfig))
    # Then loss falls, in training and on problems that it has not seen
    rows = read_metrics(tmp_path / "run" / "metrics.jsonl")
    losses = [row["loss"] for row in rows if "loss" in row]
    held_out = [row["evaluation"]["loss"] for row in rows if "evaluation" in row]
    assert sum(losses[-5:]) / 5 < 0.6 * losses[0], json.dumps(losses)
    assert held_out[-1] < held_out[0]
