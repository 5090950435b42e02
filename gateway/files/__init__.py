"""/v1/files: uploads, what batches wrote, and their content."""

from fastapi import APIRouter

router = APIRouter(prefix="/v1/files", tags=["files"])

__all__ = ["router"]
