"""`k2think worker all` as a process of its own, logging JSON lines to a file, and a client of the services that it works on."""

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from harness.stack import clean_environment
from k2think.agents.backends.simulator import SimulatedServer
from k2think.schemas.settings import Settings
from k2think.workers.session import Session, open_session
from pydantic import SecretStr

START_TIMEOUT_S = 60.0
JOBS = 15
LEASE_S = 5


class Worker:
    """`k2think worker all` as a child process, logging JSON lines to a file."""

    def __init__(self, log: Path, environment: dict[str, str]) -> None:
        self.log = log
        with log.open("ab") as stream:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "k2think.cli", "worker", "all"],
                env={**clean_environment(), "K2THINK_LOG_FORMAT": "json", **environment},
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
            )

    def lines(self, event: str) -> list[dict[str, Any]]:
        """Log lines of an event."""
        texts = self.log.read_text(errors="replace").splitlines()
        return [line for line in (json.loads(text) for text in texts if text.startswith("{")) if line["event"] == event]

    async def wait_for(self, event: str, count: int = 1) -> None:
        """Wait until the event was logged this often."""
        async with asyncio.timeout(START_TIMEOUT_S):
            while len(self.lines(event)) < count:
                assert self.process.poll() is None, self.log.read_text()[-2000:]
                await asyncio.sleep(0.05)

    def stop(self) -> int:
        """SIGTERM and wait."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)


@asynccontextmanager
async def client(database_url: str, broker_url: str) -> AsyncIterator[Session]:
    """Open a session of a client on these services."""
    settings = Settings(
        _env_file=None,  # pyright: ignore[reportCallIssue]
        database_url=SecretStr(database_url),
        broker_url=SecretStr(broker_url),
    )
    async with open_session(settings) as session:
        yield session


def variables(database_url: str, broker_url: str, server: SimulatedServer) -> dict[str, str]:
    """Variables of a worker on these services, whose lease is over soon."""
    return {
        "K2THINK_DATABASE_URL": database_url,
        "K2THINK_BROKER_URL": broker_url,
        "K2THINK_GENERATOR__BACKEND": "openai",
        "K2THINK_GENERATOR__BASE_URL": server.url,
        "K2THINK_GENERATOR__MODEL": "simulated",
        "K2THINK_LEASE_S": str(LEASE_S),
        "K2THINK_HEARTBEAT_S": "1",
        "K2THINK_SHUTDOWN_S": "0.5",
    }
