"""A simulated model server, and the command line that uses it."""

import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.cli import MIXED, Cli, Solved, simulated_environment
from harness.stack import clean_environment
from k2think.agents.backends.simulator import SimulatedEngine, SimulatedServer, SolvingResponder


@pytest.fixture(scope="package")
def simulator() -> Iterator[SimulatedServer]:
    """A model server that is always right; it lives on an event loop of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    engine = SimulatedEngine(slots=64, token_s=0.02)
    server = SimulatedServer(SolvingResponder(accuracy=1.0, reasoning_tokens=10), engine=engine)
    asyncio.run_coroutine_threadsafe(server.start(), loop).result(10)
    try:
        yield server
    finally:
        asyncio.run_coroutine_threadsafe(server.stop(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


@pytest.fixture
def simulated_cli(tmp_path: Path, simulator: SimulatedServer) -> Cli:
    """The command line on an empty data folder, with a simulated model."""
    return Cli(tmp_path, simulated_environment(tmp_path, simulator))


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    """The command line on an empty data folder, with nothing configured."""
    return Cli(tmp_path, {**clean_environment(), "K2THINK_DATA_DIR": str(tmp_path / "data")})


@pytest.fixture(scope="package")
def solved(tmp_path_factory: pytest.TempPathFactory, simulator: SimulatedServer) -> Solved:
    """One mixed batch, run once for all tests that look at what it left."""
    folder = tmp_path_factory.mktemp("solved")
    runner = Cli(folder, simulated_environment(folder, simulator))
    (folder / "in.jsonl").write_text("\n".join(MIXED))
    done = runner.run("batch", "run", "in.jsonl", "-o", "out.jsonl", "--json")
    lines = [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]
    return Solved(runner, done, lines)
