"""What a converter makes of one record, and how it refuses one."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b

from ...schemas.scores import Task
from ..records import SftExample

DETAIL_CHARS_MAX = 300


class Rejected(Exception):
    """A record is left out. Always caught by whoever counts."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        """Short code, by which they are counted."""
        self.detail = detail[:DETAIL_CHARS_MAX]
        """What of it was wrong, without its text."""


@dataclass(frozen=True, slots=True)
class Converted:
    """What one record has become: a conversation, a problem, or both."""

    problem: str
    """The text of the problem alone, by which doubles and evaluation problems are found."""
    example: SftExample | None = None
    """The conversation to imitate; None = the set has problems only."""
    task: Task | None = None
    """The problem with its truth; None = there is no truth to check with."""


def stable_id(prefix: str, *texts: str) -> str:
    """Return an id made of the texts, so that the same record has the same one wherever it stands."""
    digest = blake2b(digest_size=10)
    for text in texts:
        digest.update(text.encode("utf-8", "surrogatepass"))
        digest.update(b"\0")
    return f"{prefix}-{digest.hexdigest()}"
