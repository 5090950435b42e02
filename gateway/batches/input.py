"""The input file of a batch, read in pieces: memory is bounded by one line and the digests of the custom ids.

Everything in here blocks and is run in a thread.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Self

from ...schemas.batches import PROBLEMS_MAX, BatchProblem
from ...schemas.settings import Settings
from ...store.batch_lines import Line, NewLine
from .lines import LineFault, check_line

PIECE_LINES = 100
"""Lines that are checked before others get their turn."""
_BOM = b"\xef\xbb\xbf"


@dataclass(slots=True)
class InputCheck:
    """Reads an input to its end, and gathers what is good and what is wrong."""

    file: BinaryIO
    settings: Settings
    endpoint: str
    """Url that every line must have."""
    expires_at: float
    """End of the completion window, Unix time in seconds."""
    now: Callable[[], float]
    """The database's clock."""
    total: int = 0
    """Lines so far, blank ones left out."""
    model: str | None = None
    """Model of the first good line."""
    problems: list[BatchProblem] = field(default_factory=list[BatchProblem])
    """What is wrong, in order of lines, the first 100."""
    ended: bool = False
    """Whether there is nothing more to read."""
    _number: int = 0
    _offset: int = 0
    _seen: dict[bytes, int] = field(default_factory=dict[bytes, int])
    """Digest of each custom_id, with its line."""

    @classmethod
    def open(
        cls, path: Path, settings: Settings, *, endpoint: str, expires_at: float, now: Callable[[], float]
    ) -> Self:
        """Begin at the first line. Raises OSError."""
        return cls(path.open("rb"), settings, endpoint, expires_at, now)

    def close(self) -> None:
        """Close the file."""
        self.file.close()

    def read_piece(self) -> list[NewLine]:
        """Read and check some lines; return the good ones. Raises OSError."""
        good: list[NewLine] = []
        for _ in range(PIECE_LINES):
            if not self._read_line(good):
                self.ended = True
                if not self.total and not self.problems:
                    self._fault(None, LineFault("empty_file", "the file holds no request"))
                break
        return good

    def _read_line(self, good: list[NewLine]) -> bool:
        """Read one line; False = there is none, or reading on makes no sense."""
        limits = self.settings.gateway
        raw = self.file.readline(limits.line_bytes_max + 2)
        if not raw:
            return False
        self._number += 1
        start, length = self._offset, len(raw)
        if raw.endswith(b"\n"):
            self._offset += length
        else:
            self._offset += length + self._skip_rest(limits.line_bytes_max)
        if self._number == 1 and raw.startswith(_BOM):
            raw, start = raw[len(_BOM) :], start + len(_BOM)
        line = raw.rstrip(b"\r\n")
        if not line.strip():
            return True
        self.total += 1
        if self.total > limits.batch_lines_max:
            text = f"the file has more than {limits.batch_lines_max:,} requests: split it into several batches"
            self._fault(self._number, LineFault("too_many_lines", text))
            return False
        try:
            if len(line) > limits.line_bytes_max:
                raise LineFault("line_too_long", f"the line is longer than {limits.line_bytes_max:,} bytes")
            good.append(self._checked(line, start))
        except LineFault as fault:
            self._fault(self._number, fault)
        return len(self.problems) < PROBLEMS_MAX

    def _checked(self, line: bytes, start: int) -> NewLine:
        custom_id, model = check_line(
            line, self.settings, endpoint=self.endpoint, expires_at=self.expires_at, now=self.now()
        )
        digest = hashlib.blake2b(custom_id.encode(), digest_size=16).digest()
        first = self._seen.setdefault(digest, self._number)
        if first != self._number:
            raise LineFault("duplicate_custom_id", f"custom_id: line {first} has the same one", param="custom_id")
        if self.model is None:
            self.model = model
        return NewLine(self._number, custom_id, start, len(line))

    def _skip_rest(self, piece: int) -> int:
        """Read on to the end of a line that is too long; return the bytes passed over."""
        skipped = 0
        while raw := self.file.readline(piece):
            skipped += len(raw)
            if raw.endswith(b"\n"):
                break
        return skipped

    def _fault(self, line: int | None, fault: LineFault) -> None:
        self.problems.append(BatchProblem(code=fault.code, line=line, message=str(fault), param=fault.param))


def read_lines(path: Path, lines: list[Line]) -> list[bytes]:
    """Return the bytes of these lines. Raises OSError."""
    with path.open("rb") as file:
        found: list[bytes] = []
        for line in lines:
            file.seek(line.offset)
            found.append(file.read(line.length))
        return found
