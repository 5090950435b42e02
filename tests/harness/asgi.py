"""A gateway inside the test's own process: its application, started, and a client that needs no port."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
from k2think.gateway.app import create_app
from k2think.schemas.settings import Settings
from pydantic import SecretStr


def gateway_settings(folder: Path, *, database_url: str, broker_url: str, **fields: Any) -> Settings:
    """Settings of a gateway on these two services, whatever the environment says."""
    return Settings(
        _env_file=None,  # pyright: ignore[reportCallIssue]
        data_dir=folder,
        database_url=SecretStr(database_url),
        broker_url=SecretStr(broker_url),
        **fields,
    )


@asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """Start the application and yield a client of it; requests time out after 30 s."""
    app = create_app(settings)
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", timeout=30) as client:
            yield client
