"""The command line of a vLLM server: which program, its version, and the flags that this version understands."""

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..agents.backends.openvino_folder import own_templates
from ..agents.backends.vllm_options import (
    CALL_ACCEPTANCE_SINCE,
    CALL_TIMES_SINCE,
    Version,
    model_place,
    own_tokenizer,
    read_version,
    speculative_config,
)
from ..schemas.backend_settings import BackendKind
from ..schemas.errors import ConfigurationError
from ..schemas.speculation import Speculation

PROGRAM = "vllm"
VERSION_TIMEOUT_S = 120.0
"""`vllm --version` imports torch first, which takes a quarter of a minute on a cold machine."""
ANYWHERE = ("0.0.0.0", "::", "")  # noqa: S104
"""Addresses to listen on that are none to call."""


@dataclass(frozen=True)
class VllmServer:
    """What is to be served, and how."""

    program: Path
    """The `vllm` program."""
    version: Version
    """Its version."""
    model: str
    """Model folder, or name at a hub."""
    name: str
    """Name under which the model is served."""
    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = 8000
    """Port to listen on."""
    speculation: Speculation | None = None
    """None = no speculation."""
    speculative_tokens: int = 0
    """Tokens of a draft; 0 = the kind's default."""
    tensor_parallel: int = 1
    """GPUs over which the model is spread."""
    context_tokens: int | None = None
    """Prompt and completion tokens at most; None = the model's own limit."""
    extra: tuple[str, ...] = ()
    """Further arguments, passed on as they are."""

    @property
    def address(self) -> str:
        """Host and port by which this machine calls it."""
        host = "127.0.0.1" if self.host in ANYWHERE else self.host
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """Base URL for k2think's settings."""
        return f"http://{self.address}/v1"

    def command(self) -> list[str]:
        """Return program and arguments. Raises ConfigurationError for a model folder that is none."""
        place = model_place(self.model)
        words = [str(self.program), "serve", place, "--served-model-name", self.name]
        words += ["--host", self.host, "--port", str(self.port), "--enable-prefix-caching"]
        if self.tensor_parallel > 1:
            words += ["--tensor-parallel-size", str(self.tensor_parallel)]
        if self.context_tokens is not None:
            words += ["--max-model-len", str(self.context_tokens)]
        if (tokenizer := own_tokenizer(place)) is not None:
            words += ["--tokenizer", tokenizer]
        if self.version >= CALL_TIMES_SINCE:
            words.append("--enable-per-request-metrics")
        if self.speculation is not None:
            config = speculative_config(self.speculation, tokens=self.speculative_tokens, version=self.version)
            words += ["--speculative-config", json.dumps(config)]
            if self.version >= CALL_ACCEPTANCE_SINCE:
                words += ["--per-request-spec-decode-metrics", "summary"]
        return [*words, *self.extra]

    def settings(self, *, context_tokens: int | None, max_tokens_default: int) -> dict[str, str]:
        """Return the variables that send the generators here. `context_tokens` as the server tells it; None = unknown."""
        found = {"BACKEND": BackendKind.vllm.value, "BASE_URL": self.url, "MODEL": self.name}
        if (templates := own_templates(Path(self.model).expanduser())) is not None:
            found["TEMPLATES"] = templates
        if self.speculation is not None:
            found["SPECULATIVE"] = str(self.speculation)
        if context_tokens is not None and context_tokens <= max_tokens_default:
            # vLLM refuses a request whose completion alone could fill the context.
            found["MAX_TOKENS"] = str(max(1, context_tokens // 2))
        return {f"K2THINK_GENERATOR__{name}": value for name, value in found.items()}


def find_program(given: Path | None) -> Path:
    """Return the `vllm` program: the one given, this environment's, or the first on PATH. Raises ConfigurationError."""
    if given is not None:
        if not given.is_file():
            raise ConfigurationError(f"there is no program {given}: --vllm must name vLLM's own program `vllm`")
        return given.absolute()
    beside = Path(sys.executable).parent / PROGRAM
    found = str(beside) if beside.is_file() else shutil.which(PROGRAM)
    if found is None:
        raise ConfigurationError(
            "vLLM was not found: install it into an environment of its own (pip install vllm) and put its `bin` on PATH, "
            "or name the program with --vllm /PATH/TO/bin/vllm"
        )
    return Path(found)


def ask_version(program: Path) -> Version:
    """Return the version that the program tells of itself. Raises ConfigurationError."""
    words: Sequence[str] = [str(program), "--version"]
    try:
        told = subprocess.run(words, capture_output=True, text=True, check=False, timeout=VERSION_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise ConfigurationError(f"{program} --version does not run: {exc}") from exc
    if told.returncode != 0:
        last = (told.stderr.strip() or told.stdout.strip() or "it said nothing").splitlines()[-1]
        raise ConfigurationError(f"{program} --version failed (exit code {told.returncode}): {last}")
    return read_version(told.stdout)
