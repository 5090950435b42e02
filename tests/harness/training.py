"""What tests of training on one machine share: the bundled model in Hugging Face's form, typed sets, configurations."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from k2think.agents.backends.openvino_folder import MODELS_DIR
from k2think.training.mini.huggingface import export
from k2think.training.mini.typed import write_sets

TRL = ("torch", "transformers", "trl", "datasets")


def need(*modules: str) -> None:
    """Skip the test where one of these is not installed; where CI is set, fail it."""
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        message = f"not installed: {', '.join(missing)} (extra `train`)"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)


def mini_checkpoint(folder: Path, *, stage: str = "") -> Path:
    """Write the bundled model, or what an earlier stage of its training left, in Hugging Face's form; return its folder."""
    export(MODELS_DIR / "k2think-mini" / (f"stages/{stage}" if stage else ""), folder)
    return folder


def typed_sets(folder: Path) -> Path:
    """Write a few conversations and problems of the bundled model's families; return their folder."""
    write_sets(folder, examples=16, tasks=8, held_out=2, seed=5)
    return folder


def sft_config(model: Path, sets: Path, out: Path, **run: Any) -> dict[str, Any]:
    """Return a configuration of two steps of four conversations."""
    return {
        "model": {"name": str(model), "dtype": "float32"},
        "data": {"train": [str(sets / "examples.jsonl")]},
        "sft": {"batch": 4, "micro_batch": 2, "max_tokens": 320},
        "optimizer": {"learning_rate": 1e-3, "schedule": "constant"},
        "run": {"out": str(out), "steps": 2, "save_every": 1, "device": "cpu", "threads": 1, **run},
    }


def grpo_config(model: Path, sets: Path, out: Path, **run: Any) -> dict[str, Any]:
    """Return a configuration of two steps of two problems and eight answers to each."""
    return {
        "model": {"name": str(model), "dtype": "float32"},
        "data": {"train": [str(sets / "tasks.jsonl")]},
        "grpo": {
            "prompts": 2,
            "rollouts": 8,
            "update_prompts": 2,
            "micro_batch": 16,
            "max_prompt_tokens": 160,
            "max_completion_tokens": 64,
            # High enough for some answers to be wrong.
            "temperature": 1.8,
        },
        "optimizer": {"learning_rate": 1e-3, "schedule": "constant"},
        "run": {"out": str(out), "steps": 2, "save_every": 1, "device": "cpu", "threads": 1, **run},
    }


def written(content: dict[str, Any], path: Path) -> Path:
    """Write a configuration as YAML."""
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return path
