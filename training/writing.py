"""Folders that a command is told to write."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from ..schemas.errors import InvalidRequest


@contextmanager
def writing(folder: Path) -> Generator[None]:
    """Make the folder for what is written inside of the block. Raises InvalidRequest where it cannot be made or written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as exc:
        raise InvalidRequest(f"{folder} cannot be written ({exc.strerror or exc}): name another folder") from exc
