"""The command line: `k2think solve`, `batch`, `up`, `worker`, `jobs`, … Exit codes: see `exits.py`."""

from .app import app, main

__all__ = ["app", "main"]
