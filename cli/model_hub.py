"""A model repository from the Hugging Face hub into a folder; what the hub refuses is explained."""

import contextlib
import errno
import shutil
import sys
import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..agents.backends.openvino_folder import NETWORK
from ..schemas.errors import (
    ConfigurationError,
    InvalidRequest,
    K2ThinkError,
    NotFound,
    Overloaded,
    StoreFull,
    Unauthorized,
    Unreachable,
)

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
    hub = _hub()
    with _explained(name, revision):
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
    hub = _hub()
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
    with _explained(repository.name, repository.revision):
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


def _hub() -> Any:
    try:
        import huggingface_hub
        from huggingface_hub.utils import disable_progress_bars, logging
    except ImportError as exc:
        raise ConfigurationError("downloading needs huggingface_hub: pip install 'k2think[models]'") from exc
    logging.set_verbosity_error()
    if not sys.stderr.isatty():
        disable_progress_bars()
    return huggingface_hub


@contextlib.contextmanager
def _explained(name: str, revision: str | None) -> Generator[None]:
    try:
        yield
    except Exception as exc:
        mapped = _mapped(exc, name, revision)
        if mapped is None:
            raise
        raise mapped from exc


def _mapped(exc: Exception, name: str, revision: str | None) -> K2ThinkError | None:
    from huggingface_hub import constants, errors

    failure: Any = exc
    place = constants.ENDPOINT
    if isinstance(exc, errors.HFValidationError):
        return InvalidRequest(f"{name!r} is no name of a model: it reads OWNER/NAME, as in the hub's address of it")
    if isinstance(exc, errors.GatedRepoError):
        return Unauthorized(
            f"{name} is gated: ask for access at {place}/{name}, then set HF_TOKEN to a token of the account that was let in"
        )
    if isinstance(exc, errors.RevisionNotFoundError):
        return NotFound(f"{name} has no revision {revision!r} at {place}")
    if isinstance(exc, errors.RepositoryNotFoundError):
        return NotFound(f"{place} has no model {name!r}: check the spelling; for a private one set HF_TOKEN")
    if isinstance(exc, errors.OfflineModeIsEnabled):
        return ConfigurationError("HF_HUB_OFFLINE is set, so nothing is downloaded: unset it")
    if isinstance(exc, errors.HfHubHTTPError):
        return _refused(int(failure.response.status_code), name, place)
    if isinstance(exc, OSError) and exc.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoreFull(f"no space is left for {name}: free some and ask again, the download goes on")
    kinds = {kind.__name__ for kind in type(exc).__mro__}
    if kinds & {"TransportError", "ConnectionError", "LocalEntryNotFoundError", "FileMetadataError"}:
        return Unreachable(
            f"{place} cannot be reached, or the connection broke ({type(exc).__name__}): check the network and proxy, or set "
            "HF_ENDPOINT to a mirror; asked again, the download goes on"
        )
    return None


def _refused(status: int, name: str, place: str) -> K2ThinkError:
    if status in (401, 403):
        return Unauthorized(
            f"{place} refuses the token for {name} ({status}): set HF_TOKEN to a valid one", status=status
        )
    if status == 429:
        return Overloaded(
            f"{place} takes no more requests for now (429): wait a little, or set HF_TOKEN", status=status
        )
    return Overloaded(f"{place} answers {status} for {name}: try again later; the download goes on", status=status)
