"""Run untrusted Python in a bubblewrap sandbox: no network, no files of ours, no new processes, bounded everything.

There is no fallback. Where bubblewrap is missing or may not create namespaces, :class:`SandboxUnavailable` says so and
nothing runs.

What the sandbox does not promise: it shares the host's kernel, so a kernel exploit escapes it. Threads are bounded by
RLIMIT_NPROC only when the caller is not root.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..schemas.errors import SandboxUnavailable
from .seccomp import no_new_processes

PROBE_TIMEOUT_S = 10.0
MAX_SOURCE_BYTES = 1_000_000
START_SPARE_S = 1.0
"""CPU seconds beyond the limit after which the kernel ends a program; the wall clock usually comes first."""
_PROGRAM = "/code/main.py"
_SCRATCH = "/tmp"  # noqa: S108  the sandbox's own, empty
_READ_BYTES = 65_536

# Runs inside: limits first, then the program in a fresh interpreter, isolated from environment and user site.
_LAUNCHER = (
    "import os,resource as r,sys\n"
    "for kind,value in zip((r.RLIMIT_CPU,r.RLIMIT_AS,r.RLIMIT_NPROC,r.RLIMIT_FSIZE,r.RLIMIT_NOFILE,r.RLIMIT_CORE),map(int,sys.argv[1:])):\n"
    "    r.setrlimit(kind,(value,value))\n"
    f"os.execv(sys.executable,[sys.executable,'-I','-B','{_PROGRAM}'])\n"
)


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
    """Seconds that it took, the sandbox's own start (~20 ms) included."""


