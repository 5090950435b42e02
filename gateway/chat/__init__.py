"""/v1/models and /v1/chat/completions."""

from fastapi import APIRouter

router = APIRouter(prefix="/v1", tags=["chat"])

__all__ = ["router"]
