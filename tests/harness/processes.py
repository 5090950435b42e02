"""Commands of k2think as processes of their own, each with variables of its own, logging JSON lines to files."""

import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.server import serving
from harness.stack import clean_environment
from k2think.agents.backends.simulator import SimulatedEngine, SolvingResponder
from k2think.schemas.settings import Settings
from k2think.store.migrate import upgrade
from pydantic import SecretStr

START_TIMEOUT_S = 180.0
STOP_TIMEOUT_S = 30.0


class RunningCommand:
    """One of them."""

    def __init__(self, folder: Path, name: str, words: tuple[str, ...], environment: dict[str, str]) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        with self.log.open("ab") as stream:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "k2think.cli", *words],
                env={**clean_environment(), "K2THINK_LOG_FORMAT": "json", **environment},
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
            )

    def lines(self, event: str) -> list[dict[str, Any]]:
        """Log lines of an event."""
        texts = [text for text in self.log.read_text(errors="replace").splitlines() if text.startswith("{")]
        return [line for line in map(json.loads, texts) if line.get("event") == event]

    def wait_for(self, event: str) -> None:
        """Wait until the event was logged."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self.lines(event):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{self.name}: no {event}: {self.log.read_text(errors='replace')[-3000:]}")
            time.sleep(0.05)


@contextlib.contextmanager
def running_roles(folder: Path, environments: dict[str, dict[str, str]]) -> Iterator[dict[str, RunningCommand]]:
    """Run a process for each role, with these variables, until the block ends; all must then end in order."""
    commands: dict[str, RunningCommand] = {}
    try:
        for role, environment in environments.items():
            words = (role,) if role == "sweeper" else ("worker", role)
            commands[role] = RunningCommand(folder, role, words, environment)
        for role, command in commands.items():
            command.wait_for("sweeper_started" if role == "sweeper" else "worker_started")
        yield commands
        for command in commands.values():
            command.process.send_signal(signal.SIGTERM)
        codes = {role: command.process.wait(STOP_TIMEOUT_S) for role, command in commands.items()}
        assert not any(codes.values()), codes
    finally:
        for command in commands.values():
            if command.process.poll() is None:
                command.process.kill()
                command.process.wait()


@contextlib.contextmanager
def working(folder: Path, broker_url: str, *, database_url: str | None = None, **more: Any) -> Iterator[Settings]:
    """Run a worker of all roles with a simulated model; yields the settings of its clients, `more` of them for both.

    The database is SQLite in the folder where none is given.
    """
    database = database_url or f"sqlite:///{folder / 'k2think.db'}"
    upgrade(database)
    with serving(SolvingResponder(reasoning_tokens=20), engine=SimulatedEngine(slots=64, token_s=0.01)) as server:
        variables = {
            "K2THINK_DATA_DIR": str(folder),
            "K2THINK_DATABASE_URL": database,
            "K2THINK_BROKER_URL": broker_url,
            "K2THINK_GENERATOR__BACKEND": "openai",
            "K2THINK_GENERATOR__BASE_URL": server.url,
            "K2THINK_GENERATOR__MODEL": "simulated",
            "K2THINK_SHUTDOWN_S": "1",
            **{f"K2THINK_{name.upper()}": str(value) for name, value in more.items()},
        }
        with running_roles(folder, {"all": variables}):
            yield Settings(
                _env_file=None,  # pyright: ignore[reportCallIssue]
                data_dir=folder,
                database_url=SecretStr(database),
                broker_url=SecretStr(broker_url),
                **more,
            )
