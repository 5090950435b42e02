"""The endpoints of /v1/models."""

from typing import Annotated

from fastapi import APIRouter, Path

from ...schemas.chat_answers import ModelList, ModelObject
from ..access import AnyCaller, TheServices
from ..error_answers import LOOKING, error_answers
from ..models import ServedModel, served_model, served_models

router = APIRouter(prefix="/v1/models", tags=["models"])


@router.get("", responses=error_answers(400, 401, 403, 503))
async def list_models(caller: AnyCaller, services: TheServices) -> ModelList:
    """List the model names: k2think's own, then the backends' models for single samples."""
    return ModelList(data=tuple(_object(model) for model in served_models(services.settings)))


@router.get("/{model:path}", responses=error_answers(*LOOKING))
async def get_model(
    model: Annotated[str, Path(max_length=500, description="Name, slashes included.")],
    caller: AnyCaller,
    services: TheServices,
) -> ModelObject:
    """Look at one."""
    return _object(served_model(model, services.settings))


def _object(model: ServedModel) -> ModelObject:
    return ModelObject(id=model.name, owned_by=model.owner)
