"""What a process needs to talk to jobs: a served broker, the database, and the submit path."""

import contextlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from ..schemas.settings import Settings
from ..store.database import Database, database_of
from .coordinator import Coordinator
from .dispatcher import Dispatcher
from .logs import quiet_logs
from .queues import broker_url
from .submit import Submitter


@dataclass(frozen=True, slots=True)
class Session:
    """Open while a command, or a run of an evaluation, goes on."""

    settings: Settings
    database: Database
    submitter: Submitter


@contextlib.asynccontextmanager
async def open_session(settings: Settings) -> AsyncGenerator[Session]:
    """Connect a client. `settings` must name a broker that is served (see `workers.stack.running_stack`)."""
    quiet_logs()
    database = database_of(settings)
    dispatcher = Dispatcher(broker_url(settings))
    coordinator = Coordinator(database, dispatcher)
    try:
        yield Session(settings, database, Submitter(settings, coordinator))
    finally:
        await coordinator.settle()
        dispatcher.close()
        database.close()
