"""/v1/batches, and the work on them in every gateway process."""

from .endpoints import router

__all__ = ["router"]
