"""Records of files, one after the other: JSON lines (plain or gzip), JSON, Parquet, CSV, text. Memory does not grow with the file.

A record that cannot be read is handed out with what is wrong with it, so that whoever counts can count it.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from ...schemas.errors import ConfigurationError, InvalidRequest, NotFound

LINE_BYTES_MAX = 64_000_000
"""A longer line is passed over as a bad one."""
JSON_BYTES_MAX = 1_000_000_000
"""A JSON file is read as a whole; larger ones are refused."""
PARAGRAPH_CHARS_MAX = 1_000_000
PARQUET_ROWS = 16
"""Rows read at once: some of Guru's have tests of many megabytes."""
PARQUET_BUFFER_BYTES = 1 << 20
NOT_DATA = ("manifest.json", "rejects.jsonl")
"""What stands beside data that we wrote."""
NOTES = ("README", "LICENSE", "NOTICE")
NOTE_SUFFIXES = ("", ".md", ".rst", ".txt")
"""Names and endings of what tells about data."""
ENDINGS = (".jsonl", ".jsonl.gz", ".ndjson", ".json", ".parquet", ".csv", ".txt", ".md")

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Read:
    """One record of a file."""

    file: Path
    """Where it is from."""
    place: str
    """Where in the file: `line 12`, `row 3`."""
    row: Row | None
    """Its fields; None = it cannot be read."""
    reason: str = ""
    """Why not, as a short code; empty = it can."""


def files_of(paths: Sequence[Path]) -> list[Path]:
    """Return the files that are meant: each by itself, of a folder all that can be read. Raises NotFound, InvalidRequest."""
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            below = [entry for entry in _entries(path) if _can_be_read(entry)]
            if not below:
                raise InvalidRequest(f"{path} holds no file that can be read: they end in {', '.join(ENDINGS)}")
            found += below
        elif not path.exists():
            raise NotFound(f"{path}: there is no such file or folder")
        elif _ending(path) is None:
            raise InvalidRequest(f"{path} cannot be read: files must end in {', '.join(ENDINGS)}")
        else:
            found.append(path)
    return found


def passed_over(folder: Path) -> list[Path]:
    """Return what `files_of` leaves out of a folder though it may hold data.

    Files of other kinds, links to folders, and folders that must not be listed.
    """
    return [entry for entry in _entries(folder) if not _can_be_read(entry)]


def beside_data(file: Path, folder: Path) -> bool:
    """Whether a file of a folder is hidden, as what a download leaves is, or tells about the data rather than holding any."""
    return any(part.startswith(".") for part in file.relative_to(folder).parts) or _about_data(file)


def rows_of(file: Path) -> Iterator[Read]:
    """Yield the records of a file in order. Raises InvalidRequest for a file that is not what its ending says."""
    ending = _ending(file)
    try:
        if ending == ".parquet":
            yield from _parquet_rows(file)
        elif ending == ".json":
            yield from _json_rows(file)
        elif ending == ".csv":
            yield from _csv_rows(file)
        elif ending in (".txt", ".md"):
            yield from _paragraphs(file)
        else:
            with _opened(file, ending) as lines:
                yield from _json_lines(file, lines)
    except (OSError, EOFError) as exc:
        said = getattr(exc, "strerror", None) or " ".join(str(exc).split())
        raise InvalidRequest(f"{file} cannot be read: {said}") from exc


def file_sha256(file: Path) -> str:
    """Return the SHA-256 of the file's bytes, hex. Raises InvalidRequest."""
    try:
        with file.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError as exc:
        raise InvalidRequest(f"{file} cannot be read: {exc.strerror or exc}") from exc


def _entries(folder: Path) -> list[Path]:
    """Return what may hold data below a folder, sorted: files, and folders that are not gone into."""
    below = (entry for entry in folder.rglob("*") if not beside_data(entry, folder))
    return sorted(entry for entry in below if entry.is_file() or entry.is_symlink() or _is_closed(entry))


def _is_closed(entry: Path) -> bool:
    return entry.is_dir() and not os.access(entry, os.R_OK | os.X_OK)


def _can_be_read(entry: Path) -> bool:
    return entry.is_file() and _ending(entry) is not None


