"""A folder of training data while it is written: nothing stands in it under its own name before all of it is whole."""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from pydantic import BaseModel, JsonValue
from pydantic_core import PydanticSerializationError

from ...schemas.errors import InvalidRequest
from .converted import Rejected
from .manifest import MANIFEST_NAME, DataManifest, OutputFile, SourceFile, versions

EXAMPLES_NAME = "examples.jsonl"
TASKS_NAME = "tasks.jsonl"
REJECTS_NAME = "rejects.jsonl"


class _Lines:
    """One file that grows by lines."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.records = 0
        self._digest = hashlib.sha256()
        self._scratch = path.with_name(f".{path.name}.part")
        self._file: IO[bytes] = self._scratch.open("wb")

    def add(self, line: str) -> None:
        data = f"{line}\n".encode("utf-8", "replace")
        self._file.write(data)
        self._digest.update(data)
        self.records += 1

    def told(self) -> OutputFile:
        return OutputFile(name=self.path.name, sha256=self._digest.hexdigest(), records=self.records)

    def keep(self) -> None:
        self._file.close()
        self._scratch.replace(self.path)

    def drop(self) -> None:
        self._file.close()
        self._scratch.unlink(missing_ok=True)


class DataFolder:
    """Writes records and rejects, counts both, and closes with a manifest. Without `finish` it leaves nothing behind."""

    def __init__(self, path: Path, *, overwrite: bool = False) -> None:
        """Raises InvalidRequest where there is training data already, or no folder can be."""
        if (path / MANIFEST_NAME).exists() and not overwrite:
            raise InvalidRequest(f"{path} holds training data already: name another folder, or add --overwrite")
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            raise InvalidRequest(f"{path} cannot be made a folder: {exc.strerror or exc}") from exc
        self.path = path
        self.rejected: Counter[str] = Counter()
        self.groups: Counter[str] = Counter()
        self.read = 0
        self.written = 0
        self._files: dict[str, _Lines] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in self._files.values():
            file.drop()

    def write(self, records: Mapping[str, BaseModel | None]) -> None:
        """Append what belongs together, each to the file of its name, or nothing of it; None = there is none.

        Raises Rejected for text that UTF-8 cannot carry.
        """
        try:
            lines = {
                name: record.model_dump_json(exclude_none=True)
                for name, record in records.items()
                if record is not None
            }
        except PydanticSerializationError as exc:
            raise Rejected("half_characters") from exc
        for name, line in lines.items():
            self._lines(name).add(line)

    def write_line(self, name: str, line: str) -> None:
        """Append a line as it stands."""
        self._lines(name).add(line)

    def accept(self, *, domain: str | None, source: str) -> None:
        """Count one record as written."""
        self.written += 1
        self.groups[f"{domain or 'unchecked'} {source}"] += 1

    def reject(self, place: str, reason: str, detail: str = "") -> None:
        """Count one record as left out, and note where it stands and why. Its text is not repeated."""
        self.rejected[reason] += 1
        line: dict[str, str] = {"place": place, "reason": reason}
        if detail:
            line["detail"] = detail
        self._lines(REJECTS_NAME).add(json.dumps(line, ensure_ascii=False))

    def finish(
        self,
        made_by: str,
        *,
        sources: Iterable[SourceFile],
        against: Iterable[SourceFile] = (),
        options: dict[str, JsonValue] | None = None,
        revision: str | None = None,
        seed: int | None = None,
        checked: dict[str, int] | None = None,
    ) -> DataManifest:
        """Give the files their names, write the manifest and return it."""
        self._lines(REJECTS_NAME)
        manifest = DataManifest(
            made_by=made_by,
            created_at=time.time(),
            revision=revision,
            sources=tuple(sources),
            against=tuple(against),
            options=options or {},
            seed=seed,
            read=self.read,
            written=self.written,
            rejected=dict(sorted(self.rejected.items())),
            checked=checked or {},
            groups=dict(sorted(self.groups.items())),
            outputs=tuple(file.told() for _name, file in sorted(self._files.items())),
            versions=versions(),
        )
        for name in (EXAMPLES_NAME, TASKS_NAME, MANIFEST_NAME):
            # What an earlier run left must not stand beside this one's manifest.
            if name not in self._files:
                (self.path / name).unlink(missing_ok=True)
        for file in self._files.values():
            file.keep()
        scratch = self.path / f".{MANIFEST_NAME}.part"
        scratch.write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
        scratch.replace(self.path / MANIFEST_NAME)
        self._files.clear()
        return manifest

    def _lines(self, name: str) -> _Lines:
        if name not in self._files:
            try:
                self._files[name] = _Lines(self.path / name)
            except OSError as exc:
                raise InvalidRequest(f"{self.path} cannot be written to: {exc.strerror or exc}") from exc
        return self._files[name]
