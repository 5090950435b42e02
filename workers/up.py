"""`k2think up`: the whole stack in the foreground, each role a child process."""

import contextlib
import signal
from collections.abc import Callable
from importlib.util import find_spec

import redis
import structlog

from ..schemas.errors import BrokerUnavailable
from ..schemas.settings import Settings
from ..store.migrate import upgrade
from .children import Child
from .durability import require_durable_broker, require_durable_database
from .logs import configure_logs
from .redis_server import broker_url_of, redis_child, socket_path, wait_until_up
from .stack import StackLock, k2think_command, prepare_data_dir
from .supervisor import BackgroundSupervisor, Supervisor

UP_ROLES = ("safety", "planner", "generator", "verifier", "intake")
GRACE_S = 10.0
"""Seconds on top of K2THINK_SHUTDOWN_S before a child that will not stop is killed."""
log = structlog.stdlib.get_logger(__name__)


def run_up(settings: Settings, *, check_gateway: Callable[[Settings], None]) -> int:
    """Run the whole stack until SIGINT or SIGTERM; return the exit code. Raises ConfigurationError, StoreFull.

    `check_gateway` raises what would keep the gateway from starting, before anything is started.
    """
    configure_logs(settings, role="up")
    folder = prepare_data_dir(settings)
    lock = StackLock(folder)
    lock.acquire()
    try:
        upgrade(settings.sqlalchemy_url)
        require_durable_database(settings)
        if settings.broker_url is not None:
            with contextlib.suppress(BrokerUnavailable, redis.RedisError, OSError):  # the children wait for it
                require_durable_broker(settings)
        with_gateway = find_spec("fastapi") is not None and find_spec("uvicorn") is not None
        if with_gateway:
            check_gateway(settings)
        environment: dict[str, str] = {}
        keeper: BackgroundSupervisor | None = None
        if settings.broker_url is None:
            socket_path(folder).unlink(missing_ok=True)
            environment["K2THINK_BROKER_URL"] = broker_url_of(socket_path(folder))
            redis_server = redis_child(folder)
            # The embedded Redis outlives the workers, so that they can drain; so it has a keeper of its own.
            keeper = BackgroundSupervisor(redis_server, stop_timeout_s=GRACE_S)
            keeper.start()
            wait_until_up(redis_server, folder)
        children = [Child(role, k2think_command("worker", role), environment) for role in UP_ROLES]
        children += [
            Child(f"generator.{name}", k2think_command("worker", "generator", "--backend", name), environment)
            for name in settings.backends
            if name != settings.generator.backend  # the generators of the role have it
        ]
        children.append(Child("sweeper", k2think_command("sweeper"), environment))
        if with_gateway:
            children.append(Child("gateway", k2think_command("gateway"), environment))
        else:
            log.warning("no_gateway", hint="the HTTP doors are not installed: pip install 'k2think[gateway]'")
        supervisor = Supervisor(children, stop_timeout_s=settings.shutdown_s + GRACE_S)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, supervisor.stop)
        try:
            return supervisor.run()
        finally:
            if keeper is not None:
                keeper.stop()
    finally:
        lock.release()
