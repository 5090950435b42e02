"""SIGTERM to any role under load: it ends in time, with exit code 0, and nothing is lost, counted or answered twice."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import openai
import pytest
from harness.stack import all_succeeded, clean_environment, free_port
from k2think.agents.backends.simulator import SimulatedEngine, SimulatedServer, SolvingResponder
from k2think.client import AsyncClient
from k2think.schemas.jobs import SolveResult
from k2think.schemas.trace import EventKind
from k2think.store.database import Database
from k2think.store.migrate import upgrade
from k2think.workers.children import Child
from k2think.workers.stack import k2think_command
from sqlalchemy import text

if TYPE_CHECKING:
    from conftest import RedisServer

pytestmark = pytest.mark.timeout(400)
ROLES = ("safety", "planner", "generator", "verifier", "intake", "sweeper", "gateway")
STARTED = {"sweeper": "sweeper_started", "gateway": "gateway_started"}
START_TIMEOUT_S = 60.0
END_S = 30.0
"""Within how many seconds a process told to stop is over: the promise."""
PATIENCE_S = 120.0
PROBLEM = "What is 347 + 58?"


@dataclass
class Crew:
    """One process for each role, on services of its own."""

    folder: Path
    environment: dict[str, str]
    children: dict[str, Child] = field(default_factory=dict[str, Child])

    @property
    def url(self) -> str:
        """Root of the gateway."""
        return f"http://127.0.0.1:{self.environment['K2THINK_GATEWAY__PORT']}"

    def log(self, role: str) -> str:
        """What the role's processes have written."""
        return (self.folder / f"{role}.log").read_text(errors="replace")

    def count(self, role: str, event: str) -> int:
        """How often they have logged an event."""
        lines = [line for line in self.log(role).splitlines() if line.startswith("{")]
        return sum(json.loads(line)["event"] == event for line in lines)

    async def start(self, role: str) -> None:
        """Start the role's process, and wait until it works."""
        child = self.children.get(role)
        if child is None:
            words = [role] if role in STARTED else ["worker", role]
            child = Child(role, k2think_command(*words), self.environment, output=self.folder / f"{role}.log")
            self.children[role] = child
        before = self.count(role, self._started(role)) if (self.folder / f"{role}.log").exists() else 0
        child.start()
        async with asyncio.timeout(START_TIMEOUT_S):
            while self.count(role, self._started(role)) <= before:
                assert child.exit_code() is None, self.log(role)[-3000:]
                await asyncio.sleep(0.05)

    def _started(self, role: str) -> str:
        return STARTED.get(role, "worker_started")

    async def stop(self, role: str, *, again_s: float | None = None) -> None:
        """SIGTERM, a second one after `again_s`: it must end in time, with exit code 0."""
        child = self.children[role]
        began = time.monotonic()
        child.terminate()
        if again_s is not None:
            await asyncio.sleep(again_s)
            child.terminate()
        while child.exit_code() is None:
            assert time.monotonic() - began < END_S, self.log(role)[-3000:]
            await asyncio.sleep(0.02)
        assert child.exit_code() == 0, self.log(role)[-3000:]

    def kill(self) -> None:
        """End what still runs."""
        for child in self.children.values():
            if child.process is not None and child.exit_code() is None:
                child.process.kill()
                child.process.wait()


@dataclass(frozen=True)
class Fleet:
    """The crew, its model server and its database."""

    crew: Crew
    server: SimulatedServer
    engine: SimulatedEngine
    database: Database

    async def busy(self, role: str) -> None:
        """Wait until a step of this role runs; other roles, and the rules of the screening, are always as busy."""
        query = text("SELECT count(*) FROM steps WHERE status = 'running' AND queue = :role")
        async with asyncio.timeout(PATIENCE_S):
            while role in ("planner", "generator", "verifier") and not await self.database.read(
                lambda connection: connection.execute(query, {"role": role}).scalar_one()
            ):
                await asyncio.sleep(0.01)


@pytest.fixture
async def fleet(tmp_path: Path, redis_server: RedisServer) -> AsyncIterator[Fleet]:
    """All roles at work. A worker lets its steps run for a moment only, so that many are handed back."""
    database_url = f"sqlite:///{tmp_path / 'k2think.db'}"
    await asyncio.to_thread(upgrade, database_url)
    engine = SimulatedEngine(slots=256, token_s=0.01)
    async with SimulatedServer(SolvingResponder(accuracy=0.6, reasoning_tokens=20), engine=engine) as server:
        variables = {
            "K2THINK_DATA_DIR": str(tmp_path),
            "K2THINK_BROKER_URL": redis_server.url,
            "K2THINK_GATEWAY__PORT": str(free_port()),
            "K2THINK_GENERATOR__BACKEND": "openai",
            "K2THINK_GENERATOR__BASE_URL": server.url,
            "K2THINK_GENERATOR__MODEL": "simulated",
            "K2THINK_SHUTDOWN_S": "0.2",
            "K2THINK_LOG_FORMAT": "json",
        }
        crew = Crew(tmp_path, {**clean_environment(), **variables})
        database = Database(database_url)
        try:
            await asyncio.gather(*(crew.start(role) for role in ROLES))
            yield Fleet(crew, server, engine, database)
        finally:
            crew.kill()
            await asyncio.to_thread(database.close)


