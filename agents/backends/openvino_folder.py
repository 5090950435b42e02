"""An OpenVINO GenAI model folder, looked at without loading it: is it whole, and what is in it."""

import json
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from ...schemas.errors import ConfigurationError

MODELS_DIR = Path(__file__).parents[2] / "models"
"""Where the bundled model lies."""
NETWORK = "openvino_model.xml"
FILES = (NETWORK, "openvino_tokenizer.xml", "openvino_detokenizer.xml", "config.json")
"""What the engine needs; weights lie beside the networks."""
OWN_FILE = "k2think.json"
"""Where a folder may name the prompt template set that its model was trained for: {"templates": "…"}."""

_CONSTANT = re.compile(
    r'<layer id="\d+" name="([^"]*)" type="Const"[^>]*>\s*<data element_type="(\w+)" shape="([\d, ]*)"'
)
_PRECISIONS = {"u4": "int4", "i4": "int4", "u8": "int8", "i8": "int8", "f16": "fp16", "bf16": "bf16", "f32": "fp32"}


@dataclass(frozen=True)
class ModelFolder:
    """What a folder holds."""

    path: Path
    bytes: int
    """Size of all its files."""
    parameters: int
    """Weights of the network; 0 = cannot be told."""
    weights: str
    """How most of them are kept: int4, int8, fp16, bf16 or fp32; empty = cannot be told."""
    context_tokens: int | None
    """Longest sequence by its config.json; None = not told."""
    templates: str | None
    """Prompt template set that it names for itself; None = none."""


def describe_folder(folder: Path) -> ModelFolder:
    """Return what a whole folder holds. Raises ConfigurationError with what is missing or cannot be read."""
    config = model_config(folder)
    held: Counter[str] = Counter()
    try:
        network = (folder / NETWORK).read_text(encoding="utf-8", errors="replace")
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    except OSError as exc:
        raise ConfigurationError(f"{folder} cannot be read ({exc.strerror})") from exc
    for name, kind, shape in _CONSTANT.findall(network):
        # Quantised weights have scales and zero points, which are no parameters.
        if kind in _PRECISIONS and not re.search(r"scale|zero_point", name):
            held[kind] += _product(shape)
    kept = max(held, key=lambda kind: held[kind], default="")
    return ModelFolder(
        path=folder,
        bytes=size,
        parameters=held.total(),
        weights=_PRECISIONS.get(kept, ""),
        context_tokens=context_tokens(config),
        templates=own_templates(folder),
    )


def model_config(folder: Path) -> dict[str, Any]:
    """Return config.json of a whole folder. Raises ConfigurationError with what is missing or cannot be read."""
    if not folder.is_dir():
        raise ConfigurationError(f"there is no model folder {folder}")
    missing = [file for file in FILES if not (folder / file).is_file()]
    if missing:
        raise ConfigurationError(f"{folder} lacks {', '.join(missing)}")
    return read_json(folder / "config.json")


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file. Raises ConfigurationError."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as exc:
        raise ConfigurationError(f"{path} cannot be read ({exc})") from exc
    if not isinstance(value, dict):
        raise ConfigurationError(f"{path} is no JSON object")
    return cast(dict[str, Any], value)


def own_templates(folder: Path) -> str | None:
    """Return the prompt template set that a folder names for itself in k2think.json; None = none. Raises ConfigurationError."""
    path = folder / OWN_FILE
    templates = read_json(path).get("templates") if path.is_file() else None
    return templates if isinstance(templates, str) and templates else None


def context_tokens(config: dict[str, Any]) -> int | None:
    """Return the longest sequence that a config.json tells; None = it does not."""
    text = config.get("text_config")
    fields = cast(dict[str, Any], text) if isinstance(text, dict) else config
    found = fields.get("max_position_embeddings")
    return found if isinstance(found, int) and found > 0 else None


def _product(shape: str) -> int:
    product = 1
    for size in shape.split(","):
        product *= int(size or 1)
    return product
