"""What vLLM is told, by a server's command line or for an engine in this process, and since which version it understands.

The versions were looked up in the sources of vLLM 0.12 to 0.32 (`vllm/engine/arg_utils.py`, `vllm/config/speculative.py`,
`vllm/entrypoints/openai/cli_args.py`).
"""

import re
from pathlib import Path
from typing import Any

from ...schemas.errors import ConfigurationError
from ...schemas.speculation import Speculation

Version = tuple[int, int]
"""Major and minor."""

OLDEST: Version = (0, 12)
"""Structured output is asked for by `response_format` alone from here on, speculation by one JSON object."""
DRAFT_MODELS_SINCE: Version = (0, 15)
CALL_TIMES_SINCE: Version = (0, 25)
"""`--enable-per-request-metrics`: each reply tells its time in the queue, to the first token and of decoding."""
CALL_ACCEPTANCE_SINCE: Version = (0, 29)
"""`--per-request-spec-decode-metrics`: each reply tells how much of its drafts was accepted."""

TOKENS_OF_A_DRAFT = {"ngram": 4, "draft": 4, "eagle": 3, "mtp": 1}
NGRAM_MIN, NGRAM_MAX = 2, 4
"""Tokens of the text so far that must recur before what followed them is proposed."""


def read_version(text: str) -> Version:
    """Read what `vllm --version` says, or a package's version. Raises ConfigurationError."""
    found = re.search(r"(?m)^(?:vllm\s+)?v?(\d+)\.(\d+)[\w.+-]*\s*$", text)
    if found is None:
        raise ConfigurationError(f"this is no version of vLLM: {' '.join(text.split())[:200]!r}")
    version = (int(found[1]), int(found[2]))
    if version < OLDEST:
        raise ConfigurationError(f"vLLM {said(version)} is too old: {said(OLDEST)} or newer is needed")
    return version


def said(version: Version) -> str:
    """The version as people write it."""
    return ".".join(map(str, version))


def speculative_config(speculation: Speculation, *, tokens: int, version: Version) -> dict[str, Any]:
    """Return vLLM's `speculative_config`; `tokens` of a draft, 0 = the kind's default. Raises ConfigurationError."""
    config: dict[str, Any] = {"num_speculative_tokens": tokens or TOKENS_OF_A_DRAFT[speculation.kind]}
    match speculation.kind:
        case "ngram":
            return {"method": "ngram", **config, "prompt_lookup_min": NGRAM_MIN, "prompt_lookup_max": NGRAM_MAX}
        case "mtp":
            return {"method": "mtp", **config}
        case "eagle":
            # vLLM goes by the name as well; said here, a head under another name is not taken for a draft model.
            third = "eagle3" in (speculation.model or "").lower()
            return {"method": "eagle3" if third else "eagle", "model": model_place(speculation.model or ""), **config}
        case "draft":
            if version < DRAFT_MODELS_SINCE:
                needed = f"draft models need vLLM {said(DRAFT_MODELS_SINCE)} or newer, this is {said(version)}"
                raise ConfigurationError(f"{needed}: use ngram or eagle:MODEL")
            return {"method": "draft_model", "model": model_place(speculation.model or ""), **config}


def model_place(model: str) -> str:
    """Return a model's folder or its name at a hub as vLLM takes it. Raises ConfigurationError for a folder that is none."""
    folder = Path(model).expanduser()
    if not folder.is_dir():
        if model.startswith(("/", "./", "../", "~")):
            raise ConfigurationError(f"there is no model folder {folder}")
        return model
    if not (folder / "config.json").is_file():
        raise ConfigurationError(f"{folder} is no model folder of the Hugging Face form: it has no config.json")
    return str(folder.resolve())


def own_tokenizer(place: str) -> str | None:
    """Return the tokenizer's folder inside a model folder that has it apart, too; None = it is where vLLM looks by itself.

    Apart it is read for what it is; beside a Qwen2 configuration transformers puts Qwen's pre-tokenizer into any tokenizer.
    """
    folder = Path(place) / "tokenizer"
    return str(folder) if (folder / "tokenizer.json").is_file() else None
