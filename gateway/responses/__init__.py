"""/v1/responses: an answer now, or in the background and fetched later."""

from fastapi import APIRouter

router = APIRouter(prefix="/v1/responses", tags=["responses"])

__all__ = ["router"]
