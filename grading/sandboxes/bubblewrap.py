"""bubblewrap: namespaces of the host's kernel. No network, no files of ours, no new processes, everything bounded.

What it does not promise: it shares the host's kernel, so a kernel exploit escapes it. Threads are bounded by
RLIMIT_NPROC only when the caller is not root. The scratch folder's bytes are bounded, its number of empty files is not:
a service manager's or container's memory limit bounds what those cost the kernel.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from ...schemas.sandbox_settings import SandboxKind
from ..seccomp import filter_program
from .base import DEFAULT_LIMITS, Program, SandboxLimits, as_bytes
from .local import (
    CODE_FOLDER,
    ENVIRONMENT,
    PACKAGES_FOLDER,
    SCRATCH,
    Command,
    LocalSandbox,
    interpreter,
    readable_folders,
    start_words,
)

PROBE_TIMEOUT_S = 20.0


class BubblewrapSandbox(LocalSandbox):
    """Runs each program in a `bwrap` of its own."""

    def __init__(self, *, packages: Path | None = None) -> None:
        self._packages = packages
        self._problem: str | None = None

    @property
    def kind(self) -> SandboxKind:
        """Which one it is."""
        return SandboxKind.bubblewrap

    def problem(self) -> str:
        """Why it does not work here, empty when it does. Tried once."""
        if self._problem is None:
            self._problem = self._try()
        return self._problem

    def _try(self) -> str:
        binary = shutil.which("bwrap")
        if binary is None:
            return "the program bwrap (bubblewrap) is not installed; install it (Debian, Ubuntu: `apt-get install bubblewrap`)"
        try:
            probe = subprocess.run(
                [*self._words(binary, DEFAULT_LIMITS), "--", interpreter(), "-I", "-B", "-c", "print(42)"],
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

    @asynccontextmanager
    async def command(self, program: Program, limits: SandboxLimits) -> AsyncGenerator[Command]:
        """Return the command line; the program's files live in memory."""
        with contextlib.ExitStack() as files:
            words, descriptors = self._words(shutil.which("bwrap") or "bwrap", limits), list[int]()
            for name, text in program.files.items():
                descriptors.append(_memory_file(as_bytes(text), files))
                words += ["--ro-bind-data", str(descriptors[-1]), f"{CODE_FOLDER}/{name}"]
            # The root and /dev are file systems in memory, too: writable ones would have no size.
            words += ["--remount-ro", "/dev", "--remount-ro", "/"]
            if (refused := filter_program()) is not None:
                descriptors.append(_memory_file(refused, files))
                words += ["--seccomp", str(descriptors[-1])]
            words += ["--", *start_words(program, limits, packages=self._packages)]
            yield Command(words, tuple(descriptors))

    def _words(self, binary: str, limits: SandboxLimits) -> list[str]:
        words = [
            binary, "--unshare-all", "--die-with-parent", "--new-session", "--clearenv", "--cap-drop", "ALL",
            "--uid", "65534", "--gid", "65534", "--hostname", "sandbox",
        ]  # fmt: skip
        for name, value in ENVIRONMENT.items():
            words += ["--setenv", name, value]
        for folder in readable_folders():
            words += ["--ro-bind", folder, folder]
        if self._packages is not None:
            words += ["--ro-bind", str(self._packages), PACKAGES_FOLDER]
        for name in ("/lib", "/lib32", "/lib64", "/bin", "/sbin"):
            if os.path.islink(name):
                words += ["--symlink", os.readlink(name), name]
            elif os.path.isdir(name):
                words += ["--ro-bind", name, name]
        words += ["--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache"]
        words += ["--proc", "/proc", "--dev", "/dev"]
        return [*words, "--size", str(limits.disk_bytes), "--tmpfs", SCRATCH, "--chdir", SCRATCH]


def _memory_file(content: bytes, files: contextlib.ExitStack) -> int:
    fd = os.memfd_create("k2think")
    files.callback(os.close, fd)
    view = memoryview(content)
    while view:
        view = view[os.write(fd, view) :]
    os.lseek(fd, 0, os.SEEK_SET)
    return fd
