"""/health/live, /health/ready and /metrics: for those who run it."""

from .endpoints import router

__all__ = ["router"]
