"""Several backends under load in one stack of real processes: classes, stand-ins, and one that dies and comes back."""

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest
from harness.server import serving
from harness.stack import RunningUp, client_of, free_port, results_of, submit_all
from k2think.agents.backends.simulator import SimulatedEngine, SimulatedServer, SolvingResponder
from k2think.schemas.errors import InvalidRequest
from k2think.schemas.jobs import JobStatus
from sqlalchemy import text

JOBS = 40
RETURN_S = 30.0


@dataclass
class Pool:
    """A stack on two servers: generators on a and b, planner and verifier on a with b standing in."""

    up: RunningUp
    a: SimulatedServer
    b: SimulatedServer
    stop_a: Callable[[], None]
    start_a: Callable[[], SimulatedServer]


@pytest.fixture(scope="module")
def pool(start_up: Callable[..., RunningUp]) -> Iterator[Pool]:
    with ExitStack() as stack:

        def serve(port: int, owner: ExitStack) -> SimulatedServer:
            engine = SimulatedEngine(slots=64, token_s=0.005)
            responder = SolvingResponder(accuracy=0.6, reasoning_tokens=20)
            return owner.enter_context(serving(responder, engine=engine, port=port))

        port, dying = free_port(), stack.enter_context(ExitStack())
        a, b = serve(port, dying), serve(0, stack)
        common = {"backend": "openai", "model": "simulated", "breaker_rest_s": 0.5, "breaker_rest_max_s": 2}
        backends = {
            "a": {**common, "base_url": a.url, "classes": ["quick"], "weight": 0.5},
            "b": {**common, "base_url": b.url, "classes": ["cheap"]},
            "roles": {**common, "base_url": a.url, "fallback": ["b"]},
        }
        up = start_up(
            K2THINK_BACKENDS=json.dumps(backends),
            K2THINK_GENERATOR__BACKEND="a",
            K2THINK_PLANNER__BACKEND="roles",
            K2THINK_VERIFIER__BACKEND="roles",
        )
        yield Pool(up, a, b, dying.close, lambda: serve(port, stack))
        up.stop()


async def test_a_request_goes_to_the_backend_or_class_that_it_names(pool: Pool) -> None:
    async with client_of(pool.up) as session:
        for name, server, other in (("b", pool.b, pool.a), ("cheap", pool.b, pool.a), ("quick", pool.a, pool.b)):
            before = _generated(other)
            ids = await submit_all(session, 3, policy={"backend": name})
            assert all(result.status is JobStatus.succeeded for result in await results_of(session, ids))
            assert _generated(server) >= 3
            assert _generated(other) == before
        with pytest.raises(InvalidRequest, match=r"unknown backend 'slow'; known: a, b, roles, cheap, quick"):
            await submit_all(session, 1, policy={"backend": "slow"})


def _generated(server: SimulatedServer) -> int:
    return sum(call.role == "generator" for call in server.calls)


async def test_the_weight_is_a_share_of_the_steps_at_once(pool: Pool) -> None:
    query = text("SELECT backend, capacity FROM workers WHERE role = 'generator'")
    async with client_of(pool.up) as session:
        rows = await session.database.read(lambda connection: connection.execute(query).all())
    assert {row.backend: row.capacity for row in rows} == {"a": 50, "b": 100, "roles": 100}


@pytest.mark.timeout(120)
async def test_a_backend_that_dies_under_load_costs_no_job_and_serves_again_when_it_is_back(pool: Pool) -> None:
    async with client_of(pool.up) as session:
        ids = await submit_all(session, JOBS)
        while not pool.a.open_streams or _generated(pool.a) < 5:
            await asyncio.sleep(0.01)

        await asyncio.to_thread(pool.stop_a)
        died = time.time()
        ids += await submit_all(session, JOBS)
        results = await results_of(session, ids)

        assert all(result.status is JobStatus.succeeded for result in results)
        rows = await _attempts(session, since=died)
        assert {row.backend for row in rows if row.outcome == "done"} == {"b"}
        stood_in = [json.loads(row.left_calls) for row in rows if row.left_calls]
        assert all(left[0]["backend"] == "roles" and left[0]["reason"] == "backend_unreachable" for left in stood_in)
        assert stood_in, "the planner's calls went to the fallback inside their attempts"

        again = await asyncio.to_thread(pool.start_a)
        began = time.monotonic()
        while not {"planner", "generator"} <= {call.role for call in again.calls}:
            assert time.monotonic() - began < RETURN_S
            await results_of(session, await submit_all(session, 4))

    log = [line for line in pool.up.lines() if line.get("event") in ("backend_rests", "backend_returned", "fell_back")]
    assert {"a", "roles"} <= {line["backend"] for line in log if line["event"] == "backend_rests"}
    assert [line for line in log if line["event"] == "backend_returned"]


async def _attempts(session: Any, *, since: float) -> list[Any]:
    query = text("SELECT backend, outcome, left_calls FROM attempts WHERE claimed_at > :since AND backend <> ''")
    return await session.database.read(lambda connection: connection.execute(query, {"since": since}).all())
