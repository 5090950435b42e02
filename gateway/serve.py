"""`k2think gateway`: one process that serves the HTTP doors. Run as many as you need behind a balancer."""

import asyncio
import signal
import socket
from typing import cast

import structlog
import uvicorn
from fastapi import FastAPI

from ..schemas.settings import Settings
from ..store.deliveries import check_webhook_settings
from ..workers.durability import BrokerCheck, wait_for_database
from ..workers.ending import end_in_time
from ..workers.file_limit import allow_many_files
from ..workers.logs import configure_logs
from ..workers.queues import broker_url
from ..workers.telemetry import telemetry
from .address import listen, require_key
from .app import create_app
from .protocol import HEAD_BYTES_MAX, PunctualProtocol

CONNECTIONS_MAX = 10_000
"""Open connections, and requests being answered, beyond which a process says 503."""
KEEP_ALIVE_S = 30
"""Seconds that an idle connection is kept."""
DRAIN_S = 5
"""Seconds that open requests get after SIGTERM to come to their own end."""
LEAVE_S = 3
"""Seconds after that in which those that still wait are told to ask again; what hangs even then is cut off."""
log = structlog.stdlib.get_logger(__name__)


class _Server(uvicorn.Server):
    """Ends requests that wait for a job in words, rather than by cutting their connection."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop to listen, let open requests end, then the application. Called by uvicorn after a signal."""
        app = cast(FastAPI, self.config.app)
        bells = app.state.services.submitter.bells
        end_in_time(app.state.settings)
        asyncio.get_running_loop().call_later(DRAIN_S, bells.stop_waiting)
        await super().shutdown(sockets)


def run_gateway(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT. Raises ConfigurationError and SchemaMismatch before anything is served."""
    configure_logs(settings, role="gateway")
    telemetry().start(settings, role="gateway")
    broker_url(settings)
    check_webhook_settings(settings)
    wait_for_database(settings)
    require_key(settings)
    allow_many_files()
    listener = listen(settings.gateway)
    host, port = listener.getsockname()[:2]
    config = uvicorn.Config(
        create_app(settings),
        log_config=None,
        access_log=False,
        server_header=False,
        http=PunctualProtocol,
        ws="none",
        forwarded_allow_ips=settings.gateway.trusted_proxies,
        lifespan="on",
        limit_concurrency=CONNECTIONS_MAX,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=DRAIN_S + LEAVE_S,
        h11_max_incomplete_event_size=HEAD_BYTES_MAX,
    )
    log.info("gateway_started", url=f"http://{host}:{port}/v1", page=f"http://{host}:{port}/ui")
    server = _Server(config)
    for number in (signal.SIGINT, signal.SIGTERM):
        # For the moments before uvicorn has its own handlers, and for the signal that it sends again at its end.
        signal.signal(number, server.handle_exit)
    try:
        with BrokerCheck(settings):
            server.run(sockets=[listener])
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # uvicorn gives its handler back
    finally:
        telemetry().stop()
    log.info("gateway_stopped")
    return 0
