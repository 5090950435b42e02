"""A whole stack of real processes for the tests: `k2think up` on a data folder of its own, a simulated model server."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from k2think.schemas.jobs import JobStatus, SolveRequest, SolveResult
from k2think.schemas.settings import Settings
from k2think.store.jobs import job_result
from k2think.workers.redis_server import broker_url_of, socket_path
from k2think.workers.session import Session, open_session
from k2think.workers.stack import with_broker
from pydantic import SecretStr

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 30.0


def clean_environment() -> dict[str, str]:
    """Our environment without what would configure k2think."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("K2THINK_", "CEREBRAS_"))}


def free_port() -> int:
    """A TCP port of loopback that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class RunningUp:
    """`k2think up` as a child process, logging JSON lines to a file."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder = folder
        self.log = folder / "up.log"
        self.environment = {
            **clean_environment(),
            "K2THINK_DATA_DIR": str(folder),
            "K2THINK_LOG_FORMAT": "json",
            "K2THINK_LEASE_S": "3",
            "K2THINK_HEARTBEAT_S": "1",
            "K2THINK_SHUTDOWN_S": "1",
            "K2THINK_GATEWAY__PORT": str(free_port()),
            **environment,
        }
        with self.log.open("ab") as stream:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "k2think.cli", "up"],
                env=self.environment,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
            )

    @property
    def url(self) -> str:
        """Root of its gateway."""
        return f"http://127.0.0.1:{self.environment['K2THINK_GATEWAY__PORT']}"

    def lines(self) -> list[dict[str, Any]]:
        """All log lines so far."""
        parsed: list[dict[str, Any]] = []
        for line in self.log.read_text(errors="replace").splitlines():
            if line.startswith("{"):
                parsed.append(json.loads(line))
        return parsed

    def count(self, event: str, **fields: Any) -> int:
        """Log lines of an event whose fields have these values."""
        return sum(
            line.get("event") == event and all(line.get(name) == value for name, value in fields.items())
            for line in self.lines()
        )

    def wait_for(self, condition: Callable[[], bool], what: str) -> None:
        """Poll until `condition()`; raise with the log's end when it takes too long."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while not condition():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{what} did not happen: {self.log.read_text(errors='replace')[-3000:]}")
            time.sleep(0.05)

    def pid(self, child: str) -> int:
        """Process id of the newest process of a child."""
        return [line["pid"] for line in self.lines() if line.get("event") == "started" and line.get("child") == child][
            -1
        ]

    def kill(self, child: str) -> None:
        """SIGKILL the newest process of a child."""
        os.kill(self.pid(child), signal.SIGKILL)

    def stop(self) -> int:
        """Ctrl-C and wait."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        return self.process.wait(STOP_TIMEOUT_S)


def settings_of(up: RunningUp, **fields: Any) -> Settings:
    """Settings of a client of that stack."""
    database = up.environment.get("K2THINK_DATABASE_URL")
    url = SecretStr(database) if database else None
    backends = json.loads(up.environment.get("K2THINK_BACKENDS", "{}"))
    settings = Settings(_env_file=None, data_dir=up.folder, database_url=url, backends=backends, **fields)  # pyright: ignore[reportCallIssue]
    return with_broker(settings, broker_url_of(socket_path(up.folder)))


@asynccontextmanager
async def client_of(up: RunningUp) -> AsyncIterator[Session]:
    """A client session on the stack."""
    async with open_session(settings_of(up)) as session:
        yield session


async def submit_all(session: Session, count: int, **fields: Any) -> list[str]:
    """Submit `count` jobs; return their ids."""
    request = SolveRequest.model_validate({"problem": "What is 347 + 58?", **fields})
    accepted = await asyncio.gather(*(session.submitter.submit(request) for _ in range(count)))
    return [item.job_id for item in accepted]


async def results_of(session: Session, job_ids: list[str], *, timeout_s: float = 90.0) -> list[SolveResult]:
    """Wait until all jobs have ended; return their results in order."""
    results: dict[str, SolveResult] = {}
    deadline = time.monotonic() + timeout_s
    while len(results) < len(job_ids):
        missing = [job_id for job_id in job_ids if job_id not in results]
        for job_id in missing:
            status, result = await session.database.read(lambda connection, one=job_id: job_result(connection, one))
            if result is None:
                break
            assert status is result.status
            results[job_id] = result
        if time.monotonic() > deadline:
            raise TimeoutError(f"{len(missing)} of {len(job_ids)} jobs have not ended, the first is {missing[0]}")
        await asyncio.sleep(0.05)
    return [results[job_id] for job_id in job_ids]


def all_succeeded(results: list[SolveResult]) -> bool:
    """Whether every result has an answer; the reasons of the others are in the assertion's text."""
    bad = [f"{result.job_id}: {result.error}" for result in results if result.status is not JobStatus.succeeded]
    if bad:
        raise AssertionError(f"{len(bad)} jobs have no answer: {bad[:5]}")
    return True
