"""/v1/jobs: the native way to submit, follow, cancel and look at jobs."""

from .endpoints import router

__all__ = ["router"]
