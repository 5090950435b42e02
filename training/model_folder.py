"""The model that training begins with: a folder or a hub repository, its weights, and the tokenizer that it was trained with."""

# pyright: reportMissingImports=false
# (transformers and huggingface_hub belong to the extra `train`)

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ..agents.backends.hub_errors import explained, hub_library
from ..agents.backends.openvino_folder import read_json
from ..schemas.errors import ConfigurationError
from .config import Model

HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
WEIGHTS = "*.safetensors"
HUB_FILES = ("*.json", "*.jinja", "*.txt", "*.model")
"""What is downloaded beside the weights."""
TOKENIZER_FOLDER = "tokenizer"
"""Below a model's folder: its tokenizer alone, out of reach of what loaders do to one that stands beside a configuration."""
OWN_CLASSES = ("PreTrainedTokenizerFast", "TokenizersBackend")
"""Names by which a folder says that its tokenizer.json is to be taken as it is."""
PROBE = "What is 3 + 4?  (x=1)\n<think>12*3-4</think> Two words; naïve 東京"
"""Text that a wrong pre-tokenizer is most likely to split otherwise."""


def find_model(model: Model, *, weights: bool = True) -> Path:
    """Return the model's folder, downloaded where it is a name on the hub (without `weights`: the rest). Raises K2ThinkError."""
    folder = Path(model.name).expanduser()
    if folder.is_dir():
        _check_folder(folder, model)
        return folder
    if not HUB_NAME.fullmatch(model.name):
        raise ConfigurationError(f"model.name: there is no folder {model.name}, nor does it read OWNER/NAME")
    hub = hub_library()
    wanted = [*HUB_FILES, WEIGHTS] if weights else list(HUB_FILES)
    with explained(model.name, model.revision):
        # With several at once, one broken connection closes the session that the others are using (huggingface_hub 2.4).
        found = hub.snapshot_download(model.name, revision=model.revision, allow_patterns=wanted, max_workers=1)
    _check_folder(Path(found), model, weights=weights)
    return Path(found)


def _check_folder(folder: Path, model: Model, *, weights: bool = True) -> None:
    if not (folder / "config.json").is_file():
        raise ConfigurationError(
            f"model.name: {folder} is no model in Hugging Face's form: it has no config.json "
            "(`k2think train mini-export` writes the bundled one so)"
        )
    if weights and not any(folder.glob(WEIGHTS)):
        raise ConfigurationError(f"model.name: {folder} has no weights (*.safetensors)")
    if model.tokenizer is not None and not model.tokenizer.is_dir():
        raise ConfigurationError(f"model.tokenizer: there is no folder {model.tokenizer}")


def tokenizer_folder(folder: Path, model: Model) -> Path:
    """Return where the tokenizer of a model's folder is."""
    own = folder / TOKENIZER_FOLDER
    return model.tokenizer or (own if own.is_dir() else folder)


def tokenizer_files(folder: Path, model: Model) -> list[Path]:
    """Return the files that say how text becomes tokens and conversations become text, sorted."""
    place = tokenizer_folder(folder, model)
    return sorted({file for pattern in HUB_FILES for file in place.glob(pattern)})


def load_tokenizer(folder: Path, model: Model) -> Any:
    """Return the tokenizer of a model's folder, with a padding token. Raises ConfigurationError.

    transformers puts Qwen's own pre-tokenizer into any tokenizer that stands beside a Qwen2 configuration; the ids are
    therefore compared with those that tokenizer.json itself gives.
    """
    from tokenizers import Tokenizer
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    place = tokenizer_folder(folder, model)
    file, settings = place / "tokenizer.json", place / "tokenizer_config.json"
    as_it_is = settings.is_file() and read_json(settings).get("tokenizer_class") in OWN_CLASSES
    loader: Any = PreTrainedTokenizerFast if as_it_is else AutoTokenizer
    try:
        tokenizer: Any = loader.from_pretrained(str(place), local_files_only=True)
    except (OSError, ValueError, KeyError) as exc:
        raise ConfigurationError(f"{place} holds no tokenizer that can be loaded: {str(exc).splitlines()[0]}") from exc
    if file.is_file():
        direct: Any = Tokenizer.from_file(str(file))
        if direct.encode(PROBE, add_special_tokens=False).ids != tokenizer.encode(PROBE, add_special_tokens=False):
            raise ConfigurationError(
                f"{place}: transformers gives other token ids than tokenizer.json does; put the tokenizer's files alone "
                "into a folder and name it in model.tokenizer"
            )
    if tokenizer.chat_template is None:
        raise ConfigurationError(
            f"{place} has no chat template, as base models often have none: put one into {place / 'chat_template.jinja'}"
        )
    if tokenizer.eos_token_id is None:
        raise ConfigurationError(f"{place}: the tokenizer names no end token (eos_token in tokenizer_config.json)")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "left"
    return tokenizer


def load_model(folder: Path, model: Model, *, gpu: bool) -> Any:
    """Return the network with its weights in float32. Raises ConfigurationError."""
    import torch
    from transformers import AutoModelForCausalLM

    # FlashAttention is what packing needs; transformers takes the best of the others by itself.
    attention = {"attn_implementation": "flash_attention_2"} if gpu and has_flash_attention() else {}
    loader: Any = AutoModelForCausalLM
    try:
        network: Any = loader.from_pretrained(str(folder), dtype=torch.float32, local_files_only=True, **attention)
    except (OSError, ValueError) as exc:
        raise ConfigurationError(f"{folder} cannot be loaded: {str(exc).splitlines()[0]}") from exc
    return network


def has_flash_attention() -> bool:
    """Tell whether FlashAttention can be used."""
    from transformers.utils.import_utils import is_flash_attn_2_available

    return bool(is_flash_attn_2_available())


def save_final(network: Any, tokenizer: Any, source: Path, out: Path) -> None:
    """Write the trained model as a folder like the one that training began with."""
    network.save_pretrained(str(out))
    tokenizer.save_pretrained(str(out))
    if (source / TOKENIZER_FOLDER).is_dir():
        tokenizer.save_pretrained(str(out / TOKENIZER_FOLDER))
