"""/v1/responses: an answer now, or in the background and fetched later."""

from .endpoints import router

__all__ = ["router"]
