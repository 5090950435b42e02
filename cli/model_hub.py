"""A model repository from the Hugging Face hub into a folder; what the hub refuses is explained."""

import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from ..agents.backends.hub_errors import explained, hub_library
from ..agents.backends.openvino_folder import NETWORK
from ..schemas.errors import ConfigurationError, StoreFull, Unreachable

SPACE_SPARE_BYTES = 200_000_000
"""Bytes that must be left after a download."""
STALE_S = 600.0
"""Seconds without a byte after which a piece of a file belongs to nobody."""
_SMALL = (".json", ".jinja", ".txt", ".model", ".md")
"""Endings of configurations, tokenizers and licences."""


@dataclass(frozen=True)
class Repository:
    """What is to be downloaded."""

    name: str
    revision: str
    """Commit, so that a download that goes on later takes the same files."""
    sizes: dict[str, int]
    """File → bytes."""

    @property
    def bytes(self) -> int:
        """Size of all of them."""
        return sum(self.sizes.values())

    @property
    def openvino(self) -> bool:
        """Whether the model is in OpenVINO's form already."""
        return NETWORK in self.sizes


def look_up(name: str, *, revision: str | None) -> Repository:
    """Ask the hub what a model repository holds. Raises K2ThinkError."""
    hub = hub_library()
    with explained(name, revision):
        info = hub.HfApi().model_info(name, revision=revision, files_metadata=True)
    found = {file.rfilename: file.size or 0 for file in info.siblings or []}
    wanted = wanted_files(found)
    if not any(file.endswith((".safetensors", ".bin")) for file in wanted):
        raise ConfigurationError(
            f"{name} holds no weights that can be used: neither {NETWORK} nor safetensors nor PyTorch's .bin "
            "(GGUF and ONNX files cannot be converted); choose the original model's repository"
        )
    return Repository(name, str(info.sha or revision or "main"), {file: found[file] for file in wanted})


def wanted_files(names: "dict[str, int]") -> list[str]:
    """Return the files of a repository that the engine or the conversion reads: one form of the weights, no code."""
    top = [name for name in names if "/" not in name]
    small = [name for name in top if name.endswith(_SMALL) or name.upper().startswith(("LICENSE", "NOTICE"))]
    if NETWORK in names:
        return small + [name for name in top if name.startswith("openvino_") and name.endswith((".xml", ".bin"))]
    for ending in (".safetensors", ".bin"):
        # Some repositories hold the weights once more, in their maker's own form.
        weights = [name for name in top if name.endswith(ending) and not name.startswith("consolidated")]
        if weights:
            return small + weights
    return small


def download(repository: Repository, folder: Path) -> None:
    """Download into `folder`; files that an earlier try finished are not asked for again. Raises K2ThinkError."""
    hub = hub_library()
    folder.mkdir(parents=True, exist_ok=True)
    for left in (folder / ".cache").rglob("*.incomplete"):
        # The library begins a file anew after a kill, and leaves the old piece.
        if time.time() - left.stat().st_mtime > STALE_S:
            left.unlink(missing_ok=True)
    missing = sum(size for name, size in repository.sizes.items() if not (folder / name).is_file())
    free = shutil.disk_usage(folder).free
    if free < missing + SPACE_SPARE_BYTES:
        raise StoreFull(
            f"{repository.name} takes {missing / 1e9:.2f} GB more and {folder} has {free / 1e9:.2f} GB: free some space, or "
            "set K2THINK_DATA_DIR to another folder"
        )
    with explained(repository.name, repository.revision):
        hub.snapshot_download(
            repository.name,
            revision=repository.revision,
            local_dir=folder,
            allow_patterns=list(repository.sizes),
            # With several, one broken connection closes the session that the others are using (huggingface_hub 2.4).
            max_workers=1,
        )
    # Where the hub goes away in between, the library hands back what there is.
    short = [name for name in repository.sizes if not (folder / name).is_file()]
    if short:
        raise Unreachable(
            f"the download of {repository.name} is not complete ({', '.join(short)}): ask again, it goes on"
        )
