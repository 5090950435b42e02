"""`k2think gateway`: one process that serves the HTTP doors. Run as many as you need behind a balancer."""

import socket
import time

import structlog
import uvicorn

from ..schemas.errors import ConfigurationError
from ..schemas.settings import GatewaySettings, Settings
from ..store.database import Database
from ..store.deliveries import check_webhook_settings
from ..store.keys import any_valid_key
from ..workers.file_limit import allow_many_files
from ..workers.logs import configure_logs
from ..workers.queues import broker_url
from ..workers.schema import wait_for_schema
from ..workers.telemetry import telemetry
from .access import is_loopback
from .app import create_app
from .protocol import HEAD_BYTES_MAX, PunctualProtocol

BACKLOG = 2048
CONNECTIONS_MAX = 10_000
"""Open connections, and requests being answered, beyond which a process says 503."""
KEEP_ALIVE_S = 30
"""Seconds that an idle connection is kept."""
DRAIN_S = 5
"""Seconds that open requests get after SIGTERM; a stream that is cut off can be resumed or asked for again."""
log = structlog.stdlib.get_logger(__name__)


def run_gateway(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT. Raises ConfigurationError and SchemaMismatch before anything is served."""
    configure_logs(settings, role="gateway")
    telemetry().start(settings, role="gateway")
    broker_url(settings)
    check_webhook_settings(settings)
    wait_for_schema(settings)
    _require_key(settings)
    allow_many_files()
    listener = _listen(settings.gateway)
    host, port = listener.getsockname()[:2]
    config = uvicorn.Config(
        create_app(settings),
        log_config=None,
        access_log=False,
        server_header=False,
        http=PunctualProtocol,
        ws="none",
        lifespan="on",
        limit_concurrency=CONNECTIONS_MAX,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=DRAIN_S,
        h11_max_incomplete_event_size=HEAD_BYTES_MAX,
    )
    log.info("gateway_started", url=f"http://{host}:{port}/v1", page=f"http://{host}:{port}/ui")
    try:
        uvicorn.Server(config).run(sockets=[listener])
    finally:
        telemetry().stop()
    log.info("gateway_stopped")
    return 0


def _require_key(settings: Settings) -> None:
    """An address that other machines can reach wants a key. Raises ConfigurationError while there is none."""
    host = settings.gateway.host
    if is_loopback(host):
        return
    database = Database(settings.sqlalchemy_url)
    try:
        known = database.read_sync(lambda connection: any_valid_key(connection, now=time.time()))
    finally:
        database.close()
    if not known:
        raise ConfigurationError(
            f"the gateway would listen on {host}, which other machines may reach, and no valid API key exists: make one "
            "with `k2think keys create`, or set K2THINK_GATEWAY__HOST to 127.0.0.1"
        )


def _listen(gateway: GatewaySettings) -> socket.socket:
    family = socket.AF_INET6 if ":" in gateway.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((gateway.host, gateway.port))
        listener.listen(BACKLOG)
    except OSError as exc:
        listener.close()
        raise ConfigurationError(
            f"the gateway cannot listen on {gateway.host} port {gateway.port} ({exc.strerror or exc}): "
            "set K2THINK_GATEWAY__HOST or K2THINK_GATEWAY__PORT (0 = any free port)"
        ) from exc
    return listener
