"""The folder of a run: what it was made from, its checkpoints and its metrics, so that it can be gone on with or refused."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from .. import __version__
from ..grading.fingerprint import grader_sha256
from ..schemas.errors import ConfigurationError
from .config import GrpoConfig, SftConfig
from .model_folder import tokenizer_files

MANIFEST = "run.json"
METRICS = "metrics.jsonl"
PLOT = "metrics.svg"
FINAL = "final"
"""Folder of the trained model."""
CHECKPOINT = re.compile(r"checkpoint-(\d+)")
CHECKPOINT_FILES = ("optimizer.pt", "scheduler.pt", "trainer_state.json")
"""What a checkpoint needs beside its weights; the last is written last."""
LIBRARIES = ("torch", "transformers", "trl", "peft")
GRADING_LIBRARIES = ("math-verify", "latex2sympy2-extended", "sympy", "reasoning-gym")
"""What rewards are computed with beside our own grader."""
MAY_DIFFER = ("run.out", "run.log_every", "run.save_every", "run.keep", "run.threads", "grpo.graded_at_once", "cluster")
"""Parts of a configuration that a resumed run may change: none decides the weights (threads: their last bits)."""


class RunFolder:
    """One run's folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def metrics(self) -> Path:
        """JSON lines, one for each logged step."""
        return self.path / METRICS

    @property
    def plot(self) -> Path:
        """The metrics as SVG."""
        return self.path / PLOT

    @property
    def final(self) -> Path:
        """The trained model."""
        return self.path / FINAL

    def begin(self, manifest: Mapping[str, Any]) -> None:
        """Start a run in an empty folder. Raises ConfigurationError where another one is."""
        if self.manifest() is not None or self.checkpoints():
            raise ConfigurationError(
                f"{self.path} holds a run already: go on with it by --resume, or name another folder in run.out"
            )
        self.path.mkdir(parents=True, exist_ok=True)
        self.metrics.unlink(missing_ok=True)
        self._write(manifest)

    def resume(self, manifest: Mapping[str, Any]) -> Path | None:
        """Return the newest whole checkpoint, None where there is none yet, with the metrics cut back to it.

        Raises ConfigurationError where the folder holds no run, or one of other data, model or configuration.
        """
        before = self.manifest()
        if before is None:
            raise ConfigurationError(f"{self.path} holds no run to go on with: leave out --resume")
        changed = [name for name in sorted(before.keys() | manifest.keys()) if before.get(name) != manifest.get(name)]
        differing = [change for name in changed for change in _changes(name, before.get(name), manifest.get(name))]
        differing = [name for name in differing if not any(_is_below(name, part) for part in MAY_DIFFER)]
        if differing:
            raise ConfigurationError(
                f"{self.path} was begun with another {', '.join(differing)}: going on would make weights that nobody could "
                "make again; undo the change, or name another folder in run.out"
            )
        whole = [folder for folder in self.checkpoints() if is_whole(folder)]
        for folder in self.checkpoints():
            # Left by a kill in the middle of writing; the trainer must not count it among those to keep.
            if folder not in whole:
                shutil.rmtree(folder)
        self._write(manifest)
        self._cut_metrics(step_of(whole[-1]) if whole else 0)
        return whole[-1] if whole else None

    def last(self, figure: str) -> float:
        """Return the last value of a figure in the metrics; 0 = there is none yet."""
        if not self.metrics.is_file():
            return 0.0
        rows = [json.loads(line) for line in self.metrics.read_text(encoding="utf-8").splitlines()]
        return next((float(row[figure]) for row in reversed(rows) if figure in row), 0.0)

    def checkpoints(self) -> list[Path]:
        """All checkpoints, oldest first, broken ones too."""
        return sorted((p for p in self.path.glob("checkpoint-*") if CHECKPOINT.fullmatch(p.name)), key=step_of)

    def manifest(self) -> dict[str, Any] | None:
        """What the run was made from; None where there is no run."""
        path = self.path / MANIFEST
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except ValueError as exc:
            raise ConfigurationError(f"{path} is damaged: name another folder in run.out") from exc

    def _write(self, manifest: Mapping[str, Any]) -> None:
        _replace(self.path / MANIFEST, json.dumps(manifest, indent=2) + "\n")

    def _cut_metrics(self, step: int) -> None:
        if self.metrics.is_file():
            lines = self.metrics.read_text(encoding="utf-8").splitlines(keepends=True)
            _replace(
                self.metrics,
                "".join(line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step),
            )


def is_whole(checkpoint: Path) -> bool:
    """Tell whether a checkpoint was written to its end."""
    if not all((checkpoint / name).is_file() for name in CHECKPOINT_FILES) or not any(checkpoint.glob("*.safetensors")):
        return False
    try:
        state = json.loads((checkpoint / CHECKPOINT_FILES[-1]).read_text(encoding="utf-8"))
    except ValueError:
        return False
    return state.get("global_step") == step_of(checkpoint)


def step_of(checkpoint: Path) -> int:
    """Return the optimiser step after which a checkpoint was written."""
    return int(checkpoint.name.rpartition("-")[2])


def manifest_of(config: SftConfig | GrpoConfig, *, model: Path) -> dict[str, Any]:
    """Return what decides a run's weights: configuration, model, tokenizer, data, libraries, and for GRPO the grader."""
    rewarded = isinstance(config, GrpoConfig)
    libraries = (*LIBRARIES, *GRADING_LIBRARIES) if rewarded else LIBRARIES
    settings = [model / "config.json", *model.glob("generation_config.json")]
    return {
        "config": config.model_dump(mode="json"),
        "model_sha256": digest([*settings, *sorted(model.glob("*.safetensors"))]),
        "tokenizer_sha256": {file.name: digest([file]) for file in tokenizer_files(model, config.model)},
        "data_sha256": {str(path): digest([path]) for path in (*config.data.train, *config.data.evaluation)},
        **({"grader_sha256": grader_sha256()} if rewarded else {}),
        "libraries": {
            "k2think": __version__,
            **{name: version for name in libraries if (version := _version(name)) is not None},
        },
    }


def digest(paths: Iterable[Path]) -> str:
    """Return the SHA-256 of files, one after the other. Raises ConfigurationError."""
    total = hashlib.sha256()
    for path in paths:
        try:
            with path.open("rb") as file:
                total.update(hashlib.file_digest(file, "sha256").digest())
        except OSError as exc:
            raise ConfigurationError(f"{path} cannot be read: {exc.strerror or exc}") from exc
    return total.hexdigest()


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _changes(name: str, before: Any, now: Any) -> list[str]:
    """Return the dotted names of what differs; those of the configuration without its first part."""
    if isinstance(before, dict) and isinstance(now, dict):
        keys = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
        prefix = "" if name == "config" else f"{name}."
        return [change for key in keys for change in _changes(f"{prefix}{key}", before.get(key), now.get(key))]
    return [name]


def _is_below(name: str, part: str) -> bool:
    return name == part or name.startswith(f"{part}.")


def _replace(path: Path, text: str) -> None:
    scratch = path.with_name(f".{path.name}.part")
    scratch.write_text(text, encoding="utf-8")
    scratch.replace(path)