@functools.cache
def sandbox_problem() -> str:
    """Why no sandbox works here, empty when one does. Tried once per process."""
    binary = shutil.which("bwrap")
    if binary is None:
        return (
            "the program bwrap (bubblewrap) is not installed; install it (Debian, Ubuntu: `apt-get install bubblewrap`)"
        )
    try:
        probe = subprocess.run(
            [*_command(binary, DEFAULT_LIMITS), "--", _interpreter(), "-I", "-B", "-c", "print(42)"],
            stdin=subprocess.DEVNULL, capture_output=True, timeout=PROBE_TIMEOUT_S, check=False, env={},
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as exc:
        return f"bwrap cannot run: {exc}"
    if probe.returncode != 0 or probe.stdout.strip() != b"42":
        said = probe.stderr.decode(errors="replace").strip()[:300]
        return (
            f"bwrap cannot create a sandbox here ({said or f'exit status {probe.returncode}'}); allow unprivileged user "
            "namespaces (sysctl kernel.unprivileged_userns_clone=1; in Docker a seccomp and AppArmor profile that permits them)"
        )
    return ""


def require_sandbox() -> str:
    """Path of a bwrap that works; raises :class:`SandboxUnavailable` otherwise."""
    problem = sandbox_problem()
    if problem:
        raise SandboxUnavailable(f"code was not run: {problem}. k2think never runs generated code outside a sandbox")
    return shutil.which("bwrap") or "bwrap"


async def run_code(source: str, *, stdin: str = "", limits: SandboxLimits = DEFAULT_LIMITS) -> SandboxResult:
    """Run the Python program `source` with `stdin` on standard input.

    Raises :class:`SandboxUnavailable` when no sandbox works here. Whatever the program does is told in the result.
    Cancelling the call kills the program.
    """
    binary = require_sandbox()
    code = source.encode("utf-8", errors="replace")
    if len(code) > MAX_SOURCE_BYTES:
        return SandboxResult("failed", -1, "", f"the program is longer than {MAX_SOURCE_BYTES} bytes", 0.0)
    started = time.monotonic()
    with contextlib.ExitStack() as files:
        code_fd = _memory_file(code, files)
        arguments = ["--ro-bind-data", str(code_fd), _PROGRAM]
        inherited = [code_fd]
        if (filter_program := no_new_processes()) is not None:
            inherited.append(_memory_file(filter_program, files))
            arguments += ["--seccomp", str(inherited[-1])]
        bounds = (
            int(limits.cpu_s + START_SPARE_S), limits.memory_bytes, limits.threads, limits.disk_bytes, 64, 0,
        )  # fmt: skip
        process = await asyncio.create_subprocess_exec(
            *_command(binary, limits), *arguments, "--", _interpreter(), "-I", "-B", "-c", _LAUNCHER, *map(str, bounds),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            pass_fds=inherited, env={},
        )  # fmt: skip
    return await _supervise(process, stdin.encode("utf-8", errors="replace"), limits, started)


async def _supervise(
    process: asyncio.subprocess.Process, stdin: bytes, limits: SandboxLimits, started: float
) -> SandboxResult:
    out, err = bytearray(), bytearray()
    feeding = asyncio.create_task(_feed(process, stdin))
    reading = asyncio.gather(
        _collect(process, process.stdout, out, limits.output_bytes),
        _collect(process, process.stderr, err, limits.output_bytes),
    )
    timed_out = False
    try:
        async with asyncio.timeout(limits.wall_s):
            await asyncio.shield(reading)
            await process.wait()
    except TimeoutError:
        timed_out = True
    finally:
        _kill(process)
        feeding.cancel()
        await asyncio.gather(feeding, reading, return_exceptions=True)
        await process.wait()
    outcome: Outcome
    exit_code = -1 if process.returncode is None else process.returncode
    if timed_out:
        outcome, exit_code = "timeout", -1
    elif not all(reading.result()):
        outcome, exit_code = "output_limit", -1
    else:
        outcome = "ok" if exit_code == 0 else "failed"
    return SandboxResult(
        outcome, exit_code, out.decode(errors="replace"), err.decode(errors="replace"), time.monotonic() - started
    )


def _kill(process: asyncio.subprocess.Process) -> None:
    """End bwrap; the sandbox's first process dies with it, and everything inside with that."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.kill()


async def _feed(process: asyncio.subprocess.Process, stdin: bytes) -> None:
    if process.stdin is not None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # a program need not read its input
            process.stdin.write(stdin)
            await process.stdin.drain()
        process.stdin.close()


async def _collect(
    process: asyncio.subprocess.Process, stream: asyncio.StreamReader | None, buffer: bytearray, limit: int
) -> bool:
    """Read to the end; False when there was more than `limit`, which kills the program.

    It goes on reading then: asyncio reports a process as ended only after its pipes were read to their ends.
    """
    within = True
    while stream is not None and (chunk := await stream.read(_READ_BYTES)):
        if len(buffer) + len(chunk) > limit:
            within = False
            _kill(process)
        buffer += chunk[: limit - len(buffer)]
    return within


def _memory_file(content: bytes, files: contextlib.ExitStack) -> int:
    fd = os.memfd_create("k2think")
    files.callback(os.close, fd)
    view = memoryview(content)
    while view:
        view = view[os.write(fd, view) :]
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def _interpreter() -> str:
    """The real binary of the running Python: a virtual environment's link would point outside the sandbox."""
    return os.path.realpath(sys.executable)


def _command(binary: str, limits: SandboxLimits) -> list[str]:
    command = [
        binary, "--unshare-all", "--die-with-parent", "--new-session", "--clearenv", "--cap-drop", "ALL",
        "--uid", "65534", "--gid", "65534", "--hostname", "sandbox",
        "--setenv", "PATH", "/usr/bin:/bin", "--setenv", "LANG", "C.UTF-8", "--setenv", "HOME", _SCRATCH,
    ]  # fmt: skip
    for folder in _readable_folders():
        command += ["--ro-bind", folder, folder]
    for name in ("/lib", "/lib32", "/lib64", "/bin", "/sbin"):
        if os.path.islink(name):
            command += ["--symlink", os.readlink(name), name]
        elif os.path.isdir(name):
            command += ["--ro-bind", name, name]
    command += ["--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache"]
    command += ["--proc", "/proc", "--dev", "/dev"]
    return [*command, "--size", str(limits.disk_bytes), "--tmpfs", _SCRATCH, "--chdir", _SCRATCH]


def _readable_folders() -> Sequence[str]:
    """/usr and the running interpreter's prefix (its standard library; not the virtual environment's packages)."""
    prefix = Path(sys.base_prefix).resolve()
    return ["/usr"] if prefix.is_relative_to("/usr") else ["/usr", str(prefix)]
