"""The FastAPI application: routers, errors, limits on what is read."""

import contextlib
from collections.abc import AsyncGenerator

from fastapi import APIRouter, Depends, FastAPI
from fastapi.responses import RedirectResponse

from .. import __version__
from ..schemas.settings import Settings
from .access import KeyFirst
from .background import background
from .batches import router as batches_router
from .body import BodyLimits
from .chat import router as chat_router
from .document import document
from .errors import install_error_handlers
from .files import router as files_router
from .jobs import router as jobs_router
from .observe import Observe
from .operations import router as operations_router
from .queries import refuse_unknown_parameters
from .responses import router as responses_router
from .services import open_services
from .ui import router as ui_router

ROUTERS: tuple[APIRouter, ...] = (
    chat_router,
    responses_router,
    files_router,
    batches_router,
    jobs_router,
    operations_router,
    ui_router,
)
"""All endpoints, by subject."""


def create_app(settings: Settings) -> FastAPI:
    """Return the application. It connects when it starts to serve, not before."""

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        async with open_services(settings) as services, background(services):
            app.state.services = services
            yield

    app = FastAPI(
        title="k2think",
        version=__version__,
        summary="Plan, sample, verify, screen: reasoning behind an OpenAI-compatible door.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    app.state.settings = settings
    install_error_handlers(app)
    app.add_middleware(BodyLimits, bytes_max=settings.gateway.body_bytes_max)
    app.add_middleware(KeyFirst)
    app.add_middleware(Observe)  # the last one is the outermost
    for router in ROUTERS:
        strict = [] if router in (operations_router, ui_router) else [Depends(refuse_unknown_parameters)]
        app.include_router(router, dependencies=strict)
    # Whoever opens the address that the log names wants to see something.
    app.add_api_route("/", lambda: RedirectResponse("/ui", 307), include_in_schema=False)
    app.openapi = document(app)  # pyright: ignore[reportAttributeAccessIssue]
    return app
