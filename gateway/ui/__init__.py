"""The trace page at /ui: what ran, how long it took, and why an answer came out. Rendered here; no build step.

`pages.py` has the endpoints, `login.py` those for signing in; `run_view.py` and its neighbours turn a trace into what the
templates show.
"""

from fastapi import APIRouter

from .login import router as login_router
from .pages import router as pages_router

router = APIRouter()
router.include_router(login_router)
# Last: it answers whatever lies below /ui.
router.include_router(pages_router)

__all__ = ["router"]
