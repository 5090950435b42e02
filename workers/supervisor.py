"""`k2think up`: the whole stack in the foreground, each role a child process that is restarted with back-off."""

import signal
import threading
import time
from dataclasses import dataclass

import structlog

from ..schemas.settings import Settings
from ..store.migrate import upgrade
from .children import Child
from .logs import configure_logs
from .redis_server import broker_url_of, redis_child, socket_path, wait_until_up
from .stack import StackLock, k2think_command, prepare_data_dir

UP_ROLES = ("safety", "planner", "generator", "verifier", "intake")
BACKOFF_FIRST_S = 0.5
BACKOFF_MAX_S = 15.0
HEALTHY_S = 10.0
"""A child that ran this long starts again without back-off."""
POLL_S = 0.1
GRACE_S = 10.0
"""Seconds on top of K2THINK_SHUTDOWN_S before a child that will not stop is killed."""
USAGE_EXIT_CODE = 2
log = structlog.stdlib.get_logger(__name__)


@dataclass(slots=True)
class _Watched:
    child: Child
    started_at: float = 0.0
    backoff_s: float = BACKOFF_FIRST_S
    restart_at: float | None = None


class Supervisor:
    """Keeps children alive until told to stop."""

    def __init__(self, children: list[Child], *, stop_timeout_s: float) -> None:
        self._watched = [_Watched(child) for child in children]
        self._stop_timeout_s = stop_timeout_s
        self._stopping = threading.Event()
        self._failed = 0

    def stop(self, *_: object) -> None:
        """Begin to drain; may be called from a signal handler."""
        self._stopping.set()

    def run(self) -> int:
        """Start all, watch until told to stop, drain; return the exit code.

        A child that says that its settings cannot work (exit code 2) ends the whole: restarting would not mend it.
        """
        for watched in self._watched:
            self._start(watched)
        while not self._stopping.wait(POLL_S):
            for watched in self._watched:
                self._check(watched)
        log.info("draining", hint="Ctrl-C again does not hurry it: running steps are handed back in a few seconds")
        for watched in self._watched:
            watched.child.terminate()
        deadline = time.monotonic() + self._stop_timeout_s
        for watched in self._watched:
            watched.child.wait(max(0.1, deadline - time.monotonic()))
        return self._failed

    def _start(self, watched: _Watched) -> None:
        watched.child.start()
        watched.started_at = time.monotonic()
        watched.restart_at = None
        log.info("started", child=watched.child.name, pid=watched.child.pid)

    def _check(self, watched: _Watched) -> None:
        now = time.monotonic()
        if watched.restart_at is not None:
            if now >= watched.restart_at:
                self._start(watched)
            return
        code = watched.child.exit_code()
        if code is None:
            return
        if code == USAGE_EXIT_CODE:
            log.error(
                "cannot_run",
                child=watched.child.name,
                hint="see its message above; `k2think doctor` checks all settings",
            )
            self._failed = USAGE_EXIT_CODE
            self._stopping.set()
            return
        if now - watched.started_at >= HEALTHY_S:
            watched.backoff_s = BACKOFF_FIRST_S
        log.warning("died", child=watched.child.name, exit_code=code, restart_in_s=watched.backoff_s)
        watched.restart_at = now + watched.backoff_s
        watched.backoff_s = min(2 * watched.backoff_s, BACKOFF_MAX_S)


def run_up(settings: Settings) -> int:
    """Run the whole stack until SIGINT or SIGTERM; return the exit code. Raises ConfigurationError, StoreFull."""
    configure_logs(settings, role="up")
    folder = prepare_data_dir(settings)
    lock = StackLock(folder)
    lock.acquire()
    try:
        upgrade(settings.sqlalchemy_url)
        children: list[Child] = []
        environment: dict[str, str] = {}
        redis_server: Child | None = None
        if settings.broker_url is None:
            socket_path(folder).unlink(missing_ok=True)
            redis_server = redis_child(folder)
            environment["K2THINK_BROKER_URL"] = broker_url_of(socket_path(folder))
        for role in UP_ROLES:
            children.append(Child(role, k2think_command("worker", role), environment))
        children.append(Child("sweeper", k2think_command("sweeper"), environment))
        supervisor = Supervisor(children, stop_timeout_s=settings.shutdown_s + GRACE_S)
        keeper = _RedisKeeper(redis_server, settings) if redis_server is not None else None
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, supervisor.stop)
        try:
            if keeper is not None:
                keeper.start()
            return supervisor.run()
        finally:
            if keeper is not None:
                keeper.stop()
    finally:
        lock.release()


class _RedisKeeper:
    """The embedded Redis outlives the workers, so that they can drain; so it has a keeper of its own."""

    def __init__(self, child: Child, settings: Settings) -> None:
        self._child = child
        self._folder = settings.data_dir
        self._supervisor = Supervisor([child], stop_timeout_s=GRACE_S)
        self._thread = threading.Thread(target=self._supervisor.run, name="k2think-redis-keeper", daemon=True)

    def start(self) -> None:
        """Start Redis and wait until it answers. Raises BrokerUnavailable."""
        self._thread.start()
        while self._child.process is None:
            time.sleep(0.01)
        wait_until_up(self._child, self._folder)

    def stop(self) -> None:
        """End it."""
        self._supervisor.stop()
        self._thread.join()
