"""/health/live, /health/ready and /metrics: for those who run it."""

from fastapi import APIRouter

router = APIRouter(tags=["operations"])

__all__ = ["router"]
