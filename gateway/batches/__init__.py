"""/v1/batches, and the work on them in every gateway process."""

from fastapi import APIRouter

router = APIRouter(prefix="/v1/batches", tags=["batches"])

__all__ = ["router"]
