"""Our side of the race: `k2think up` as separate processes, and what each of them costs, from /proc."""

import os
import tempfile
from collections.abc import Generator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness.stack import RunningUp

from .postgres import running_postgres

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Stack:
    """A running stack."""

    up: RunningUp
    servers: Mapping[str, int]
    """Process ids of servers that are no child of `up`, by name."""

    def processes(self) -> dict[str, int]:
        """Process ids by name."""
        started = {line["child"]: line["pid"] for line in self.up.lines() if line.get("event") == "started"}
        return {"up": self.up.process.pid, **started, **self.servers}

    def cpu_s(self) -> dict[str, float]:
        """CPU seconds so far by name; those of child processes that nobody has a name for count for their parent."""
        named = self.processes()
        names = {pid: name for name, pid in named.items()}
        totals = dict.fromkeys(named, 0.0)
        parents = _parents()
        for pid in parents:
            owner: int | None = pid
            while owner is not None and owner not in names:
                owner = parents.get(owner)
            if owner is not None:
                totals[names[owner]] += _cpu_s(pid)
        return totals

    def peak_mb(self) -> dict[str, float]:
        """Most resident memory that each had so far."""
        return {name: _peak_mb(pid) for name, pid in self.processes().items()}


@contextmanager
def running_stack(database: str, engine_url: str, settings: Mapping[str, str]) -> Generator[Stack]:
    """Yield a stack on a fresh `sqlite` or `postgresql` database, with default settings but for `settings`."""
    with ExitStack() as resources:
        folder = Path(resources.enter_context(tempfile.TemporaryDirectory(prefix="k2race-")))
        environment = {
            "K2THINK_GENERATOR__BACKEND": "openai",
            "K2THINK_GENERATOR__BASE_URL": engine_url,
            "K2THINK_GENERATOR__MODEL": "simulated",
            "K2THINK_LEASE_S": "10",
            "K2THINK_HEARTBEAT_S": "2",
            **settings,
        }
        servers: dict[str, int] = {}
        if database == "postgresql":
            environment["K2THINK_DATABASE_URL"], servers["postgresql"] = resources.enter_context(running_postgres())
        up = RunningUp(folder, environment)
        resources.callback(up.stop)
        up.wait_for(lambda: up.count("worker_started") >= 5 and up.count("gateway_started") >= 1, "the start")
        yield Stack(up, servers)


def _parents() -> dict[int, int]:
    found: dict[int, int] = {}
    for name in os.listdir("/proc"):
        if name.isdecimal() and (fields := _stat(int(name))):
            found[int(name)] = int(fields[1])
    return found


def _cpu_s(pid: int) -> float:
    """User and system time of a process, and of its children that have ended."""
    fields = _stat(pid)
    return sum(int(value) for value in fields[11:15]) / _TICKS_PER_S if fields else 0.0


def _stat(pid: int) -> list[str]:
    """Fields of /proc/PID/stat from the third, the state, on; empty = the process has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _peak_mb(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("VmHWM")), 0.0)
