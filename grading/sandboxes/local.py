"""What the sandboxes of this machine share: start one program or two, watch their time and output, end everything."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Generator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path

from ...schemas.errors import SandboxUnavailable
from .base import Outcome, Program, SandboxLimits, SandboxResult, refuse_too_long, require_runnable

OPEN_FILES_MAX = 64
INPUT_CLOSES_S = 1.0
CPU_SPARE_S = 1
"""CPU seconds beyond the limit after which the kernel ends a program; the wall clock usually comes first."""
SCRATCH = "/tmp"  # noqa: S108  the sandbox's own, empty
CODE_FOLDER = "/code"
PACKAGES_FOLDER = "/packages"
ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "LANG": "C.UTF-8",
    "HOME": SCRATCH,
    "OPENBLAS_NUM_THREADS": "1",  # one buffer for each thread would fill the address space
    "OMP_NUM_THREADS": "1",
}
"""All of the environment that a program sees."""
_READ_BYTES = 65_536

# The first that runs inside. It binds its own process, which can never loosen that again, and becomes the program: in
# the same interpreter, since a second one would cost as much as most answers, and in a namespace that shows no trace of it.
# -S leaves out the packages of the machine's Python, and what they run at each start; `exit` and `quit` are put back.
_START = """\
def _start():
    import resource as r, site, sys
    site.setquit()
    kinds = (r.RLIMIT_CPU, r.RLIMIT_AS, r.RLIMIT_NPROC, r.RLIMIT_FSIZE, r.RLIMIT_NOFILE, r.RLIMIT_CORE)
    for kind, value in zip(kinds, map(int, sys.argv[1:7])):
        r.setrlimit(kind, (value, value))
    if sys.argv[7]:
        sys.path.append(sys.argv[7])
    del sys.argv[:8]
    space = sys.modules['__main__'].__dict__
    del space['_start']
    space['__file__'] = sys.argv[0]
    with open(sys.argv[0], 'rb') as file:
        source = file.read()
    exec(compile(source, sys.argv[0], 'exec'), space)
