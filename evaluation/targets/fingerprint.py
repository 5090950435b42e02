"""Hashes by which a later reader can tell whether the same prompts, the same model and the same grader were used."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

from ...agents.backends.openvino_folder import MODELS_DIR, model_config, own_templates
from ...agents.templates import choose_set, load_templates
from ...schemas.backend_settings import BUNDLED_MODEL, BackendKind, BackendSettings

BLOCK_BYTES = 1 << 20


@cache
def template_sha256(name: str) -> str:
    """Return the hash of a template set: how its models are asked, and every text."""
    templates = load_templates(name)
    digest = hashlib.sha256(templates.manifest.model_dump_json().encode())
    for template in sorted(templates.texts):
        digest.update(f"\n{template}\n{templates.texts[template]}".encode())
    return digest.hexdigest()


@cache
def grader_sha256() -> str:
    """Return the hash of the sources of `grading/`."""
    root = Path(__file__).parents[2] / "grading"
    digest = hashlib.sha256()
    for file in sorted(root.rglob("*.py")):
        digest.update(f"\n{file.relative_to(root).as_posix()}\n".encode() + file.read_bytes())
    return digest.hexdigest()


def model_folder(settings: BackendSettings) -> Path | None:
    """Return the folder of the embedded engine's model; None = another kind of backend."""
    if settings.backend != BackendKind.openvino:
        return None
    if settings.model in (None, BUNDLED_MODEL):
        return MODELS_DIR / BUNDLED_MODEL
    return Path(settings.model or "").expanduser().resolve()


def folder_revision(folder: Path) -> str:
    """Return the hash of a model folder's files but its notes: weights, tokenizers, configuration."""
    digest = hashlib.sha256()
    for file in sorted(folder.glob("*")):
        if file.is_file() and file.suffix in (".xml", ".bin", ".json", ".jinja") and file.name != "evaluation.json":
            digest.update(f"\n{file.name}\n".encode())
            with file.open("rb") as opened:
                while block := opened.read(BLOCK_BYTES):
                    digest.update(block)
    return f"sha256:{digest.hexdigest()[:16]}"


def template_set(settings: BackendSettings, asked: str | None) -> str:
    """Return the template set that a model behind these settings is asked with. Raises ConfigurationError."""
    folder = model_folder(settings)
    own = settings.template_set or (own_templates(folder) if folder is not None else None)
    return choose_set(own, asked)


def model_name(settings: BackendSettings) -> str:
    """Return the model's name: of a folder, the folder's."""
    folder = model_folder(settings)
    return settings.model or "unknown" if folder is None else folder.name


def revision_of(settings: BackendSettings) -> str | None:
    """Return the hash of a model that is a folder on this machine; None = another kind. Raises ConfigurationError."""
    folder = model_folder(settings)
    if folder is None:
        return None
    model_config(folder)
    return folder_revision(folder)