class Load:
    """Jobs that are submitted one after the other over HTTP, each followed to its end by its own client."""

    def __init__(self, url: str, *, per_s: float) -> None:
        self._client = AsyncClient(url, patience_s=PATIENCE_S)
        self._pause_s = 1 / per_s
        self._following: list[asyncio.Task[SolveResult]] = []
        self._feeding = asyncio.ensure_future(self._feed())
        self._enough = False

    @property
    def count(self) -> int:
        """Jobs so far."""
        return len(self._following)

    @property
    def ended(self) -> int:
        """Jobs that have ended."""
        return sum(task.done() for task in self._following)

    async def _feed(self) -> None:
        number = 0
        while not self._enough:
            solved = self._client.solve(f"{PROBLEM} ({number})", idempotency_key=f"job-{number}")
            self._following.append(asyncio.ensure_future(solved))
            number += 1
            await asyncio.sleep(self._pause_s)

    async def results(self, *, at_least: int) -> list[SolveResult]:
        """Wait until there are so many, then submit no more and return all results."""
        while self.count < at_least:
            await asyncio.sleep(0.05)
        self._enough = True
        await self._feeding
        try:
            return await asyncio.gather(*self._following)
        finally:
            await self._client.aclose()

    async def flows(self) -> None:
        """Wait until some jobs of now have ended, so that what comes next comes in the midst of work."""
        want = self.ended + 3
        async with asyncio.timeout(PATIENCE_S):
            while self.ended < want:
                await asyncio.sleep(0.02)


async def assert_nothing_was_lost(fleet: Fleet, results: list[SolveResult]) -> dict[str, int]:
    """Every job has one result; every attempt is whole or handed back. Return how many attempts ended how."""
    assert all_succeeded(results)
    assert len({result.job_id for result in results}) == len(results)
    many = "SELECT count(*) FROM (SELECT 1 FROM {} GROUP BY {} HAVING count(*) > 1) AS twice"

    def look(connection: Any) -> dict[str, int]:
        def number(query: str) -> int:
            return int(connection.execute(text(query)).scalar_one())

        assert number("SELECT count(*) FROM jobs") == len(results)
        assert number("SELECT count(*) FROM events WHERE kind = 'finished'") == len(results)
        assert number(many.format("attempts WHERE outcome = 'done'", "job_id, step")) == 0
        assert number("SELECT max(attempts - released) FROM steps") == 1, "handing back does not count"
        assert number("SELECT count(*) FROM steps WHERE status IN ('ready', 'running', 'dead')") == 0
        return dict(connection.execute(text("SELECT outcome, count(*) FROM attempts GROUP BY outcome")).all())

    outcomes = await fleet.database.read(look)
    assert set(outcomes) <= {"done", "cancelled", "released"}, outcomes
    return outcomes


@pytest.mark.parametrize("roles", [ROLES], ids=["each_role"])
async def test_sigterm_under_load(fleet: Fleet, roles: tuple[str, ...]) -> None:
    load = Load(fleet.crew.url, per_s=5)
    for role in roles:
        await load.flows()
        await fleet.busy(role)
        await fleet.crew.stop(role, again_s=0.1)  # impatience changes nothing
        await fleet.crew.start(role)

    outcomes = await assert_nothing_was_lost(fleet, await load.results(at_least=50))

    assert outcomes.get("released", 0) > 0, "it was told to stop in the midst of work"
    assert fleet.server.open_streams == 0


@pytest.mark.parametrize(("restarts", "jobs"), [(4, 40), (20, 200)], ids=["short", "full"])
async def test_rolling_restarts_under_load_lose_nothing(fleet: Fleet, restarts: int, jobs: int) -> None:
    order = ("generator", "gateway", "verifier", "safety", "planner", "sweeper", "intake")
    load = Load(fleet.crew.url, per_s=5)
    for number in range(restarts):
        await load.flows()
        role = order[number % len(order)]
        await fleet.busy(role)
        await fleet.crew.stop(role)
        await fleet.crew.start(role)

    await assert_nothing_was_lost(fleet, await load.results(at_least=jobs))


