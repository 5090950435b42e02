"""gVisor: a kernel in user space between the program and ours. Slower to start than bubblewrap, and a wall more.

Each program is an OCI container of its own: an empty root, Python's folders read-only, no network, a scratch folder.
`runsc do` would be simpler and shows the program all of the host's files.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from ...schemas.sandbox_settings import SandboxKind
from ..seccomp import CLONE_THREAD, REFUSED_NAMES
from .base import DEFAULT_LIMITS, Program, SandboxLimits, as_bytes, script
from .local import (
    CODE_FOLDER,
    CPU_SPARE_S,
    ENVIRONMENT,
    OPEN_FILES_MAX,
    PACKAGES_FOLDER,
    SCRATCH,
    Command,
    LocalSandbox,
    readable_folders,
    start_words,
)

PROBE_TIMEOUT_S = 60.0
PLATFORM = "ptrace"
"""How it catches system calls. Works without /dev/kvm and in every release; `systrap`, the newer one, is not in the older."""

_PROBE = """
import ctypes, errno, os, threading
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall(435, 0, 0)
clone3 = errno.errorcode[ctypes.get_errno()]
try:
    thread = threading.Thread(target=int)
    thread.start()
    thread.join()
    threads = True
except RuntimeError:
    threads = False
try:
    pid = os.fork()
    if not pid:
        os._exit(0)
except OSError:
    pid = 0
print("threads" if threads else "no threads", "processes" if pid or clone3 != "ENOSYS" and threads else "no processes")
"""
_WANTED = b"threads no processes"


class GVisorSandbox(LocalSandbox):
    """Runs each program in a `runsc` of its own."""

    def __init__(self, *, packages: Path | None = None) -> None:
        self._packages = packages
        self._problem: str | None = None
        self._clone3 = True
        """Whether the filter names clone3: releases that lack the call also answer EPERM for any refusal, which ends threads."""

    @property
    def kind(self) -> SandboxKind:
        """Which one it is."""
        return SandboxKind.gvisor

    def problem(self) -> str:
        """Why it does not work here, empty when it does. Tried once."""
        if self._problem is None:
            self._problem = self._try()
        return self._problem

    def _try(self) -> str:
        if shutil.which("runsc") is None:
            return "the program runsc (gVisor) is not installed; gvisor.dev tells how, and Debian has it: `apt-get install runsc`"
        said = ""
        for self._clone3 in (True, False):
            try:
                said = self._probe()
            except (OSError, subprocess.TimeoutExpired) as exc:
                return f"runsc cannot run: {exc}"
            if not said:
                return ""
        return f"runsc cannot create a sandbox here ({said})"

    def _probe(self) -> str:
        """Run a program in which threads must work and new processes must not; return what was wrong."""
        with tempfile.TemporaryDirectory(prefix="k2gvisor-", ignore_cleanup_errors=True) as name:
            words = self._bundle(Path(name), script(_PROBE), DEFAULT_LIMITS)
            done = subprocess.run(
                words, stdin=subprocess.DEVNULL, capture_output=True, timeout=PROBE_TIMEOUT_S, check=False, env={}
            )
        if done.returncode == 0 and done.stdout.strip() == _WANTED:
            return ""
        said = (done.stderr.strip() or done.stdout.strip()).decode(errors="replace")
        return said[:300] or f"exit status {done.returncode}"

    @asynccontextmanager
    async def command(self, program: Program, limits: SandboxLimits) -> AsyncGenerator[Command]:
        """Return the command line; its folder, with the program's files, goes away in the end."""
        with tempfile.TemporaryDirectory(prefix="k2gvisor-", ignore_cleanup_errors=True) as name:
            yield Command(self._bundle(Path(name), program, limits))

    def _bundle(self, folder: Path, program: Program, limits: SandboxLimits) -> list[str]:
        """Write the container's folder and return the command that runs it."""
        folder.chmod(0o755)  # the program is another user
        root = folder / "root"
        for name in (CODE_FOLDER, SCRATCH, "/proc", "/etc", PACKAGES_FOLDER, *readable_folders()):
            (root / name.lstrip("/")).mkdir(parents=True, exist_ok=True)
        for name in ("lib", "lib32", "lib64", "bin", "sbin"):
            if os.path.islink(f"/{name}"):
                (root / name).symlink_to(os.readlink(f"/{name}"))
        for name, text in program.files.items():
            (root / CODE_FOLDER.lstrip("/") / name).write_bytes(as_bytes(text))
        (folder / "config.json").write_text(json.dumps(self._config(root, program, limits)))
        (folder / "state").mkdir()
        return [
            shutil.which("runsc") or "runsc", f"--root={folder / 'state'}", "--rootless", "--network=none",
            f"--platform={PLATFORM}", "--ignore-cgroups", "--oci-seccomp",
            "run", f"--bundle={folder}", f"k2think-{uuid.uuid4().hex}",
        ]  # fmt: skip

    def _config(self, root: Path, program: Program, limits: SandboxLimits) -> dict[str, Any]:
        bounds = {
            "RLIMIT_CPU": limits.cpu_s + CPU_SPARE_S, "RLIMIT_AS": limits.memory_bytes, "RLIMIT_NPROC": limits.threads,
            "RLIMIT_FSIZE": limits.disk_bytes, "RLIMIT_NOFILE": OPEN_FILES_MAX, "RLIMIT_CORE": 0,
        }  # fmt: skip
        mounts = [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": SCRATCH, "type": "tmpfs", "source": "tmpfs", "options": [f"size={limits.disk_bytes}"]},
        ]
        shown = {folder: folder for folder in readable_folders()}
        shown |= {f"/{name}": f"/{name}" for name in ("lib", "lib32", "lib64", "bin", "sbin") if _is_folder(f"/{name}")}
        if self._packages is not None:
            shown[PACKAGES_FOLDER] = str(self._packages)
        mounts += [
            {"destination": inside, "type": "bind", "source": outside, "options": ["ro", "rbind"]}
            for inside, outside in shown.items()
        ]
        nothing: dict[str, list[str]] = {
            kind: [] for kind in ("bounding", "effective", "inheritable", "permitted", "ambient")
        }
        return {
            "ociVersion": "1.0.2",
            "hostname": "sandbox",
            "root": {"path": str(root), "readonly": True},
            "process": {
                "terminal": False,
                "user": {"uid": 65534, "gid": 65534},
                "args": start_words(program, limits, packages=self._packages),
                "env": [f"{name}={value}" for name, value in ENVIRONMENT.items()],
                "cwd": SCRATCH,
                "capabilities": nothing,
                "noNewPrivileges": True,
                "rlimits": [{"type": kind, "hard": value, "soft": value} for kind, value in bounds.items()],
            },
            "mounts": mounts,
            "linux": {
                "namespaces": [{"type": kind} for kind in ("pid", "ipc", "uts", "mount", "network")],
                "seccomp": _seccomp(clone3=self._clone3),
            },
        }


def _is_folder(name: str) -> bool:
    return os.path.isdir(name) and not os.path.islink(name)


def _seccomp(*, clone3: bool) -> dict[str, Any]:
    """Return the filter; sockets need none, they end in gVisor's own network stack."""
    refusal = {"action": "SCMP_ACT_ERRNO", "errnoRet": errno.EPERM}
    new_process = [{"index": 0, "value": CLONE_THREAD, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]
    calls: list[dict[str, Any]] = [
        {"names": list(REFUSED_NAMES), **refusal},
        {"names": ["clone"], "args": new_process, **refusal},
    ]
    if clone3:
        calls.append({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno.ENOSYS})
    return {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": calls}
