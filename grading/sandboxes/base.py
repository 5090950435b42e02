"""The protocol that all sandboxes follow, and what goes in and out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from ...schemas.errors import GradingError
from ...schemas.sandbox_settings import SandboxKind

MAX_PROGRAM_BYTES = 4_000_000
"""Bytes of all files of one program, tests apart."""
MAX_TESTS_BYTES = 32_000_000
"""Bytes of all files of the program that tests an answer: those of SciCode hold whole arrays."""


@dataclass(frozen=True, slots=True)
class SandboxLimits:
    """Bounds of one run."""

    wall_s: float = 10.0
    """Seconds from start to end; then everything inside is killed."""
    cpu_s: int = 10
    """CPU seconds of the program, all threads together."""
    memory_bytes: int = 512 * 1024 * 1024
    """Address space of the program."""
    disk_bytes: int = 16 * 1024 * 1024
    """Size of the scratch folder /tmp, which lives in memory, and of each file in it."""
    threads: int = 64
    """RLIMIT_NPROC; does not bind root."""
    output_bytes: int = 1024 * 1024
    """Standard output and standard error each; a program that writes more is killed."""


DEFAULT_LIMITS = SandboxLimits()

Outcome = Literal["ok", "failed", "timeout", "output_limit"]


@dataclass(frozen=True, slots=True)
class SandboxResult:
    """What a program did."""

    outcome: Outcome
    """ok = exit status 0; failed = another status or a signal (memory and CPU limits included); the rest as named."""
    exit_code: int
    """Exit status; 128 + n for signal n; -1 when we killed it."""
    stdout: str
    """Standard output, undecodable bytes replaced, at most `output_bytes`."""
    stderr: str
    """Standard error, likewise."""
    wall_s: float
    """Seconds that it took, the sandbox's own start included (~20 ms with bubblewrap, ~500 ms with gVisor)."""


@dataclass(frozen=True, slots=True)
class Program:
    """Python files that lie in one folder of the sandbox, read-only, and the one that is run."""

    files: Mapping[str, str]
    """Text by file name."""
    main: str
    """Name of the file that is run."""
    arguments: tuple[str, ...] = field(default=())
    """Arguments on its command line."""

    @property
    def size_bytes(self) -> int:
        """Bytes of all files together."""
        return sum(len(as_bytes(text)) for text in self.files.values())


def script(source: str) -> Program:
    """Return the program that is this one file."""
    return Program({"main.py": source}, "main.py")


def refuse_too_long(program: Program) -> SandboxResult | None:
    """Return what comes of a program longer than MAX_PROGRAM_BYTES without running it; None = it is not too long."""
    if program.size_bytes <= MAX_PROGRAM_BYTES:
        return None
    return SandboxResult("failed", -1, "", f"the program is longer than {MAX_PROGRAM_BYTES} bytes", 0.0)


def require_runnable(tests: Program) -> None:
    """Raise GradingError when the tests are longer than MAX_TESTS_BYTES: that is not the answer's fault."""
    if tests.size_bytes > MAX_TESTS_BYTES:
        raise GradingError(f"the tests cannot be run here: they are longer than {MAX_TESTS_BYTES} bytes")


def as_bytes(text: str) -> bytes:
    """Encode what a program is made of; what UTF-8 cannot hold becomes a question mark."""
    return text.encode("utf-8", errors="replace")


class Sandbox(Protocol):
    """Something that runs untrusted Python."""

    @property
    def kind(self) -> SandboxKind:
        """Which one it is."""
        ...

    def problem(self) -> str:
        """Why it does not work here, empty when it does. May start a program to find out."""
        ...

    async def run(self, program: Program, *, stdin: str, limits: SandboxLimits, renewals: int = 0) -> SandboxResult:
        """Run a program. Whatever it does is told in the result; cancelling the call kills it.

        `renewals`: how often a line of standard output sets the wall clock to zero again, where the sandbox can do so.
        Raises :class:`SandboxUnavailable` when the sandbox itself fails.
        """
        ...

    async def run_pair(self, tests: Program, answer: Program, *, limits: SandboxLimits) -> SandboxResult:
        """Run tests in one interpreter and the answer in another, each reading what the other writes.

        The result is that of the tests; what they report stands on its standard error.
        Raises :class:`SandboxUnavailable` when the sandbox itself fails, and GradingError when the tests are too long.
        """
        ...
