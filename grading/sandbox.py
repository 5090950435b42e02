"""Run untrusted Python in a sandbox, or not at all: no network, no files of ours, bounded time, memory and output.

There is no fallback. Where no sandbox works, :class:`SandboxUnavailable` says why and nothing runs. Which ones there
are, what each promises and what it does not: docs/sandbox.md.
"""

from __future__ import annotations

from ..schemas.errors import SandboxUnavailable
from .sandboxes.base import DEFAULT_LIMITS, Program, SandboxLimits, SandboxResult, script
from .sandboxes.choice import BoundedSandbox, configured

__all__ = [
    "DEFAULT_LIMITS",
    "Program",
    "SandboxLimits",
    "SandboxResult",
    "require_sandbox",
    "run_code",
    "sandbox_problem",
]


def require_sandbox() -> BoundedSandbox:
    """Return the sandbox that works here; raises :class:`SandboxUnavailable` otherwise."""
    return configured()


def sandbox_problem() -> str:
    """Why no sandbox works here, empty when one does."""
    try:
        require_sandbox()
    except SandboxUnavailable as exc:
        return str(exc)
    return ""


async def run_code(source: str, *, stdin: str = "", limits: SandboxLimits = DEFAULT_LIMITS) -> SandboxResult:
    """Run the Python program `source` with `stdin` on standard input.

    Raises :class:`SandboxUnavailable` when no sandbox works here. Whatever the program does is told in the result.
    Cancelling the call kills the program.
    """
    return await require_sandbox().run(script(source), stdin=stdin, limits=limits)
