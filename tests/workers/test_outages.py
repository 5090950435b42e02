"""Workers that lose Redis, the database or their own process: they wait, resume, hand back, say so once."""

import asyncio
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis
from harness.lone_worker import JOBS, LEASE_S, START_TIMEOUT_S, Worker, client, variables
from harness.stack import all_succeeded, results_of, submit_all
from k2think.agents.backends.simulator import SimulatedEngine, SimulatedServer, SolvingResponder
from k2think.schemas.trace import AttemptOutcome
from k2think.store.jobs import job_trace
from k2think.store.migrate import upgrade


@pytest.mark.timeout(240)
async def test_redis_and_postgresql_come_and_go(
    postgres_server: Any, redis_server: Any, start_worker: Callable[..., Worker]
) -> None:
    database_url = postgres_server.new_database()
    await asyncio.to_thread(upgrade, database_url.replace("postgresql://", "postgresql+psycopg://"))
    engine = SimulatedEngine(slots=64, token_s=0.002)
    async with SimulatedServer(SolvingResponder(reasoning_tokens=20), engine=engine) as server:
        worker = start_worker(**variables(database_url, redis_server.url, server))
        await worker.wait_for("worker_started")
        async with client(database_url, redis_server.url) as session:
            assert all_succeeded(await results_of(session, await submit_all(session, JOBS)))

            ids = await submit_all(session, JOBS)
            redis_server.kill()
            await asyncio.sleep(3)
            await asyncio.to_thread(redis_server.start)
            assert all_succeeded(await results_of(session, ids))

            ids = await submit_all(session, JOBS)
            await asyncio.to_thread(postgres_server.stop)
            await asyncio.sleep(LEASE_S + 2)
            await asyncio.to_thread(postgres_server.start)
            assert all_succeeded(await results_of(session, ids))
    assert worker.process.poll() is None, "it survived both"
    lost = [line["service"] for line in worker.lines("service_unavailable")]
    for service in ("redis", "database"):
        assert lost.count(service) == 1, f"said once, not a thousand times: {lost}"
    assert not worker.lines("lease_ran_out"), "nobody is dead because the database was"
    assert worker.stop() == 0


@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    ("begin", "end"),
    [
        pytest.param("REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE", id="read_only"),
        pytest.param("CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0", id="full"),
    ],
)
async def test_a_redis_that_refuses_to_write_is_waited_for(
    begin: str, end: str, tmp_path: Path, redis_server: Any, start_worker: Callable[..., Worker]
) -> None:
    """Given a failover that makes a replica of our Redis, then workers live, keep quiet, and lose nothing."""
    database_url = f"sqlite:///{tmp_path}/k2think.db"
    await asyncio.to_thread(upgrade, database_url)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    engine = SimulatedEngine(slots=64, token_s=0.01)
    with redis.Redis(unix_socket_path=str(redis_server.socket)) as admin:
        admin.execute_command("CONFIG SET maxmemory-policy noeviction")
        async with SimulatedServer(SolvingResponder(reasoning_tokens=20), engine=engine) as server:
            worker = start_worker(TMPDIR=str(temporary), **variables(database_url, redis_server.url, server))
            await worker.wait_for("worker_started")
            async with client(database_url, redis_server.url) as session:
                ids = await submit_all(session, JOBS)
                await worker.wait_for("step_finished")  # it has steps under way, and so messages to send
                admin.execute_command(begin)
                ids += await submit_all(session, JOBS)
                late = start_worker(**variables(database_url, redis_server.url, server))
                await late.wait_for("worker_started")
                await asyncio.sleep(4)
                assert late.stop() == 0, "it waits, and stops when told"
                assert worker.process.poll() is None, worker.log.read_text()[-2000:]
                admin.execute_command(end)
                assert all_succeeded(await results_of(session, ids))
    assert worker.stop() == 0
    log = worker.log.read_text()
    assert [line["service"] for line in worker.lines("service_unavailable")] == ["redis"], log[-3000:]
    assert "Traceback" not in log
    assert "Frequent restarts" not in log
    assert not list(temporary.rglob("*")), "nothing that was fetched is written to a file"


