"""The FastAPI application: routers, errors, limits on what is read."""

import contextlib
from collections.abc import AsyncGenerator

from fastapi import APIRouter, FastAPI

from .. import __version__
from ..schemas.settings import Settings
from .errors import install_error_handlers
from .jobs import router as jobs_router
from .services import open_services

ROUTERS: tuple[APIRouter, ...] = (jobs_router,)
"""All endpoints, by subject."""


def create_app(settings: Settings) -> FastAPI:
    """Return the application. It connects when it starts to serve, not before."""

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        async with open_services(settings) as services:
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
    for router in ROUTERS:
        app.include_router(router)
    return app
