"""`k2think worker ROLE` and `k2think sweeper`: the processes that operators run and scale."""

import asyncio
import signal
import warnings

import structlog
from celery.platforms import SecurityWarning
from celery.signals import setup_logging, worker_shutting_down

from ..schemas.settings import Settings
from ..store.database import database_of
from ..store.deliveries import check_webhook_settings
from .app import create_app
from .coordinator import Coordinator
from .dispatcher import Dispatcher
from .durability import BrokerCheck, wait_for_database
from .ending import end_in_time, end_tasks
from .file_limit import allow_many_files
from .logs import configure_logs
from .pool import pool_class
from .presence import Presence, process_id
from .queues import broker_url, result_backend_url, role_queues
from .replies import Replies
from .runtime import Runtime
from .sweeper import Sweeper
from .tasks import register_door, register_steps
from .telemetry import telemetry
from .webhooks import WebhookSender

ROLES = ("planner", "generator", "verifier", "safety", "intake", "all")
log = structlog.stdlib.get_logger(__name__)


def run_worker(settings: Settings, *, role: str, backend: str | None = None, concurrency: int | None = None) -> int:
    """Run one worker until it is told to stop (SIGTERM: drain and hand back); return its exit code.

    Raises ConfigurationError and SchemaMismatch before anything is started. Waits for the database and for Redis.
    """
    configure_logs(settings, role=role)
    telemetry().start(settings, role=role)
    allow_many_files()
    if backend is None and settings.generator.backend in settings.backends:
        backend = str(settings.generator.backend)
    names = () if backend is None else settings.names_of(backend)
    app = create_app(settings, queues=role_queues(role, names=names))
    wait_for_database(settings)
    runtime = Runtime(settings, role=role, backend=backend, concurrency=concurrency)
    if role != "intake":
        register_steps(app, runtime.runner)
    if role in ("intake", "all"):
        register_door(app, runtime.door)
    setup_logging.connect(_keep_our_logging, weak=False)

    def on_shutdown(**_: object) -> None:
        end_in_time(settings)

    worker_shutting_down.connect(on_shutdown, weak=False)
    warnings.simplefilter("ignore", SecurityWarning)  # running as root endangers pickle messages; ours are JSON only
    worker = app.Worker(
        pool=pool_class(runtime),
        concurrency=runtime.concurrency,
        hostname=runtime.worker,
        loglevel=settings.log_level.upper(),
        quiet=True,
        without_heartbeat=True,
        without_gossip=True,
        without_mingle=True,
    )
    try:
        with BrokerCheck(settings):
            worker.start()
    finally:
        telemetry().stop()
    return int(worker.exitcode or 0) or int(runtime.engine_died)


def run_sweeper(settings: Settings) -> int:
    """Run a sweeper until SIGTERM or SIGINT."""
    configure_logs(settings, role="sweeper")
    telemetry().start(settings, role="sweeper")
    broker_url(settings)
    check_webhook_settings(settings)
    wait_for_database(settings)
    try:
        with BrokerCheck(settings):
            return asyncio.run(_sweep(settings))
    finally:
        telemetry().stop()


async def _sweep(settings: Settings) -> int:
    database = database_of(settings)
    dispatcher = Dispatcher(broker_url(settings))
    coordinator = Coordinator(database, dispatcher, Replies(result_backend_url(settings)))
    presence = Presence(settings, database, worker=process_id("sweeper"), role="sweeper")
    presence.start()
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()

    def stop(*_: object) -> None:
        loop.call_soon_threadsafe(stopping.set)

    for number in (signal.SIGTERM, signal.SIGINT):
        # Not by the loop's own means: it takes its handlers away when it ends, and a further signal would be a crash.
        signal.signal(number, stop)
    sweeping = loop.create_task(Sweeper(settings, coordinator).run())
    sending = loop.create_task(WebhookSender(settings, database).run())
    told = loop.create_task(stopping.wait())
    log.info("sweeper_started")
    ended, _ = await asyncio.wait((told, sweeping, sending), return_when=asyncio.FIRST_COMPLETED)
    end_in_time(settings)
    await end_tasks(told, sweeping, sending)
    await coordinator.settle()
    await presence.close()
    dispatcher.close()
    database.close()
    for task in ended:
        task.result()  # raises what ended it by itself
    log.info("sweeper_stopped")
    return 0


def _keep_our_logging(**_: object) -> None:
    """Connected to Celery's signal, this keeps it from setting up logging of its own."""
