"""What every endpoint needs, made once per process. Nothing in here is state that a second gateway would miss."""

import contextlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass

import redis.asyncio
from fastapi import Request

from ..schemas.settings import Settings
from ..store.database import Database, database_of
from ..workers.coordinator import Coordinator
from ..workers.dispatcher import Dispatcher
from ..workers.queues import broker_url
from ..workers.redis_clients import async_redis_client
from ..workers.submit import Submitter
from .directory import Directory

REDIS_TIMEOUT_S = 2.0


@dataclass(frozen=True, slots=True)
class Services:
    """Open while the process serves."""

    settings: Settings
    database: Database
    submitter: Submitter
    coordinator: Coordinator
    directory: Directory
    """Keys and tenants."""
    redis: "redis.asyncio.Redis"
    """For counters only: whatever is in it may be lost."""


@contextlib.asynccontextmanager
async def open_services(settings: Settings) -> AsyncGenerator[Services]:
    """Connect. Raises ConfigurationError without a broker."""
    database = database_of(settings)
    dispatcher = Dispatcher(broker_url(settings))
    coordinator = Coordinator(database, dispatcher)
    client = async_redis_client(
        broker_url(settings), socket_timeout=REDIS_TIMEOUT_S, socket_connect_timeout=REDIS_TIMEOUT_S
    )
    try:
        submitter = Submitter(settings, coordinator)
        async with submitter.bells.kept():
            yield Services(settings, database, submitter, coordinator, Directory(database), client)
    finally:
        await client.aclose()
        await coordinator.settle()
        dispatcher.close()
        database.close()


async def services_of(request: Request) -> Services:
    """Return the services of the application that serves this request (a FastAPI dependency).

    Not a plain function: FastAPI runs those in a thread, which costs a fifth of a request.
    """
    return request.app.state.services