_start()
"""


@dataclass(frozen=True, slots=True)
class Command:
    """How a sandboxed program is started."""

    words: list[str]
    """The command line."""
    descriptors: tuple[int, ...] = ()
    """Open files that it inherits."""


class LocalSandbox(ABC):
    """A sandbox that is a program of this machine. Its kinds say how the command line is made, and whether it works."""

    @abstractmethod
    def command(self, program: Program, limits: SandboxLimits) -> AbstractAsyncContextManager[Command]:
        """Return how `program` is started; what that needs is cleared away at the end of the context."""

    async def run(self, program: Program, *, stdin: str, limits: SandboxLimits, renewals: int = 0) -> SandboxResult:
        """Run one program; see :class:`~.base.Sandbox`."""
        if (refused := refuse_too_long(program)) is not None:
            return refused
        started = time.monotonic()
        async with self.command(program, limits) as command:
            running = await _Running.start(command, limits, asyncio.subprocess.PIPE, asyncio.subprocess.PIPE)
            return await running.result(stdin.encode("utf-8", errors="replace"), started, renewals)

    async def run_pair(self, tests: Program, answer: Program, *, limits: SandboxLimits) -> SandboxResult:
        """Run tests and answer, each in a sandbox of its own; see :class:`~.base.Sandbox`."""
        require_runnable(tests)
        if (refused := refuse_too_long(answer)) is not None:
            return refused
        started = time.monotonic()
        async with contextlib.AsyncExitStack() as stack:
            asked = await stack.enter_async_context(self.command(answer, limits))
            asking = await stack.enter_async_context(self.command(tests, limits))
            to_answer, to_tests = stack.enter_context(_pipe()), stack.enter_context(_pipe())
            other = await _Running.start(asked, limits, to_answer.read, to_tests.write)
            watching: asyncio.Task[SandboxResult] | None = None
            try:
                running = await _Running.start(asking, limits, to_tests.read, to_answer.write)
                for end in (to_answer, to_tests):  # else neither would see that the other has ended
                    end.close()
                watching = asyncio.create_task(other.result(b"", started))
                return await running.result(b"", started)
            finally:
                other.kill()
                await (watching if watching is not None else other.result(b"", started))


class _Running:
    """A started program: its pipes are read to their ends, its clock runs, and nothing of it stays."""

    def __init__(self, process: asyncio.subprocess.Process, limits: SandboxLimits) -> None:
        self._process = process
        self._limits = limits
        self._handle = -1
        with contextlib.suppress(OSError):  # it may have ended already, and kernels before 5.3 have no such handles
            self._handle = os.pidfd_open(process.pid)
        self._out, self._err = bytearray(), bytearray()
        self._lines = asyncio.Event()
        self._too_much = False

    @classmethod
    async def start(cls, command: Command, limits: SandboxLimits, stdin: int, stdout: int) -> _Running:
        try:
            process = await asyncio.create_subprocess_exec(
                *command.words, stdin=stdin, stdout=stdout, stderr=asyncio.subprocess.PIPE,
                pass_fds=command.descriptors, env={},
            )  # fmt: skip
        except OSError as exc:
            raise SandboxUnavailable(f"code was not run: {command.words[0]} cannot be started: {exc}") from exc
        return cls(process, limits)

    def kill(self) -> None:
        """End the sandbox's own program; what is inside dies with it.

        Not by `Process.kill` where it can be helped: that looks whether it has ended, and so takes its exit status from asyncio.
        """
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                if self._handle >= 0:
                    signal.pidfd_send_signal(self._handle, signal.SIGKILL)
                else:
                    self._process.kill()

    async def result(self, stdin: bytes, started: float, renewals: int = 0) -> SandboxResult:
        """Wait for the end, or bring it about."""
        feeding = asyncio.create_task(self._feed(stdin))
        reading = asyncio.gather(
            self._collect(self._process.stdout, self._out, marks=True), self._collect(self._process.stderr, self._err)
        )
        ending = asyncio.ensure_future(self._end(reading))
        timed_out = False
        try:
            timed_out = not await self._in_time(ending, renewals)
        finally:
            self.kill()
            feeding.cancel()
            await asyncio.gather(feeding, ending, return_exceptions=True)
            await self._close_input()
            if self._handle >= 0:
                os.close(self._handle)
                self._handle = -1
        outcome: Outcome
        code = -1 if self._process.returncode is None else self._process.returncode
        if timed_out:
            outcome, code = "timeout", -1
        elif self._too_much:
            outcome, code = "output_limit", -1
        else:
            outcome = "ok" if code == 0 else "failed"
        return SandboxResult(outcome, code, _text(self._out), _text(self._err), time.monotonic() - started)

    async def _in_time(self, ending: asyncio.Future[None], renewals: int) -> bool:
        while True:
            self._lines.clear()
            line = asyncio.ensure_future(self._lines.wait())
            try:
                waited_for = {ending, line} if renewals else {ending}
                done, _ = await asyncio.wait(
                    waited_for, timeout=self._limits.wall_s, return_when=asyncio.FIRST_COMPLETED
                )
            finally:
                line.cancel()
            if ending in done or not done:
                return ending in done
            renewals -= 1

    async def _end(self, reading: Awaitable[object]) -> None:
        await reading
        await self._process.wait()

    async def _feed(self, stdin: bytes) -> None:
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # a program need not read its input
                self._process.stdin.write(stdin)
                await self._process.stdin.drain()
            self._process.stdin.close()

    async def _close_input(self) -> None:
        """Close the pipe even where the program left its input unread: the caller's event loop may end next."""
        stdin = self._process.stdin
        if stdin is None:
            return
        if not stdin.is_closing():
            stdin.transport.abort()
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(INPUT_CLOSES_S):
                await stdin.wait_closed()

    async def _collect(self, stream: asyncio.StreamReader | None, buffer: bytearray, *, marks: bool = False) -> None:
        """Read to the end; more than the limit kills the program.

        It goes on reading then: asyncio reports a process as ended only after its pipes were read to their ends.
        """
        limit = self._limits.output_bytes
        while stream is not None and (chunk := await stream.read(_READ_BYTES)):
            if len(buffer) + len(chunk) > limit:
                self._too_much = True
                self.kill()
            buffer += chunk[: limit - len(buffer)]
            if marks and b"\n" in chunk:
                self._lines.set()


@dataclass(slots=True)
class _Pipe:
    """Both ends of a pipe."""

    read: int
    write: int
    closed: bool = False

    def close(self) -> None:
        """Close both ends, once."""
        if not self.closed:
            self.closed = True
            os.close(self.read)
            os.close(self.write)


@contextlib.contextmanager
def _pipe() -> Generator[_Pipe]:
    pipe = _Pipe(*os.pipe())
    try:
        yield pipe
    finally:
        pipe.close()


def start_words(program: Program, limits: SandboxLimits, *, packages: Path | None) -> list[str]:
    """Return the command inside the sandbox."""
    bounds = (
        limits.cpu_s + CPU_SPARE_S, limits.memory_bytes, limits.threads, limits.disk_bytes, OPEN_FILES_MAX, 0,
    )  # fmt: skip
    return [
        interpreter(), "-I", "-S", "-B", "-c", _START, *map(str, bounds), PACKAGES_FOLDER if packages else "",
        f"{CODE_FOLDER}/{program.main}", *program.arguments,
    ]  # fmt: skip


def interpreter() -> str:
    """Return the real binary of the running Python: a virtual environment's link would point outside the sandbox."""
    return os.path.realpath(sys.executable)


def readable_folders() -> list[str]:
    """Return /usr and the running interpreter's prefix (its standard library; not the virtual environment's packages)."""
    prefix = Path(sys.base_prefix).resolve()
    return ["/usr"] if prefix.is_relative_to("/usr") else ["/usr", str(prefix)]


def _text(raw: bytearray) -> str:
    return raw.decode("utf-8", errors="replace")
