"""What a folder of training data was made of and how: `manifest.json` beside it."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

from pydantic import JsonValue

from ... import __version__
from ...schemas.base import Frozen

MANIFEST_NAME = "manifest.json"
_LIBRARIES = ("pyarrow", "math-verify", "huggingface-hub", "sqlalchemy")


class SourceFile(Frozen):
    """One file that was read."""

    name: str
    """Its path as given, or its name at the hub."""
    sha256: str
    """Hash of its bytes."""
    records: int
    """Records read from it, bad ones included."""


class OutputFile(Frozen):
    """One file that was written."""

    name: str
    """Name in the folder."""
    sha256: str
    """Hash of its bytes."""
    records: int
    """Lines in it."""


class DataManifest(Frozen):
    """How the data came about. What was read is what was written and what was rejected: the counts add up."""

    made_by: str
    """The command: `convert am`, `mix`, `from-log`."""
    created_at: float
    """Unix time in seconds."""
    revision: str | None = None
    """Commit of the data set at the hub; None = from files, or from the log."""
    sources: tuple[SourceFile, ...]
    """What was read; of a database its name, and a hash of what it handed out."""
    against: tuple[SourceFile, ...] = ()
    """Evaluation sets that the data was kept free of; empty = none, so nothing is known of contamination."""
    options: dict[str, JsonValue] = {}
    """What was asked for."""
    seed: int | None = None
    """Seed of the order and the choice; None = neither was drawn."""
    read: int
    """Records read."""
    written: int
    """Records written to the main file."""
    rejected: dict[str, int] = {}
    """Records left out, by reason; `rejects.jsonl` says which."""
    checked: dict[str, int] = {}
    """Answers by what their check came to: `right`, `no_truth`, or why they could not be checked. Wrong ones are rejected."""
    groups: dict[str, int] = {}
    """Records written, by domain and source."""
    outputs: tuple[OutputFile, ...]
    """What was written."""
    versions: dict[str, str]
    """Of k2think, Python and the libraries that matter."""


def versions() -> dict[str, str]:
    """Return the versions that a manifest names."""
    found = {"k2think": __version__, "python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
