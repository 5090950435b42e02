"""The endpoints of /v1/batches."""

from typing import Annotated

from fastapi import APIRouter, Header, Path, Query

from ...schemas.batches import BatchBody, BatchList, BatchObject
from ...store import batches
from ..access import AnyCaller, Creator, TheServices
from ..error_answers import CREATING, LOOKING, error_answers

PAGE_MAX = 100

router = APIRouter(prefix="/v1/batches", tags=["batches"])

BatchId = Annotated[str, Path(max_length=100, description="Id of the batch.")]


@router.post("", responses=error_answers(*CREATING, 404))
async def create_batch(
    body: BatchBody,
    caller: Creator,
    services: TheServices,
    idempotency_key: Annotated[
        str | None, Header(min_length=1, max_length=255, description="The same key brings back the same batch.")
    ] = None,
) -> BatchObject:
    """Create a batch from an uploaded file. Its lines are checked, then run; look at it to see how far it is."""
    found, _new = await services.database.run(
        lambda connection: batches.create_batch(
            connection,
            body,
            services.settings,
            tenant=caller.tenant,
            now=services.database.now(),
            idempotency_key=idempotency_key,
        )
    )
    return found


@router.get("", responses=error_answers(400, 401, 403, 503))
async def list_batches(
    caller: AnyCaller,
    services: TheServices,
    after: Annotated[
        str | None, Query(max_length=100, description="Last batch of the page before: older ones follow.")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=PAGE_MAX, description="Batches at most.")] = 20,
) -> BatchList:
    """List batches, newest first."""
    found = await services.database.read(
        lambda connection: batches.list_batches(connection, caller.tenant, limit=limit + 1, after=after)
    )
    page = found[:limit]
    first, last = (page[0].id, page[-1].id) if page else (None, None)
    return BatchList(data=page, first_id=first, last_id=last, has_more=len(found) > limit)


@router.get("/{batch_id}", responses=error_answers(*LOOKING))
async def get_batch(batch_id: BatchId, caller: AnyCaller, services: TheServices) -> BatchObject:
    """Look at a batch."""
    return await services.database.read(lambda connection: batches.get_batch(connection, caller.tenant, batch_id))


@router.post("/{batch_id}/cancel", responses=error_answers(*LOOKING))
async def cancel_batch(batch_id: BatchId, caller: AnyCaller, services: TheServices) -> BatchObject:
    """Ask for a batch's end. What has an answer is kept; it is `cancelled` once its files are written."""
    return await services.database.run(
        lambda connection: batches.cancel_batch(connection, caller.tenant, batch_id, now=services.database.now())
    )
