"""A hash by which a later reader can tell whether the same grader decided."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path


@cache
def grader_sha256() -> str:
    """Return the hash of the sources of `grading/`."""
    root = Path(__file__).parent
    digest = hashlib.sha256()
    for file in sorted(root.rglob("*.py")):
        digest.update(f"\n{file.relative_to(root).as_posix()}\n".encode() + file.read_bytes())
    return digest.hexdigest()
