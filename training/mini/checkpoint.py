"""Checkpoints of a stage of training: a kill at any moment loses minutes, not the run."""

# pyright: reportMissingImports=false
# (torch belongs to the extra `train`; where it is missing, only its names go unchecked)

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from .model import MiniModel, ModelConfig
from .tokens import VOCABULARY


def new_model() -> MiniModel:
    """An untrained network of the shape of k2think-mini."""
    return MiniModel(ModelConfig(vocabulary=len(VOCABULARY)))


def save(path: Path, model: MiniModel, **more: Any) -> None:
    """Writes weights, shape and ``more``; a kill in the middle leaves the former file."""
    unfinished = path.with_suffix(".partial")
    torch.save({"config": asdict(model.config), "model": model.state_dict(), **more}, unfinished)
    unfinished.replace(path)


def load(path: Path) -> dict[str, Any]:
    """What ``save`` wrote."""
    return dict(torch.load(path, weights_only=True))


def load_model(path: Path) -> MiniModel:
    """The model of a checkpoint, in evaluation mode."""
    state = load(path)
    model = MiniModel(ModelConfig(**state["config"]))
    model.load_state_dict(state["model"])
    return model.eval()
