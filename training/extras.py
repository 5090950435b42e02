"""Commands that need an extra say so before anything is begun."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

import typer

MISSING_EXTRA_EXIT = 2


def require(modules: Sequence[str], extra: str) -> None:
    """End the command with a line that names what is not installed, and the extra that brings it."""
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        typer.echo(f"Error: missing: {', '.join(missing)}; install with: pip install 'k2think[{extra}]'", err=True)
        raise typer.Exit(MISSING_EXTRA_EXIT)
