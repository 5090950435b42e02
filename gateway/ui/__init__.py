"""The trace page at /ui: what ran, how long it took, and why an answer came out. Rendered here; no build step.

`pages.py` has the endpoints, `run_view.py` and its neighbours turn a trace into what the templates show.
"""

from .pages import router

__all__ = ["router"]
