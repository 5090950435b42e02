"""Child processes that never outlive us: started with a death signal, stopped in order, found dead at once."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

_PR_SET_PDEATHSIG = 1


def _die_with_parent() -> Callable[[], None] | None:
    """A function for the forked child: ask Linux for SIGTERM when the parent dies. None elsewhere."""
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None)

    def ask() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)

    return ask


_DIE_WITH_PARENT = _die_with_parent()


@dataclass(slots=True)
class Child:
    """A command and its current process."""

    name: str
    """Name in logs."""
    command: list[str]
    """Program and arguments."""
    environment: dict[str, str] = field(default_factory=dict[str, str])
    """Variables on top of our own environment."""
    output: Path | None = None
    """File that takes standard output and error; None = ours."""
    whole_group: bool = False
    """Whether what it started itself, and left behind, is killed when it has ended."""
    process: "subprocess.Popen[bytes] | None" = None
    group: int | None = None
    """Process group that is still to be ended; None = there is none."""

    def start(self) -> None:
        """Start the process, in a session of its own so that Ctrl-C reaches only us."""
        stream: IO[bytes] | None = self.output.open("ab") if self.output is not None else None
        try:
            self.process = subprocess.Popen(
                self.command,
                env={**os.environ, **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                start_new_session=True,
                preexec_fn=_DIE_WITH_PARENT,
            )
            self.group = self.process.pid if self.whole_group else None
        finally:
            if stream is not None:
                stream.close()

    @property
    def pid(self) -> int | None:
        """Process id; None = never started."""
        return self.process.pid if self.process is not None else None

    def exit_code(self) -> int | None:
        """Exit code of an ended process; None = it runs."""
        code = self.process.poll() if self.process is not None else None
        if code is not None:
            self._end_group()
        return code

    def terminate(self) -> None:
        """Ask it to end."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()

    def wait(self, timeout_s: float) -> None:
        """Wait for its end; kill it when that takes too long."""
        if self.process is None:
            return
        try:
            self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._end_group()

    def _end_group(self) -> None:
        # Once: when all its processes are gone, the number may become another group's.
        group, self.group = self.group, None
        if group is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(group, signal.SIGKILL)
