"""Which sandbox runs code here: the one that is set, or the first that works; and how many programs run at once."""

from __future__ import annotations

import asyncio
import functools
import os
import weakref
from pathlib import Path

from ...schemas.errors import SandboxUnavailable
from ...schemas.sandbox_settings import SandboxKind, SandboxSettings
from .base import Program, Sandbox, SandboxLimits, SandboxResult
from .bubblewrap import BubblewrapSandbox
from .fusion import FusionSandbox
from .gvisor import GVisorSandbox

NEVER_BARE = "k2think never runs generated code outside a sandbox"


class BoundedSandbox:
    """A sandbox in which a bounded number of programs runs at once; the others wait their turn."""

    def __init__(self, sandbox: Sandbox, concurrency: int) -> None:
        self._sandbox = sandbox
        self.concurrency = concurrency
        """Programs at once, in each event loop; a pair is two of them and takes one turn."""
        self._turns: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = (
            weakref.WeakKeyDictionary()
        )

    @property
    def kind(self) -> SandboxKind:
        """Which one it is."""
        return self._sandbox.kind

    def problem(self) -> str:
        """Why it does not work here, empty when it does."""
        return self._sandbox.problem()

    async def run(self, program: Program, *, stdin: str, limits: SandboxLimits, renewals: int = 0) -> SandboxResult:
        """Run one program; see :class:`~.base.Sandbox`. Waiting for a turn is not the program's time."""
        async with self._turn():
            return await self._sandbox.run(program, stdin=stdin, limits=limits, renewals=renewals)

    async def run_pair(self, tests: Program, answer: Program, *, limits: SandboxLimits) -> SandboxResult:
        """Run tests and answer; see :class:`~.base.Sandbox`. Waiting for a turn is not the program's time."""
        async with self._turn():
            return await self._sandbox.run_pair(tests, answer, limits=limits)

    def _turn(self) -> asyncio.Semaphore:
        return self._turns.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(self.concurrency))


def candidates(settings: SandboxSettings) -> list[Sandbox]:
    """Return the sandboxes that the settings allow, in the order in which they are tried; each remembers whether it works."""
    kinds = [kind for kind in SandboxKind if kind is not SandboxKind.auto]
    if settings.kind is not SandboxKind.auto:
        kinds = [settings.kind]
    elif settings.url is None:
        kinds.remove(SandboxKind.fusion)
    return [_made(kind, settings.packages_dir, settings.url or "") for kind in kinds]


@functools.cache
def _made(kind: SandboxKind, packages: Path | None, url: str) -> Sandbox:
    if kind is SandboxKind.fusion:
        return FusionSandbox(url)
    return (GVisorSandbox if kind is SandboxKind.gvisor else BubblewrapSandbox)(packages=packages)


def choose(settings: SandboxSettings, *, ask: bool = True) -> BoundedSandbox:
    """Return the sandbox to be used. Raises :class:`SandboxUnavailable` with the reasons when none works.

    `ask`: whether a SandboxFusion server is asked if it is there, which takes as long as it takes. Else each run tells.
    """
    problems: list[str] = []
    if settings.packages_dir is not None and not settings.packages_dir.is_dir():
        raise SandboxUnavailable(
            f"code was not run: K2THINK_SANDBOX__PACKAGES_DIR is {settings.packages_dir}, which is not a folder; make it with "
            f"`pip install --target {settings.packages_dir} numpy`, or leave the variable out"
        )
    for sandbox in candidates(settings):
        taken_as_given = sandbox.kind is SandboxKind.fusion and not ask
        if taken_as_given or not (problem := sandbox.problem()):
            return BoundedSandbox(sandbox, settings.concurrency or os.cpu_count() or 1)
        problems.append(problem)
    raise SandboxUnavailable(f"code was not run: {'; '.join(problems)}. {NEVER_BARE}")


@functools.cache
def configured() -> BoundedSandbox:
    """Return the sandbox of this process, by its settings, tried once. Raises :class:`SandboxUnavailable`."""
    from ...schemas.settings import load_settings

    return choose(load_settings().sandbox, ask=False)
