"""The rows of a published set: from a file or folder on this machine, or from the hub; what cannot be read is explained."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from ...agents.backends.hub_errors import explained, hub_library
from ...schemas.errors import InvalidRequest, NotFound
from ...schemas.evaluation import Item
from ...training.data.reading import ENDINGS, rows_of
from .options import SuiteOptions

Row = dict[str, Any]
CSV = ".csv"


@dataclass(frozen=True, slots=True)
class Publication:
    """Where a set is published."""

    hub: str
    """Data set at the hub, OWNER/NAME."""
    files: tuple[str, ...]
    """Patterns of the files that are read, in this order; each must match."""


@dataclass(frozen=True, slots=True)
class Source:
    """What was found."""

    rows: tuple[tuple[str, Row], ...]
    """Place (`file, line 3`) and fields."""
    origin: str
    """`OWNER/NAME@commit`, or the names of the files."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """The items of a suite."""

    items: tuple[Item, ...]
    """In the order of the source."""
    origin: str | None = None
    """`OWNER/NAME@commit`, or the names of the files; None = they were drawn."""


def read_source(name: str, publication: Publication, options: SuiteOptions) -> Source:
    """Return the rows of a suite's set. Raises NotFound, InvalidRequest, ConfigurationError and what the hub refuses."""
    if options.path is not None:
        files = _local_files(name, options.path, publication)
        origin = ", ".join(file.name for file in files)
    else:
        files, origin = _from_hub(options.hub or publication.hub, options.revision, publication.files)
    rows = tuple(row for file in files for row in _rows(name, file))
    if not rows:
        raise InvalidRequest(f"{name}: {origin} holds no rows")
    return Source(rows, origin)


def field(name: str, place: str, row: Row, *names: str) -> Any:
    """Return the first of these fields that a row has. Raises InvalidRequest that names those it has."""
    for wanted in names:
        if row.get(wanted) is not None:
            return row[wanted]
    has = ", ".join(sorted(map(str, row)))
    raise InvalidRequest(
        f"{name}: {place} has no field {' or '.join(map(repr, names))}, so this is not the published format; it has: {has}"
    )


def text_field(name: str, place: str, row: Row, *names: str) -> str:
    """As `field`, for a text that is not empty; numbers become texts."""
    value = field(name, place, row, *names)
    if isinstance(value, bool) or not isinstance(value, str | int | float) or not str(value).strip():
        raise InvalidRequest(f"{name}: {place}: the field {' or '.join(map(repr, names))} is no text")
    # Where a column lacks a value, readers make the others floats.
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()


def _local_files(name: str, path: Path, publication: Publication) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise NotFound(f"{name}: {path}: there is no such file or folder")
    below = [file for file in sorted(path.rglob("*")) if file.is_file() and not _hidden(file, path)]
    found = _matching([file.relative_to(path).as_posix() for file in below], publication.files)
    if found is None:
        # Not laid out as at the hub: a folder of files in a form that is read will do.
        found = [file.relative_to(path).as_posix() for file in below if file.name.endswith((*ENDINGS[:5], CSV))]
    if not found:
        raise InvalidRequest(f"{name}: {path} holds none of {', '.join(publication.files)}, nor any file of rows")
    return [path / file for file in found]


def _hidden(file: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in file.relative_to(folder).parts)


def _matching(names: list[str], patterns: tuple[str, ...]) -> list[str] | None:
    found: list[str] = []
    for pattern in patterns:
        matches = [name for name in names if fnmatch(name, pattern)]
        if not matches:
            return None
        found += matches
    return list(dict.fromkeys(found))


def _from_hub(name: str, revision: str | None, patterns: tuple[str, ...]) -> tuple[list[Path], str]:
    hub = hub_library()
    with explained(name, revision, kind="data set"):
        info = hub.HfApi().dataset_info(name, revision=revision)
        wanted = _matching(sorted(file.rfilename for file in info.siblings or []), patterns)
        if wanted is None:
            raise InvalidRequest(
                f"{name} at the hub holds no {' or '.join(patterns)}: is it another set, or has it been laid out anew? "
                "Download it and give the path"
            )
        commit = str(info.sha or revision or "main")
        print(f"from the hub: {name} at {commit[:12]}", file=sys.stderr)
        paths = [hub.hf_hub_download(name, file, repo_type="dataset", revision=commit) for file in wanted]
    return [Path(path) for path in paths], f"{name}@{commit}"


def _rows(name: str, file: Path) -> Iterator[tuple[str, Row]]:
    if file.name.lower().endswith(CSV):
        yield from _csv_rows(name, file)
        return
    if not file.name.lower().endswith(ENDINGS):
        raise InvalidRequest(f"{name}: {file} cannot be read: files must end in {', '.join((*ENDINGS[:5], CSV))}")
    for read in rows_of(file):
        if read.row is None:
            raise InvalidRequest(f"{name}: {file.name}, {read.place} cannot be read ({read.reason})")
        yield f"{file.name}, {read.place}", read.row


def _csv_rows(name: str, file: Path) -> Iterator[tuple[str, Row]]:
    csv.field_size_limit(sys.maxsize)
    try:
        # utf-8-sig: some of the files in circulation begin with a mark.
        with file.open(encoding="utf-8-sig", newline="") as opened:
            for number, row in enumerate(csv.DictReader(opened), start=1):
                yield f"{file.name}, row {number}", dict(row)
    except (OSError, UnicodeDecodeError, csv.Error) as exc:
        raise InvalidRequest(f"{name}: {file} cannot be read: {exc}") from exc
