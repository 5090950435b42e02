"""Bounded pools of worker processes for checks that may hang, with a wall-clock limit that really ends the work.

The children are separate programs (``python -m k2think.grading.symbolic``) and not forks: the caller may run threads
and an event loop. Each belongs to one daemon thread of the pool. A check that exceeds its limit costs its
process, which is replaced on the next request; a process that got no processor time is waited for a while longer. Children end with their parent: their standard input closes, and a
CPU limit ends one that is too busy to notice.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import queue
import selectors
import subprocess
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

from ..schemas.errors import GradingError

BOOT_LIMIT_S = 60.0
"""Seconds in which a child must have imported sympy; about one on an idle machine."""
MEMORY_BYTES = 1 << 30
"""Address space of one child."""
PATIENCE = 5
"""A child that was kept from running is waited for, this many limits in all: a busy machine is not the answer's fault."""
BUSY_SHARE = 0.6
"""A child that has had this part of its limit as processor time has had its chance."""
CRASH_TRIES = 2
"""A child that dies on a check without being killed is replaced and asked again, this many tries in all."""

Verdict = TypeVar("Verdict")


class _ChildDied(Exception):
    """The child closed its pipe without answering."""


class _OutOfTime(Exception):
    """The child was killed because its time was over."""


class _Child:
    """One running worker program."""

    def __init__(self, module: str, needs: str, memory_bytes: int, boot_limit_s: float) -> None:
        search_path = os.pathsep.join(path for path in sys.path if path)
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-B", "-m", module, str(memory_bytes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={
                "PYTHONPATH": search_path,
                "PYTHONHASHSEED": "0",
                "OMP_NUM_THREADS": "1",
                "OPENBLAS_NUM_THREADS": "1",
                "LC_ALL": "C.UTF-8",
            },  # no secrets, same verdicts every time
            bufsize=0,
        )
        self._buffer = b""
        try:
            if self._read_line(boot_limit_s) != {"ready": True}:
                raise _ChildDied
        except (_ChildDied, _OutOfTime) as exc:
            self.kill()
            raise GradingError(
                f"the grading process {module} did not start within {boot_limit_s:g} s "
                f"(exit status {self._process.returncode}): {needs}"
            ) from exc

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(self, request: dict[str, Any], limit_s: float) -> dict[str, Any]:
        stdin = self._process.stdin
        if stdin is None:
            raise _ChildDied
        try:
            stdin.write(json.dumps(request).encode() + b"\n")
        except OSError as exc:
            raise _ChildDied from exc
        before = self._processor_s()
        for _ in range(PATIENCE - 1):
            try:
                return self._read_line(limit_s)
            except _OutOfTime:
                if self._processor_s() - before >= BUSY_SHARE * limit_s:
                    raise
        return self._read_line(limit_s)

    def _processor_s(self) -> float:
        """Seconds of processor time so far; where the system does not tell, those of a child that never waits."""
        try:
            with open(f"/proc/{self.pid}/stat", encoding="ascii", errors="replace") as file:
                fields = file.read().rpartition(")")[2].split()
            return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        except (OSError, IndexError, ValueError):
            return time.monotonic()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self.forget()

    def forget(self) -> None:
        """Close our ends of the pipes; an idle child then ends by itself."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()

    def _read_line(self, limit_s: float) -> dict[str, Any]:
        stdout = self._process.stdout
        if stdout is None:
            raise _ChildDied
        deadline = time.monotonic() + limit_s
        with selectors.DefaultSelector() as selector:
            selector.register(stdout, selectors.EVENT_READ)
            while b"\n" not in self._buffer:
                left = deadline - time.monotonic()
                if left <= 0 or not selector.select(left):
                    raise _OutOfTime
                chunk = os.read(stdout.fileno(), 65536)
                if not chunk:
                    raise _ChildDied
                self._buffer += chunk
        line, self._buffer = self._buffer.split(b"\n", 1)
        return json.loads(line)


class WorkerPool(ABC, Generic[Verdict]):
    """Up to `processes` children that run `module`, started on first need. Safe to use from any thread.

    A child is given the bytes of memory it may use as its argument, says ``{"ready": true}``, and then answers one JSON
    object a line with one; ``{"memory": true}`` says that memory ran out, after which it ends.
    """

    def __init__(
        self,
        module: str,
        *,
        needs: str,
        processes: int = 1,
        memory_bytes: int = MEMORY_BYTES,
        boot_limit_s: float = BOOT_LIMIT_S,
    ) -> None:
        self._module = module
        self._needs = needs
        self._processes = processes
        self._memory_bytes = memory_bytes
        self._boot_limit_s = boot_limit_s
        self._jobs: queue.SimpleQueue[tuple[dict[str, Any], float, Future[Verdict]] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._children: dict[int, _Child] = {}
        self._waiting = 0
        self._closed = False

    @abstractmethod
    def verdict(self, reply: dict[str, Any]) -> Verdict:
        """Read what a child replied, ``{"timeout": true}`` where it was ended, or ``{"memory": true}``."""

    def ask(self, request: dict[str, Any], limit_s: float) -> Future[Verdict]:
        """Hand `request` to a child.

        The future raises :class:`GradingError` when the child cannot start or dies twice on it. Cancelling it works
        while it waits for a free process.
        """
        request = {**request, "limit_s": limit_s}
        future: Future[Verdict] = Future()
        with self._lock:
            if self._closed:
                raise GradingError("the grading pool is closed")
            self._waiting += 1
            if len(self._threads) < min(self._processes, self._waiting):
                thread = threading.Thread(
                    target=self._run, args=(len(self._threads),), name="k2think-grading", daemon=True
                )
                self._threads.append(thread)
                thread.start()
        self._jobs.put((request, limit_s, future))
        return future

    def pids(self) -> list[int]:
        """Process ids of the children that run now."""
        with self._lock:
            return [child.pid for child in self._children.values()]

    def close(self) -> None:
        """End the children. Checks still waiting fail with :class:`GradingError`."""
        with self._lock:
            self._closed = True
            children, threads = list(self._children.values()), list(self._threads)
        for _ in threads:
            self._jobs.put(None)
        for child in children:
            child.kill()
        for thread in threads:
            thread.join(timeout=5)

    def after_fork(self) -> None:
        """In a forked copy of the process: let go of children that belong to the original."""
        for child in self._children.values():
            child.forget()

    def _run(self, slot: int) -> None:
        while (job := self._jobs.get()) is not None:
            request, limit_s, future = job
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(self.verdict(self._answer(slot, request, limit_s)))
                except GradingError as exc:
                    future.set_exception(exc)
                except Exception as exc:  # a waiting caller must hear of a fault in here, whatever it is
                    future.set_exception(GradingError(f"the grading pool failed: {type(exc).__name__}: {exc}"))
            with self._lock:
                self._waiting -= 1

    def _answer(self, slot: int, request: dict[str, Any], limit_s: float) -> dict[str, Any]:
        for _ in range(CRASH_TRIES):
            child = self._child(slot)
            try:
                reply = child.ask(request, limit_s)
            except _OutOfTime:
                self._drop(slot)
                return {"timeout": True}
            except _ChildDied:
                self._drop(slot)
                continue
            if reply.get("memory"):
                self._drop(slot)
            return reply
        raise GradingError(f"the grading process {self._module} died {CRASH_TRIES} times on the same answer")

    def _child(self, slot: int) -> _Child:
        child = self._children.get(slot)
        if child is None:
            if self._closed:
                raise GradingError("the grading pool is closed")
            child = _Child(self._module, self._needs, self._memory_bytes, self._boot_limit_s)
            with self._lock:
                self._children[slot] = child
                closed = self._closed
            if closed:
                self._drop(slot)
                raise GradingError("the grading pool is closed")
        return child

    def _drop(self, slot: int) -> None:
        with self._lock:
            child = self._children.pop(slot, None)
        if child is not None:
            child.kill()


Pool = TypeVar("Pool", bound=WorkerPool[Any])


class SharedPool(Generic[Pool]):
    """The pool of this process: made on first need, ended at exit, let go of in a forked copy."""

    def __init__(self, make: Callable[[], Pool]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._pool: Pool | None = None
        atexit.register(self.close)
        os.register_at_fork(after_in_child=self._forget)

    def get(self) -> Pool:
        """Return the pool."""
        with self._lock:
            if self._pool is None:
                self._pool = self._make()
            return self._pool

    def close(self) -> None:
        """End its children now; the next `get` makes a new pool."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.close()

    def _forget(self) -> None:
        self._lock = threading.Lock()  # it may have been held by a thread that does not exist in the fork
        if self._pool is not None:
            self._pool.after_fork()
        self._pool = None
