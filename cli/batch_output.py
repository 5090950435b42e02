"""The output file of a batch: one line appended per finished input line, so that a run can be stopped anywhere.

A file OUT.state beside it says which batch it is: the name under which its jobs are found again after a crash, and
what its input looked like.
"""

import contextlib
import errno
import fcntl
import io
import json
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pydantic import ValidationError

from ..schemas.base import Frozen
from ..schemas.errors import InvalidRequest, StoreFull
from ..schemas.ids import uuid7
from ..schemas.policy import Policy
from .batch_answers import encode, key_of_output, succeeded
from .batch_input import STDIN, InputFile, describe_input

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class BatchState(Frozen):
    """The content of OUT.state."""

    version: int = 1
    """Of this form."""
    batch_id: str
    """UUIDv7: part of the idempotency key of every job."""
    input: str
    """Name of the input; `-` = standard input, which is not compared."""
    size: int
    """Bytes of the input file that `sha256` is about."""
    sha256: str
    """Of the input file, hex; empty for standard input."""
    policy: Policy
    """Of the command line."""


@dataclass(slots=True)
class Counts:
    """Output lines."""

    done: int = 0
    """All, failed ones included."""
    failed: int = 0
    """Those without an answer: failed, refused, expired, bad input."""


class BatchOutput:
    """An output file that is open and locked for this run."""

    def __init__(self, path: Path) -> None:
        """Open and lock the file; it is created when it is missing. Raises InvalidRequest, StoreFull."""
        self._path = path
        self._state_path = path.with_name(path.name + ".state")
        self._file = self._open()
        self.finished: set[bytes] = set()
        """Keys of the input lines that are answered (see `batch_answers.keys_of_input`)."""
        self.counts = Counts()
        self._end = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def begin(self, source: str, described: InputFile | None, policy: Policy, *, restart: bool) -> BatchState:
        """Find the batch that this file belongs to, or begin one. Raises InvalidRequest when it is another input's."""
        state = None if restart else self._known_state()
        if state is None:
            if not restart and os.fstat(self._file.fileno()).st_size:
                raise InvalidRequest(
                    f"{self._path} exists and was not written by this command: choose another name for -o, "
                    "or give --restart to overwrite it"
                )
            self._file.truncate(0)
            state = BatchState(batch_id=uuid7(), input=source, size=0, sha256="", policy=policy)
        else:
            self._check_same_input(state, source)
            self._read_finished()
        if described is not None:
            state = state.model_copy(update={"size": described.size, "sha256": described.sha256})
        self._write_state(state)
        return state

    def write(self, value: dict[str, Any]) -> None:
        """Append one line. Raises StoreFull (nothing of the line is left then), InvalidRequest."""
        data = memoryview(encode(value))
        try:
            written = 0
            while written < len(data):
                written += self._file.write(data[written:]) or 0
        except OSError as exc:
            with contextlib.suppress(OSError):
                self._file.truncate(self._end)
            raise self._unwritable(exc) from exc
        self._end += len(data)
        self.counts.done += 1
        self.counts.failed += not succeeded(value)

    def _open(self) -> io.FileIO:
        try:
            # Opened without truncation and in append mode, whatever another process does to the file.
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        except OSError as exc:
            raise self._unwritable(exc) from exc
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise InvalidRequest(f"the output {self._path} must be a regular file, so that the batch can be resumed")
        file = io.FileIO(descriptor, "r+")
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            file.close()
            raise InvalidRequest(
                f"another batch is writing to {self._path}: wait for it, or choose another -o"
            ) from exc
        return file

    def _known_state(self) -> BatchState | None:
        try:
            return BatchState.model_validate_json(self._state_path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as exc:
            raise InvalidRequest(
                f"{self._state_path} cannot be read: give --restart to begin {self._path} anew, or choose another -o"
            ) from exc

    def _check_same_input(self, state: BatchState, source: str) -> None:
        if STDIN in (state.input, source):
            same = state.input == source
        else:
            described = describe_input(Path(source), size=state.size)
            same = described is not None and described.sha256 == state.sha256
        if not same:
            raise InvalidRequest(
                f"{self._path} belongs to another input ({state.input}, or what it was before it was changed): "
                "choose another name for -o, or give --restart to throw its lines away"
            )

    def _read_finished(self) -> None:
        """Take in what is written already; a torn last line is cut off."""
        self._file.seek(0)
        number, end = 0, 0
        # A second reader on a copy of the descriptor: it buffers, ours must not.
        with open(os.dup(self._file.fileno()), "rb") as reader:
            for raw in reader:
                number += 1
                if not raw.endswith(b"\n"):
                    break
                end += len(raw)
                value = _load(raw)
                key = key_of_output(value) if value is not None else None
                if value is None or key is None:
                    raise InvalidRequest(
                        f"{self._path}, line {number}, was not written by this command: mend the file, choose another "
                        "-o, or give --restart to begin anew"
                    )
                self.finished.add(key)
                self.counts.done += 1
                self.counts.failed += not succeeded(value)
        self._file.truncate(end)
        self._end = end

    def _write_state(self, state: BatchState) -> None:
        temporary = self._state_path.with_name(self._state_path.name + ".new")
        try:
            with temporary.open("w", encoding="utf-8") as file:
                file.write(state.model_dump_json(indent=2))
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self._state_path)
        except OSError as exc:
            raise self._unwritable(exc) from exc

    def _unwritable(self, exc: OSError) -> StoreFull | InvalidRequest:
        if exc.errno in _NO_SPACE:
            return StoreFull(f"no space is left for {self._path}: free some, then run the same command again to go on")
        return InvalidRequest(f"the output {self._path} cannot be written: {exc.strerror or exc}")


def _load(raw: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