async def test_a_gateway_told_to_stop_ends_its_open_requests_in_words(fleet: Fleet) -> None:
    fleet.engine.token_s = 0.5
    url = f"{fleet.crew.url}/v1"
    messages: list[Any] = [{"role": "user", "content": PROBLEM}]
    calls = openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0)

    async def streamed() -> str:
        with pytest.raises(openai.APIError) as caught:
            async for _ in await calls.chat.completions.create(model="k2think", messages=messages, stream=True):
                pass
        return str(caught.value.message)

    async def waited(path: str, body: dict[str, Any]) -> httpx.Response:
        async with httpx.AsyncClient(timeout=END_S) as client:
            return await client.post(f"{url}/{path}", json=body)

    async def followed() -> list[str]:
        async with httpx.AsyncClient(timeout=END_S) as client:
            job = (await client.post(f"{url}/jobs", json={"problem": PROBLEM})).json()["id"]
            async with client.stream("GET", f"{url}/jobs/{job}/events") as stream:
                return [line async for line in stream.aiter_lines() if line.startswith("event: ")]

    open_requests = asyncio.gather(
        streamed(),
        waited("chat/completions", {"model": "k2think", "messages": messages}),
        waited("responses", {"model": "k2think", "input": PROBLEM}),
        waited("responses", {"model": "k2think", "input": PROBLEM, "stream": True}),
        followed(),
    )
    async with asyncio.timeout(END_S):
        while fleet.server.open_streams < 5:
            assert not open_requests.done(), open_requests.result()
            await asyncio.sleep(0.05)

    await fleet.crew.stop("gateway")

    said, chat, response, events, lines = await open_requests
    assert "being stopped" in said
    for answer in (chat, response):
        assert answer.status_code == 503
        assert answer.headers["Retry-After"]
        assert answer.json()["error"]["code"] == "stopping"
    assert events.status_code == 200
    assert '"code":"stopping"' in events.text.rstrip().rpartition("\n")[2]
    assert lines, "a stream of events just ends; its reader goes on at another gateway"
    assert f"event: {EventKind.finished}" not in lines
    await calls.close()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Child]]:
    """A function that starts a role with these variables."""
    children: list[Child] = []

    def run(role: str, **variables: str) -> Child:
        words = [role] if role in STARTED else ["worker", role]
        environment = {"K2THINK_DATA_DIR": str(tmp_path), "K2THINK_GATEWAY__PORT": str(free_port()), **variables}
        child = Child(role, k2think_command(*words), environment, output=tmp_path / f"{role}.log")
        child.start()
        children.append(child)
        return child

    yield run
    for child in children:
        if child.process is not None and child.exit_code() is None:
            child.process.kill()
            child.process.wait()


async def over(child: Child) -> None:
    """Wait for its end, which must come in time."""
    began = time.monotonic()
    while child.exit_code() is None:
        assert time.monotonic() - began < END_S
        await asyncio.sleep(0.02)


@pytest.mark.parametrize("after_s", [0.3, 1.0, 1.6])
async def test_sigterm_while_it_starts_ends_it(
    tmp_path: Path, redis_server: RedisServer, start: Callable[..., Child], after_s: float
) -> None:
    await asyncio.to_thread(upgrade, f"sqlite:///{tmp_path / 'k2think.db'}")
    children = [start(role, K2THINK_BROKER_URL=redis_server.url) for role in ("all", "sweeper", "gateway")]
    await asyncio.sleep(after_s)
    for child in children:
        child.terminate()
    for child in children:
        await over(child)
        assert child.exit_code() in (0, -signal.SIGTERM)


@pytest.mark.parametrize("away", ["redis", "database", "redis_silent", "database_silent"])
async def test_sigterm_while_a_service_is_away(
    tmp_path: Path, postgres_server: Any, redis_server: RedisServer, start: Callable[..., Child], away: str
) -> None:
    """A dead service refuses; one that stands still takes connections and says nothing."""
    url = await asyncio.to_thread(postgres_server.new_database)
    await asyncio.to_thread(upgrade, url)
    engine = SimulatedEngine(slots=64, token_s=0.2)
    async with SimulatedServer(SolvingResponder(reasoning_tokens=200), engine=engine) as server:
        variables = {
            "K2THINK_DATABASE_URL": url,
            "K2THINK_BROKER_URL": redis_server.url,
            "K2THINK_GENERATOR__BACKEND": "openai",
            "K2THINK_GENERATOR__BASE_URL": server.url,
            "K2THINK_GENERATOR__MODEL": "simulated",
            "K2THINK_LOG_FORMAT": "json",
        }
        gateway = start("gateway", **variables)
        crew = [start("all", **variables), start("sweeper", **variables), gateway]
        port = gateway.environment["K2THINK_GATEWAY__PORT"]
        async with asyncio.timeout(START_TIMEOUT_S):
            while b"gateway_started" not in (tmp_path / "gateway.log").read_bytes():
                await asyncio.sleep(0.05)
        async with AsyncClient(f"http://127.0.0.1:{port}", patience_s=PATIENCE_S) as client:
            await client.submit(PROBLEM)
        async with asyncio.timeout(START_TIMEOUT_S):
            while not server.open_streams:
                await asyncio.sleep(0.05)

        with gone(away, redis_server, postgres_server):
            await asyncio.sleep(1)
            for child in crew:
                child.terminate()
            for child in crew:
                await over(child)
        if not away.endswith("silent"):  # then it may be cut short
            assert {child.exit_code() for child in crew} == {0}


@contextlib.contextmanager
def gone(away: str, redis_server: RedisServer, postgres_server: Any) -> Iterator[None]:
    """Take a service away, and give it back."""
    if away == "redis":
        redis_server.kill()
        yield
    elif away == "database":
        postgres_server.stop()
        try:
            yield
        finally:
            postgres_server.start()
    else:
        pids = [redis_server.pid] if away == "redis_silent" else postgres_server.pids
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)