def _about_data(file: Path) -> bool:
    if file.stem.upper() in NOTES and file.suffix.lower() in NOTE_SUFFIXES:
        return True
    return file.name in NOT_DATA and (file.parent / "manifest.json").is_file()


def _ending(file: Path) -> str | None:
    name = file.name.lower()
    return next((ending for ending in ENDINGS if name.endswith(ending)), None)


def _opened(file: Path, ending: str | None) -> IO[bytes]:
    return cast(IO[bytes], gzip.open(file, "rb")) if ending == ".jsonl.gz" else file.open("rb")


def _json_lines(file: Path, lines: IO[bytes]) -> Iterator[Read]:
    number = 0
    while line := lines.readline(LINE_BYTES_MAX):
        number += 1
        place = f"line {number}"
        if len(line) == LINE_BYTES_MAX and not line.endswith(b"\n"):
            while (rest := lines.readline(LINE_BYTES_MAX)) and not rest.endswith(b"\n"):
                pass
            yield Read(file, place, None, "line_too_long")
        elif line.strip():
            yield _parsed(file, place, line)


def _parsed(file: Path, place: str, text: bytes) -> Read:
    try:
        value: object = json.loads(text)
    except (ValueError, RecursionError):
        return Read(file, place, None, "not_json")
    return _record(file, place, value)


def _record(file: Path, place: str, value: object) -> Read:
    if not isinstance(value, dict):
        return Read(file, place, None, "not_an_object")
    return Read(file, place, cast(Row, value))


def _json_rows(file: Path) -> Iterator[Read]:
    if file.stat().st_size > JSON_BYTES_MAX:
        raise InvalidRequest(
            f"{file} is larger than {JSON_BYTES_MAX // 1_000_000} MB, and JSON is read as a whole: write it as JSON lines"
        )
    try:
        value: object = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as exc:
        raise InvalidRequest(f"{file} is no JSON: {exc}; one object a line is JSON lines, which end in .jsonl") from exc
    records = cast(list[object], value) if isinstance(value, list) else [value]
    for number, record in enumerate(records, start=1):
        yield _record(file, f"record {number}", record)


def _csv_rows(file: Path) -> Iterator[Read]:
    before = csv.field_size_limit(LINE_BYTES_MAX)
    with file.open(encoding="utf-8-sig", errors="replace", newline="") as opened:
        try:
            for number, row in enumerate(csv.DictReader(opened), start=1):
                # More fields than the head names stand under None.
                whole = None not in row
                yield Read(
                    file, f"record {number}", cast(Row, row) if whole else None, "" if whole else "too_many_fields"
                )
        except csv.Error as exc:
            raise InvalidRequest(f"{file} is no CSV: {exc}") from exc
        finally:
            # The limit is the whole process's.
            csv.field_size_limit(before)


def _paragraphs(file: Path) -> Iterator[Read]:
    """Yield blocks of lines between empty ones as records with the field `text`."""
    lines: list[str] = []
    first, chars = 1, 0
    with file.open(encoding="utf-8", errors="replace") as opened:
        for number, line in enumerate(opened, start=1):
            if line.strip():
                if not lines:
                    first = number
                lines.append(line)
                chars += len(line)
            if lines and (not line.strip() or chars >= PARAGRAPH_CHARS_MAX):
                yield Read(file, f"line {first}", {"text": "".join(lines)})
                lines, chars = [], 0
    if lines:
        yield Read(file, f"line {first}", {"text": "".join(lines)})


def _parquet_rows(file: Path) -> Iterator[Read]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as exc:
        raise ConfigurationError("reading Parquet needs pyarrow: pip install 'k2think[train]'") from exc
    arrow = cast(Any, pyarrow)
    number = 0
    try:
        with cast(Any, parquet).ParquetFile(file, buffer_size=PARQUET_BUFFER_BYTES, pre_buffer=False) as table:
            for batch in table.iter_batches(batch_size=PARQUET_ROWS):
                for row in batch.to_pylist():
                    number += 1
                    yield Read(file, f"row {number}", row)
    except (arrow.ArrowException, UnicodeDecodeError) as exc:
        after = f" after row {number}" if number else ""
        raise InvalidRequest(f"{file} is no whole Parquet file: it cannot be read{after} ({exc})") from exc
