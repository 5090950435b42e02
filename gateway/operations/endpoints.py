"""The endpoints of those who run it."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from ...schemas.errors import StoreUnavailable
from ...schemas.health import Alive, Health
from ..access import Monitor, TheServices
from ..error_answers import error_answers
from ..services import Services
from .metrics import CONTENT_TYPE, MAX_AGE_S, TIMEOUT_S, read_all, render
from .once import AskedOnce
from .readiness import Readiness

router = APIRouter(tags=["operations"])


class Operations:
    """What is shared by those who ask one gateway at the same time."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self.readiness = Readiness(services)
        self.scrape: AskedOnce[bytes] = AskedOnce(self._scrape, max_age_s=MAX_AGE_S)

    async def _scrape(self) -> bytes:
        reading = await read_all(self._services)
        # Hundreds of processes make a long text: others are answered meanwhile.
        return await asyncio.to_thread(render, reading)


async def operations_of(request: Request, services: TheServices) -> Operations:
    """Return the one of this application (a FastAPI dependency)."""
    if not hasattr(request.app.state, "operations"):
        request.app.state.operations = Operations(services)
    return request.app.state.operations


TheOperations = Annotated[Operations, Depends(operations_of)]


@router.get("/health/live")
async def live() -> Alive:
    """Whether the process answers. Asks nobody, needs no key: for whoever restarts processes."""
    return Alive()


@router.get(
    "/health/ready", responses={503: {"model": Health, "description": "Something that jobs need is not there."}}
)
async def ready(operations: TheOperations, response: Response) -> Health:
    """Whether requests are worth sending here. Needs no key: for load balancers."""
    health = await operations.readiness.look()
    response.status_code = 200 if health.ready else 503
    response.headers["Cache-Control"] = "no-store"
    return health


@router.get(
    "/metrics",
    response_class=Response,
    responses={
        200: {
            "description": "Prometheus' text format, of all processes together.",
            "content": {"text/plain": {"schema": {"type": "string"}}},
        },
        **error_answers(401, 403, 503),
    },
)
async def metrics(operations: TheOperations, _caller: Monitor) -> Response:
    """How the whole system is doing, from any gateway: scrape one, not each."""
    try:
        text = await operations.scrape.get(timeout_s=TIMEOUT_S)
    except TimeoutError as exc:
        raise StoreUnavailable(f"the database did not answer within {TIMEOUT_S:g} s") from exc
    return Response(text, media_type=CONTENT_TYPE)
