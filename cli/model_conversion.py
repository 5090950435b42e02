"""From a Hugging Face model folder to one that the embedded engine loads: optimum-intel in an environment of its own.

The converters bring torch along, which nothing else here needs, and pin other packages than ours; so they live in a virtual
environment in the data folder, made when first needed.
"""

import contextlib
import importlib.metadata
import json
import re
import shutil
import subprocess
import sys
import tempfile
import venv
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

from ..agents.backends.openvino_folder import FILES, NETWORK, OWN_FILE, read_json
from ..schemas.errors import ConfigurationError, StoreFull, Unreachable

Note = Callable[[str], None]
"""Says where things are."""

ENVIRONMENT_BYTES = 2_500_000_000
"""Space that the environment takes while it is made."""
HALF_PRECISION_MAX_BYTES = 2_000_000_000
"""Weights up to this size are kept in fp16 where no format is asked for, larger ones in int8."""
REQUIREMENTS = ("torch==2.13.0", "optimum-intel==2.2.0", "transformers>=5.5,<5.6", "nncf>=3.4,<3.5")
SHARED = ("openvino", "openvino-tokenizers")
"""Packages that must be of the very version that loads the result."""
LEFT_OUT = "torchvision"
"""Comes along, belongs to another torch, and keeps the converters from being imported."""
LOG_LINES_KEPT = 400

_NO_SPACE = "No space left on device"
_UNSUPPORTED = re.compile(
    r"custom or unsupported architecture|does not recognize this architecture|Unrecognized model|is not supported|"
    r"Unrecognized configuration class"
)


class Environment:
    """The converters' virtual environment."""

    def __init__(self, data_dir: Path) -> None:
        """Look where it is; nothing is made."""
        self._folder = data_dir / "conversion"
        self._stamp = self._folder / "made.json"
        self.log = data_dir / "conversion.log"
        """What the last installation or conversion printed."""

    def make(self, note: Note) -> None:
        """Make it where it is missing or of other versions. Raises ConfigurationError, StoreFull, Unreachable."""
        wanted = [*REQUIREMENTS, *(f"{name}=={importlib.metadata.version(name)}" for name in SHARED)]
        with contextlib.suppress(OSError, ValueError):
            if json.loads(self._stamp.read_text(encoding="utf-8")) == wanted:
                return
        check_space(self._folder.parent, ENVIRONMENT_BYTES, what="the environment for conversions")
        note(f"making the environment for conversions in {self._folder} (once; about 1.6 GB)")
        try:
            venv.create(self._folder, with_pip=True, clear=True)
        except (OSError, subprocess.CalledProcessError) as exc:
            raise ConfigurationError(f"no virtual environment can be made in {self._folder}: {exc}") from exc
        pip = ["-m", "pip", "--disable-pip-version-check", "--no-input"]
        self._pip([*pip, "install", "--progress-bar", "off", *wanted], note)
        self._pip([*pip, "uninstall", "-y", LEFT_OUT], note)
        self._stamp.write_text(json.dumps(wanted), encoding="utf-8")

    def export(self, source: Path, out: Path, weight_format: str) -> None:
        """Convert a Hugging Face folder. Raises ConfigurationError, StoreFull."""
        words = ["export", "openvino", "--model", str(source), "--task", "text-generation-with-past"]
        code, said = self._run("optimum-cli", [*words, "--weight-format", weight_format, str(out)])
        if code:
            raise self._failed(source, code, said)

    def convert_tokenizer(self, source: Path, out: Path) -> None:
        """Write the tokenizer and detokenizer of a folder as networks. Raises ConfigurationError, StoreFull."""
        code, said = self._run("convert_tokenizer", [str(source), "--with-detokenizer", "-o", str(out)])
        if code:
            raise self._failed(source, code, said)

    def _pip(self, words: list[str], note: Note) -> None:
        code, said = self._run("python", words, note=note)
        if not code:
            return
        if _NO_SPACE in said:
            raise StoreFull(f"no space is left in {self._folder}: free some, or set K2THINK_DATA_DIR to another folder")
        last = next(
            (line for line in reversed(said.splitlines()) if line.startswith("ERROR")), f"pip ended with {code}"
        )
        message = f"the environment for conversions cannot be installed ({last}; the whole output is in {self.log})"
        if re.search(r"connection|resolution|timed? ?out|No matching distribution", said, re.IGNORECASE):
            raise Unreachable(f"{message}: can pip reach a package index from here?")
        raise ConfigurationError(message)

    def _run(self, program: str, words: list[str], *, note: Note | None = None) -> tuple[int, str]:
        kept: list[str] = []
        with (
            self.log.open("w", encoding="utf-8") as log,
            subprocess.Popen(
                [str(self._folder / "bin" / program), *words],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
            ) as process,
        ):
            for line in process.stdout or ():
                log.write(line)
                kept = [*kept[-LOG_LINES_KEPT:], line]
                step = re.match(r"(Collecting|Installing|Building) [\w-]+", line)
                if note is not None and step and sys.stderr.isatty():
                    note(f"making the environment for conversions: {step[0].lower()}")
        return process.returncode, "".join(kept)

    def _failed(self, source: Path, code: int, said: str) -> ConfigurationError | StoreFull:
        if _NO_SPACE in said:
            return StoreFull(
                f"no space is left for the conversion of {source}: free some, or choose another place with --out"
            )
        if code == -9:
            return ConfigurationError(
                f"the conversion of {source} was killed: probably the machine has too little memory for it"
            )
        kind = read_json(source / "config.json").get("model_type")
        whole = f"(the whole output is in {self.log})"
        if "trust_remote_code" in said:
            return ConfigurationError(f"{source} needs Python code of its own, which is not run: no conversion {whole}")
        if _UNSUPPORTED.search(said):
            return ConfigurationError(f"{source}: optimum-intel cannot convert models of the kind {kind!r} {whole}")
        last = next((line.strip() for line in reversed(said.splitlines()) if line.strip()), f"it ended with {code}")
        return ConfigurationError(f"the conversion of {source} failed: {last} {whole}")


