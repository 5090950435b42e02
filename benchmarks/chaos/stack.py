"""The stack of a chaos run: services of its own, a proxy before each, and every role a child that is restarted."""

import asyncio
import json
import math
import os
import random
import secrets
import shutil
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import psycopg
import redis.asyncio
import structlog
from clock import Clocks, find_library
from conftest import PostgresServer
from harness.stack import free_port
from k2think.agents.backends.simulator import SimulatedEngine, SimulatedServer, SolvingResponder
from k2think.gateway.keys import new_key
from k2think.schemas.doors import KeyScope
from k2think.store.database import Database
from k2think.store.keys import Key, add_key
from k2think.store.migrate import upgrade
from k2think.workers.children import Child
from k2think.workers.redis_server import find_binary
from k2think.workers.stack import k2think_command
from k2think.workers.supervisor import Supervisor
from model import Model
from proxy import Proxy
from small_disk import mount_small

ROLES = {
    "full": ("safety", "planner", "generator", "verifier", "intake", "sweeper", "gateway"),
    "small": ("all-1", "all-2", "gateway"),
}
"""The children: one process per role, or two workers that are all roles (sweeper included) and a gateway."""
LEASE_S = 5.0
HEARTBEAT_S = 1.0
IDLE_TIMEOUT_S = 3.0
START_TIMEOUT_S = 90.0
STOP_TIMEOUT_S = 30.0
SAMPLE_S = 0.5
SQLITE_DISK_MB = 128
POSTGRESQL_DISK_MB = 384
POSTGRESQL_LOG_MB = 64
"""How much its log of writes may grow between two checkpoints, where the disk is small."""
KIB = 1024


