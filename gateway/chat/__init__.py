"""/v1/models and /v1/chat/completions."""

from fastapi import APIRouter

from .completions import router as completions_router
from .models import router as models_router

router = APIRouter()
router.include_router(models_router)
router.include_router(completions_router)

__all__ = ["router"]
