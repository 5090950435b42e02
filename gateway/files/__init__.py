"""/v1/files: uploads, what batches wrote, and their content."""

from .endpoints import router

__all__ = ["router"]