class Redis:
    """A redis-server on a Unix socket, with a password and an AOF."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        self.socket = folder / "redis.sock"
        self.password = secrets.token_hex(12)
        command = [find_binary(), "--port", "0", "--unixsocket", str(self.socket), "--dir", str(folder)]
        command += ["--requirepass", self.password, "--save", "", "--maxmemory-policy", "noeviction"]
        command += ["--appendonly", "yes", "--appendfsync", "everysec"]
        self._child = Child("redis", command, output=folder / "redis.log")

    @property
    def pid(self) -> int | None:
        """Its process id; None = it does not run."""
        return self._child.pid if self._child.exit_code() is None else None

    async def start(self) -> None:
        """Start it and wait until it answers."""
        self._child.start()
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                await self.call("PING")
            except (redis.RedisError, OSError):
                if time.monotonic() > deadline or self._child.exit_code() is not None:
                    raise
                await asyncio.sleep(0.02)
            else:
                return

    def kill(self, *, lose: bool = False) -> None:
        """SIGKILL; with `lose` its AOF goes, too."""
        if self._child.process is not None:
            self._child.process.kill()
            self._child.process.wait()
        if lose:
            for path in self._folder.glob("appendonly*"):
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def client(self) -> redis.asyncio.Redis:
        """A client that goes past the proxy; the caller closes it."""
        return redis.asyncio.Redis(unix_socket_path=str(self.socket), password=self.password, socket_timeout=30)

    async def call(self, *words: str | int) -> Any:
        """Send one command."""
        async with self.client() as client:
            return await client.execute_command(*words)


@dataclass
class Stack:
    """All that runs. Belongs to one event loop."""

    folder: Path
    db: str
    """sqlite or postgresql."""
    roles: tuple[str, ...]
    plant: str | None
    """Fault planted in our own code; None = none."""
    seed: int
    token_s: float = 0.001
    """Seconds per token of the simulated engine."""
    small_disk: bool = False
    """Whether the database's folder is a small file system of its own, so that it can be full."""
    clocks: Clocks | None = None
    """Of the children; None = they have the machine's."""
    children: dict[str, Child] = field(default_factory=dict[str, Child])
    pids: dict[int, str] = field(default_factory=dict[int, str])
    """All processes of children that there were."""
    stopped_pids: set[int] = field(default_factory=set[int])
    """Those that stood still for a while."""
    first_kill: float = math.inf
    """When a process was first killed, Unix time."""
    ends: list[tuple[str, float]] = field(default_factory=list[tuple[str, float]])
    """Which children were told to end, and how many seconds each took."""
    peak_mb: dict[str, float] = field(default_factory=dict[str, float])
    """Most resident memory of a process, by child."""

    began: float = field(default_factory=time.monotonic)
    """Monotonic seconds."""

    async def start(self) -> None:
        """Start everything and wait until the gateway is ready and all workers run."""
        self.redis = Redis(self.folder / "redis")
        await self.redis.start()
        self.postgres: PostgresServer | None = None
        if self.db == "postgresql":
            (self.folder / "pg").mkdir()
            self.folder.chmod(0o755)
            if self.small_disk:
                mount_small(self.disk, POSTGRESQL_DISK_MB)
            self.postgres = await asyncio.to_thread(PostgresServer, self.folder / "pg")
            self.database_url = await asyncio.to_thread(self.postgres.new_database)
            if self.small_disk:
                await asyncio.to_thread(_keep_log_small, self.database_url)
        else:
            self.database_url = f"sqlite:///{self.folder / 'data' / 'k2think.db'}"
            (self.folder / "data").mkdir()
            if self.small_disk:
                mount_small(self.disk, SQLITE_DISK_MB)
        await asyncio.to_thread(upgrade, self.database_url.replace("postgresql://", "postgresql+psycopg://", 1))
        self.database = Database(self.database_url)
        made = new_key()
        key = Key(made.id, "default", "chaos", KeyScope.api, made.digest, time.time(), None)
        await self.database.run(lambda conn: add_key(conn, key))
        self.api_key = made.text
        self.model_key = f"sk-chaos-{secrets.token_hex(12)}"
        solver = SolvingResponder(accuracy=0.6, reasoning_tokens=20, seed=self.seed)
        self.model = Model(solver, random.Random(self.seed))
        engine = SimulatedEngine(slots=64, token_s=self.token_s)
        self.engine = SimulatedServer(self.model, engine=engine, api_key=self.model_key)
        await self.engine.start()
        self.proxies = {"redis": Proxy(self.redis.socket), "engine": Proxy(_address(self.engine.root_url))}
        if self.postgres is not None:
            self.proxies["postgresql"] = Proxy(self.folder / "pg" / "run" / ".s.PGSQL.5432")
        for proxy in self.proxies.values():
            await proxy.start()
        self.url = f"http://127.0.0.1:{free_port()}"
        self._start_children()
        await self._wait_until_up()

    @property
    def disk(self) -> Path:
        """Folder of the database, which is a file system of its own where the disk is small."""
        return self.folder / ("pg" if self.db == "postgresql" else "data")

    @property
    def redis_url(self) -> str:
        """Of Redis, by way of the proxy."""
        return f"redis://:{self.redis.password}@127.0.0.1:{self.proxies['redis'].port}/0"

    @property
    def left_out(self) -> dict[str, str]:
        """Faults that this machine cannot have, and why."""
        missing = {} if self.small_disk else {"disk:full": "a small file system of its own needs Linux and root"}
        return missing if find_library() is not None else {**missing, "clock": "libfaketime is not installed"}

    @property
    def services(self) -> tuple[str, ...]:
        """What has a proxy before it."""
        return ("redis", "engine", *(("postgresql",) if self.db == "postgresql" else ()))

    @property
    def secrets(self) -> dict[str, str]:
        """What must be in no log."""
        return {"redis password": self.redis.password, "model key": self.model_key, "API key": self.api_key}

    def _start_children(self) -> None:
        url = self.database_url
        if self.db == "postgresql":
            url = f"postgresql://postgres@127.0.0.1:{self.proxies['postgresql'].port}/{url.split('/')[3].split('?')[0]}"
        environment = {
            "K2THINK_DATA_DIR": str(self.folder / "data"),
            "K2THINK_DATABASE_URL": url,
            "K2THINK_BROKER_URL": self.redis_url,
            "K2THINK_GATEWAY__PORT": self.url.rpartition(":")[2],
            "K2THINK_GENERATOR__BACKEND": "openai",
            "K2THINK_GENERATOR__BASE_URL": f"http://127.0.0.1:{self.proxies['engine'].port}/v1",
            "K2THINK_GENERATOR__MODEL": "simulated",
            "K2THINK_GENERATOR__API_KEY": self.model_key,
            "K2THINK_GENERATOR__IDLE_TIMEOUT_S": str(IDLE_TIMEOUT_S),
            "K2THINK_GENERATOR__FIRST_TOKEN_TIMEOUT_S": str(4 * IDLE_TIMEOUT_S),
            "K2THINK_LEASE_S": str(LEASE_S),
            "K2THINK_HEARTBEAT_S": str(HEARTBEAT_S),
            "K2THINK_SHUTDOWN_S": "1",
            "K2THINK_LOG_FORMAT": "json",
        }
        if self.plant is not None:
            environment["CHAOS_SECRET"] = self.redis.password
        for role in self.roles:
            words = [role] if role in ("sweeper", "gateway") else ["worker", role.partition("-")[0]]
            command = k2think_command(*words)
            clock = {} if self.clocks is None else self.clocks.environment(role)
            if self.plant is not None:
                command = [sys.executable, str(Path(__file__).resolve().with_name("planted.py")), self.plant, *words]
            self.children[role] = Child(role, command, environment | clock, output=self.folder / f"{role}.log")
        self._supervisor = Supervisor(list(self.children.values()), stop_timeout_s=STOP_TIMEOUT_S)
        self._supervisor_log: TextIO = (self.folder / "supervisor.log").open("a", buffering=1)
        structlog.configure(
            processors=[structlog.processors.TimeStamper(fmt="iso", utc=True), structlog.processors.JSONRenderer()],
            logger_factory=structlog.PrintLoggerFactory(self._supervisor_log),
        )
        # Not a daemon of the loop: the children get SIGTERM when the thread that started them ends.
        self._thread = threading.Thread(target=self._supervisor.run, name="chaos-supervisor", daemon=True)
        self._thread.start()
        self._sampler = asyncio.ensure_future(self._sample())

    async def _wait_until_up(self) -> None:
        waiting = list(self.roles)
        deadline = time.monotonic() + START_TIMEOUT_S
        while waiting:
            waiting = [role for role in waiting if not self.count_starts(role)]
            if waiting and time.monotonic() > deadline:
                raise RuntimeError(f"{waiting[0]} did not start: {self.log(waiting[0])[-3000:]}")
            await asyncio.sleep(0.05)

    def log(self, role: str) -> str:
        """What a child has written."""
        path = self.folder / f"{role}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def lines(self, role: str) -> Iterator[dict[str, Any]]:
        """The log lines of a child."""
        for line in self.log(role).splitlines():
            if line.startswith("{"):
                yield json.loads(line)

    def count_starts(self, role: str) -> int:
        """How often a child was up."""
        subject = role if role in ("sweeper", "gateway") else "worker"
        return self.log(role).count(f'"event": "{subject}_started"')

    def count_restarts(self) -> Counter[str]:
        """How often each child has died."""
        lines = self.lines("supervisor")
        return Counter(str(line["child"]) for line in lines if line.get("event") == "died")

    def pid(self, role: str) -> int | None:
        """Process id of a child that runs; None = it is being restarted."""
        child = self.children[role]
        pid = child.pid
        if pid is not None:
            self.pids[pid] = role
        return pid if pid is not None and child.exit_code() is None else None

    def send(self, role: str, number: signal.Signals) -> int | None:
        """Send a signal to a child; return its process id, None = it does not run just now."""
        pid = self.pid(role)
        if pid is not None:
            os.kill(pid, number)
            if number is signal.SIGKILL:
                self.first_kill = min(self.first_kill, time.time())
            if number is signal.SIGSTOP:
                self.stopped_pids.add(pid)
        return pid

    async def _sample(self) -> None:
        while True:
            for role in self.roles:
                pid = self.pid(role)
                if pid is not None:
                    self._note_memory(role, pid)
            if self.redis.pid is not None:
                self._note_memory("redis", self.redis.pid)
            await asyncio.sleep(SAMPLE_S)

    def _note_memory(self, name: str, pid: int) -> None:
        try:
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        except OSError:
            return
        peak = next((int(line.split()[1]) * KIB / 1e6 for line in lines if line.startswith("VmHWM")), 0.0)
        self.peak_mb[name] = round(max(self.peak_mb.get(name, 0.0), peak), 1)

    async def heal(self) -> None:
        """End whatever fault there is."""
        for proxy in self.proxies.values():
            proxy.heal()
            proxy.end_lost()
        if self.clocks is not None:
            self.clocks.set(list(self.roles), 0)
        self.model.fault = None
        for role in self.roles:
            self.send(role, signal.SIGCONT)

    async def stop_children(self) -> None:
        """SIGTERM to all, and wait for their end."""
        await self.heal()
        self._supervisor.stop()
        await asyncio.to_thread(self._thread.join, STOP_TIMEOUT_S + 10)

    async def stop(self) -> None:
        """End everything that still runs."""
        if self.children:
            await self.stop_children()
            self._sampler.cancel()
            self._supervisor_log.close()
        for proxy in getattr(self, "proxies", {}).values():
            await proxy.stop()
        if hasattr(self, "engine"):
            await self.engine.stop()
        if hasattr(self, "database"):
            await asyncio.to_thread(self.database.close)
        if getattr(self, "postgres", None) is not None:
            await asyncio.to_thread(self.postgres.stop)  # type: ignore[union-attr]
        self.redis.kill()


def _address(url: str) -> tuple[str, int]:
    host, _, port = url.removeprefix("http://").rpartition(":")
    return host, int(port)


def _keep_log_small(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"ALTER SYSTEM SET max_wal_size = '{POSTGRESQL_LOG_MB}MB'")
        connection.execute(f"ALTER SYSTEM SET min_wal_size = '{POSTGRESQL_LOG_MB // 2}MB'")
        connection.execute("SELECT pg_reload_conf()")
