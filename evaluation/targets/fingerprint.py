"""Hashes by which a later reader can tell whether the same prompts and the same model were used."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from yarl import URL

from ...agents.backends.openvino_folder import MODELS_DIR, model_config, own_templates
from ...agents.templates import choose_set, load_templates
from ...schemas.backend_settings import BUNDLED_MODEL, BackendKind, BackendSettings

BLOCK_BYTES = 1 << 20
NOT_OF_OUTPUT = {
    "api_key",
    "connect_timeout_s",
    "first_token_timeout_s",
    "idle_timeout_s",
    "connect_retries",
    "retry_after_max_s",
    "service_tier",
    "requests_per_minute",
    "tokens_per_minute",
    "streams_max",
    "adaptive",
    "threads",
    "concurrency",
    "classes",
    "weight",
    "breaker_failures",
    "breaker_rest_s",
    "breaker_rest_max_s",
    "hedge_share_max",
    "price_prompt",
    "price_completion",
}
"""Settings of a backend that change no answer: keys, patience, limits, prices."""
_HASHED_APART = {"base_url", "model", "templates", "fallback", "hedge"}


@cache
def template_sha256(name: str) -> str:
    """Return the hash of a template set: how its models are asked, and every text."""
    templates = load_templates(name)
    digest = hashlib.sha256(templates.manifest.model_dump_json().encode())
    for template in sorted(templates.texts):
        digest.update(f"\n{template}\n{templates.texts[template]}".encode())
    return digest.hexdigest()


def backend_sha256(
    settings: BackendSettings, *, revision: str | None, templates: str, stand_ins: Sequence[BackendSettings] = ()
) -> str:
    """Return the hash of all of a backend that decides what comes back, without secrets.

    `templates`: the set that it is asked with. `stand_ins`: backends that may answer in its place. Raises ConfigurationError.
    """
    facts = [_facts(settings, revision), *(_facts(other, revision_of(other)) for other in stand_ins)]
    asked = {"backends": facts, "prompts": template_sha256(templates)}
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


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


def _facts(settings: BackendSettings, revision: str | None) -> dict[str, Any]:
    place = None if settings.base_url is None else str(URL(settings.base_url).with_user(None).with_query(None))
    decisive = settings.model_dump(mode="json", exclude=NOT_OF_OUTPUT | _HASHED_APART)
    return {**decisive, "base_url": place, "model": model_name(settings), "revision": revision}
