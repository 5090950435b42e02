"""What a cluster trains with, written from the same configurations: verl for RL, LLaMA-Factory for SFT."""

from __future__ import annotations

from pathlib import Path

from ..config import Model
from ..model_folder import tokenizer_folder


def model_name(model: Model) -> str:
    """Return a model's name as it holds from any folder: a path that exists made absolute, a hub's name as it is."""
    folder = Path(model.name).expanduser()
    return str(folder.resolve()) if folder.is_dir() else model.name


def other_tokenizer(model: Model) -> Path | None:
    """Return the folder of the tokenizer, absolute; None = it stands beside the model's configuration."""
    folder = Path(model.name).expanduser()
    place = tokenizer_folder(folder, model)
    return None if place == folder else place.resolve()
