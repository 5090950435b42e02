"""Where records are read from: paths, and data sets at the Hugging Face hub."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ...agents.backends.hub_errors import explained, hub_library
from ...schemas.errors import NotFound
from .reading import beside_data, files_of, passed_over

_AT_THE_HUB = re.compile(r"(?P<name>[\w.-]+/[\w.-]+?)(?:@(?P<revision>[\w./-]+))?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Fetched:
    """Files to read, and what they are called in a manifest."""

    files: list[Path]
    """In the order in which they are read."""
    revision: str | None = None
    """Commit at the hub, of the last data set that is from there; None = all are local."""
    names: dict[Path, str] = field(default_factory=dict[Path, str])
    """File from the hub → OWNER/NAME@COMMIT/FILE."""
    passed_over: list[str] = field(default_factory=list[str])
    """What else may hold data there and is not read, as `name_of` would call it."""

    def name_of(self, file: Path) -> str:
        """Return what a file is called: where the hub's copy lies on this machine tells nobody anything."""
        return self.names.get(file, str(file))


def source_files(sources: Sequence[str], *, patterns: Sequence[str]) -> Fetched:
    """Return the files of paths, and of data sets at the hub (`OWNER/NAME` or `OWNER/NAME@REVISION`; a path goes first).

    `patterns` name the files that are wanted of a data set at the hub. Raises NotFound, InvalidRequest, ConfigurationError,
    and what `fetch_data_set` raises.
    """
    files: list[Path] = []
    names: dict[Path, str] = {}
    passed: list[str] = []
    commit: str | None = None
    for source in sources:
        path = Path(source)
        at_the_hub = None if path.exists() else _AT_THE_HUB.fullmatch(source)
        # OWNER/FILE.jsonl is far more often a path that is misspelt than a data set.
        if at_the_hub is None or path.suffix in (".json", ".jsonl", ".parquet", ".gz"):
            files += files_of([path])
            passed += [str(entry) for entry in passed_over(path)] if path.is_dir() else []
            continue
        name = at_the_hub["name"]
        folder, commit, left = fetch_data_set(name, revision=at_the_hub["revision"], patterns=patterns)
        found, other = files_of([folder]), [*passed_over(folder), *left]
        called = {file: f"{name}@{commit}/{file.relative_to(folder).as_posix()}" for file in (*found, *other)}
        names |= {file: called[file] for file in found}
        files += found
        passed += [called[file] for file in other]
    return Fetched(list(dict.fromkeys(files)), commit, names, list(dict.fromkeys(passed)))


def fetch_data_set(name: str, *, revision: str | None, patterns: Sequence[str]) -> tuple[Path, str, list[Path]]:
    """Download files of a data set into the library's cache; return its folder there, the commit, and what was not fetched.

    What is in the cache is not asked for again. Raises K2ThinkError.
    """
    hub = hub_library()
    with explained(name, revision, kind="data set"):
        info = hub.HfApi().dataset_info(name, revision=revision)
        commit = str(info.sha)
        folder = hub.snapshot_download(
            name, repo_type="dataset", revision=commit, allow_patterns=list(patterns), max_workers=1
        )
    path = Path(folder)
    if not path.is_dir() or not any(file.is_file() for file in path.rglob("*")):
        raise NotFound(f"{name} has no files that are named like {', '.join(patterns)}: is it another data set?")
    there = [path / sibling.rfilename for sibling in info.siblings or []]
    return path, commit, [file for file in there if not file.is_file() and not beside_data(file, path)]
