"""What a cluster trains with, written from the same configurations: verl for RL, LLaMA-Factory for SFT."""

from __future__ import annotations

from pathlib import Path

from ..config import Model


def model_name(model: Model) -> str:
    """Return a model's name as it holds from any folder: a path that exists made absolute, a hub's name as it is."""
    folder = Path(model.name).expanduser()
    return str(folder.resolve()) if folder.is_dir() else model.name
