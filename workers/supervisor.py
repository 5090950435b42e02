"""Keeping child processes alive: restarted with back-off when they die, drained when told to stop."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from .children import Child

BACKOFF_FIRST_S = 0.5
BACKOFF_MAX_S = 15.0
HEALTHY_S = 10.0
POLL_S = 0.1
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

    def __init__(self, children: list[Child], *, stop_timeout_s: float, healthy_s: float = HEALTHY_S) -> None:
        """`healthy_s`: a child that ran this long starts again without back-off."""
        self._healthy_s = healthy_s
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
        log.info("draining", hint="running steps get a few seconds, then they are handed back")
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
        if now - watched.started_at >= self._healthy_s:
            watched.backoff_s = BACKOFF_FIRST_S
        log.warning("died", child=watched.child.name, exit_code=code, restart_in_s=watched.backoff_s)
        watched.restart_at = now + watched.backoff_s
        watched.backoff_s = min(2 * watched.backoff_s, BACKOFF_MAX_S)


class BackgroundSupervisor:
    """A supervisor in a thread of its own."""

    def __init__(self, child: Child, *, stop_timeout_s: float, on_cannot_run: Callable[[], None] | None = None) -> None:
        """`on_cannot_run` is called, in that thread, when the child says that its settings cannot work."""
        self._child = child
        self._supervisor = Supervisor([child], stop_timeout_s=stop_timeout_s)
        self._on_cannot_run = on_cannot_run
        self._thread = threading.Thread(target=self._run, name=f"k2think-keep-{child.name}", daemon=True)

    def start(self) -> None:
        """Start the child and keep it; returns when its process exists."""
        self._thread.start()
        while self._child.process is None and self._thread.is_alive():
            time.sleep(0.005)

    def stop(self) -> None:
        """Drain it and wait for its end."""
        self._supervisor.stop()
        self._thread.join()

    def _run(self) -> None:
        if self._supervisor.run() == USAGE_EXIT_CODE and self._on_cannot_run is not None:
            self._on_cannot_run()