@pytest.mark.timeout(180)
async def test_what_is_no_message_is_refused_without_being_repeated(
    tmp_path: Path, redis_server: Any, start_worker: Callable[..., Worker]
) -> None:
    """Given things in the queues that nobody of ours has sent, then each costs one line, and jobs go on."""
    database_url = f"sqlite:///{tmp_path}/k2think.db"
    await asyncio.to_thread(upgrade, database_url)
    secret = "what nobody may read"
    properties = {"delivery_tag": "1", "delivery_info": {"exchange": "", "routing_key": "planner"}}
    message = {"body": secret, "content-type": "application/json", "content-encoding": "utf-8"}
    things: list[bytes] = [
        b"\xff\xfe" + secret.encode(),
        secret.encode(),
        b"[" * 100_000,
        *(
            json.dumps(thing).encode()
            for thing in (
                [secret],
                5,
                {"text": secret},
                {**message, "properties": {}},
                {**message, "properties": properties},
                {**message, "properties": properties, "headers": secret},
                {**message, "properties": properties, "headers": {"task": "k2think.plan"}},
                {**message, "properties": properties, "headers": {"task": [secret], "id": "x"}},
                {**message, "properties": properties, "headers": {"task": f"k2think.{secret}", "id": "x"}},
                {**message, "properties": properties, "headers": {"task": "k2think.plan", "id": "x"}},
            )
        ),
    ]
    async with SimulatedServer(SolvingResponder(reasoning_tokens=5), engine=SimulatedEngine(slots=64)) as server:
        worker = start_worker(**variables(database_url, redis_server.url, server))
        await worker.wait_for("worker_started")
        with redis.Redis(unix_socket_path=str(redis_server.socket)) as admin:
            for queue in ("planner", "intake"):
                admin.lpush(queue, *things, *things, *things, *things, *things, *things)
        async with client(database_url, redis_server.url) as session:
            assert all_succeeded(await results_of(session, await submit_all(session, JOBS)))
        async with asyncio.timeout(START_TIMEOUT_S):
            while len(worker.lines("message_refused")) + len(worker.lines("message_failed")) < 12 * len(things):
                await asyncio.sleep(0.05)
    assert worker.stop() == 0
    log = worker.log.read_text()
    assert secret not in log
    assert not worker.lines("service_unavailable")


@pytest.mark.timeout(180)
async def test_a_worker_told_to_stop_hands_its_steps_back(
    tmp_path: Path, redis_server: Any, start_worker: Callable[..., Worker]
) -> None:
    database_url = f"sqlite:///{tmp_path}/k2think.db"
    await asyncio.to_thread(upgrade, database_url)
    engine = SimulatedEngine(slots=64, token_s=0.1)
    async with SimulatedServer(SolvingResponder(accuracy=1.0, reasoning_tokens=40), engine=engine) as server:
        first = start_worker(**variables(database_url, redis_server.url, server))
        await first.wait_for("worker_started")
        async with client(database_url, redis_server.url) as session:
            [job_id] = await submit_all(session, 1, policy={"plan": "off", "n": 2})
            async with asyncio.timeout(START_TIMEOUT_S):
                while server.open_streams < 2:
                    await asyncio.sleep(0.02)

            assert await asyncio.to_thread(first.stop) == 0

            assert server.open_streams == 0, "its streams are closed"
            engine.token_s = 0.001
            second = start_worker(**variables(database_url, redis_server.url, server))
            await second.wait_for("worker_started")
            assert all_succeeded(await results_of(session, [job_id]))
            trace = await session.database.read(lambda connection: job_trace(connection, job_id))
    attempts = [attempt for step in trace.steps if step.kind == "generate_candidate" for attempt in step.attempts]
    released = [attempt for attempt in attempts if attempt.outcome is AttemptOutcome.released]
    assert len(released) == 2
    assert all(attempt.call is not None and attempt.call.usage.completion > 0 for attempt in released), "what it cost"


@pytest.mark.timeout(180)
async def test_a_step_that_kills_its_worker_goes_to_the_dead_letters(
    tmp_path: Path, redis_server: Any, start_worker: Callable[..., Worker]
) -> None:
    database_url = f"sqlite:///{tmp_path}/k2think.db"
    await asyncio.to_thread(upgrade, database_url)
    engine = SimulatedEngine(slots=64, token_s=0.2)
    async with SimulatedServer(SolvingResponder(accuracy=1.0, reasoning_tokens=200), engine=engine) as server:
        environment = {
            **variables(database_url, redis_server.url, server),
            "K2THINK_LEASE_S": "1",
            "K2THINK_HEARTBEAT_S": "0.4",
        }
        async with client(database_url, redis_server.url) as session:
            [job_id] = await submit_all(session, 1, policy={"plan": "off", "n": 1})
            for start in range(1, 4):
                worker = start_worker(**environment)
                async with asyncio.timeout(START_TIMEOUT_S):
                    while len(server.calls) < start:
                        await asyncio.sleep(0.02)
                os.kill(worker.process.pid, signal.SIGKILL)
                worker.process.wait()
            start_worker(**environment)
            [result] = await results_of(session, [job_id])
    assert len(server.calls) == 3, "it never started a fourth time"
    assert result.error is not None
    assert result.error.code == "dead_letter"
    assert "started 3 times" in result.error.message
