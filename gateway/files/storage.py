"""The files folder: content under ids, nothing else. Complete content only ever appears under a final name.

A temporary name begins with a dot. What a dead process left behind, under either kind of name, is an orphan: no row
knows it, and `remove_orphans` takes it away once it is old enough not to be in the making.
"""

import contextlib
import hashlib
import os
import re
import secrets
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

ORPHAN_AGE_S = 3_600.0
"""Seconds since its last change after which content without a row is an orphan."""
_FOLDER_MODE = 0o700
_FILE_MODE = 0o600
_ID = re.compile(r"file-[0-9a-f]{32}")
_TEMPORARY = ".part-"


class NewContent:
    """Content in the making. Leaving the `with` block deletes it, unless it was put in place."""

    def __init__(self, folder: Path) -> None:
        """Raises OSError."""
        folder.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
        self._folder = folder
        self._path = folder / f"{_TEMPORARY}{secrets.token_hex(16)}"
        self._file = open(os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _FILE_MODE), "wb")  # noqa: SIM115
        self._digest = hashlib.sha256()
        self.size = 0
        """Bytes so far."""

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Delete what was not put in place."""
        self._file.close()
        with contextlib.suppress(OSError):
            self._path.unlink()

    @property
    def sha256(self) -> str:
        """Of all that was written, hex."""
        return self._digest.hexdigest()

    def write(self, data: bytes) -> None:
        """Append. Raises OSError."""
        self._file.write(data)
        self._digest.update(data)
        self.size += len(data)

    def put(self, file_id: str) -> None:
        """Make it the content of the id, so that it survives a power cut. Raises OSError."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._path.rename(self._folder / file_id)
        folder = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def content_path(folder: Path, file_id: str) -> Path:
    """Return where the content of an id lies. Raises ValueError for what is not an id."""
    if not _ID.fullmatch(file_id):
        raise ValueError("not the id of a file")
    return folder / file_id


def remove_content(folder: Path, file_ids: Iterable[str]) -> None:
    """Delete content; what is not there is no error."""
    for file_id in file_ids:
        with contextlib.suppress(OSError):
            content_path(folder, file_id).unlink()


def remove_orphans(folder: Path, known: Callable[[list[str]], set[str]]) -> int:
    """Delete what no row knows and nobody can be writing any more; return how many. Other files are left alone.

    `known` tells which of the ids have a row. How old something is says the clock that stamps the folder's files.
    """
    old: list[str] = []
    with contextlib.suppress(OSError), os.scandir(folder) as entries, tempfile.TemporaryFile(dir=folder) as fresh:
        now = os.fstat(fresh.fileno()).st_mtime
        for entry in entries:
            ours = entry.name.startswith(_TEMPORARY) or _ID.fullmatch(entry.name)
            with contextlib.suppress(OSError):
                if ours and now - entry.stat(follow_symlinks=False).st_mtime > ORPHAN_AGE_S:
                    old.append(entry.name)
    kept = known([name for name in old if not name.startswith(_TEMPORARY)]) if old else set[str]()
    orphans = [name for name in old if name not in kept]
    for name in orphans:
        with contextlib.suppress(OSError):
            (folder / name).unlink()
    return len(orphans)