def convert(source: Path, out: Path, *, weight_format: str | None, environment: Environment, note: Note) -> None:
    """Write the engine's form of `source` to `out`, which does not exist yet. Raises ConfigurationError, StoreFull, Unreachable."""
    check_source(source)
    check_space(out.parent, 2 * _weight_bytes(source), what=f"the conversion of {source.name}")
    environment.make(note)
    with _scratch(out) as scratch:
        if (source / NETWORK).is_file():
            note(f"converting the tokenizer of {source.name}")
            shutil.copytree(source, scratch, dirs_exist_ok=True)
            environment.convert_tokenizer(source, scratch)
        else:
            chosen = weight_format or default_format(source)
            note(f"converting {source.name} to {chosen}")
            environment.export(source, scratch, chosen)
            if (source / OWN_FILE).is_file():
                shutil.copy(source / OWN_FILE, scratch)
        scratch.rename(out)


def check_source(folder: Path) -> None:
    """Raise ConfigurationError unless a folder holds a chat model that can be tried to convert."""
    if not (folder / "config.json").is_file():
        raise ConfigurationError(f"{folder} is no model folder: it has no config.json")
    config = read_json(folder / "config.json")
    kinds: list[Any] = config.get("architectures") or []
    if kinds and not any(str(kind).endswith(("ForCausalLM", "LMHeadModel")) for kind in kinds):
        raise ConfigurationError(
            f"{folder}: {', '.join(map(str, kinds))} writes no text; it takes a causal language model"
        )
    if not _weight_bytes(folder):
        raise ConfigurationError(f"{folder} has no weights (*.safetensors, *.bin or {NETWORK})")
    if not any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer.model", "vocab.json", FILES[1])):
        raise ConfigurationError(f"{folder} has no tokenizer (tokenizer.json or tokenizer.model)")
    if not _has_chat_template(folder):
        raise ConfigurationError(
            f"{folder} has no chat template, as models that only continue text have none: choose its instruct or chat version, "
            "or put the template into chat_template.jinja there"
        )


def default_format(folder: Path) -> str:
    """Return how weights are kept where no format is asked for: small models lose accuracy by int8 and win nothing."""
    return "fp16" if _weight_bytes(folder) <= HALF_PRECISION_MAX_BYTES else "int8"


def check_space(folder: Path, needed: int, *, what: str) -> None:
    """Raise StoreFull unless a folder has so many bytes left."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise StoreFull(
            f"{what} takes {needed / 1e9:.1f} GB and {folder} has {free / 1e9:.1f} GB: free some space first"
        )


def _weight_bytes(folder: Path) -> int:
    files = (file for ending in ("safetensors", "bin") for file in folder.glob(f"*.{ending}"))
    return sum(file.stat().st_size for file in files if "tokenizer" not in file.name)


def _has_chat_template(folder: Path) -> bool:
    if any((folder / name).is_file() for name in ("chat_template.jinja", "chat_template.json")):
        return True
    path = folder / "tokenizer_config.json"
    return path.is_file() and bool(read_json(path).get("chat_template"))


@contextlib.contextmanager
def _scratch(out: Path) -> Generator[Path]:
    """A hidden folder beside `out` for what is not finished; what is left of it goes away."""
    out.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=".converting-", dir=out.parent))
    scratch.chmod(0o755)
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
