"""Whatever is killed in the middle of 200 jobs, there are 200 results, each exactly once. Real processes throughout."""

import asyncio
from typing import Any

import pytest
import redis
from harness import stack
from k2think.workers.redis_server import socket_path
from sqlalchemy import text

JOBS = 200
TARGETS = ["planner", "generator", "verifier", "safety", "intake", "sweeper", "redis", "flushall"]


@pytest.mark.timeout(240)
@pytest.mark.parametrize("target", TARGETS)
async def test_two_hundred_results_each_exactly_once(simulated_up: Any, target: str) -> None:
    up = simulated_up.up
    async with stack.client_of(up) as session:
        ids = await stack.submit_all(session, JOBS)
        await _until_some_are_done(session, ids, JOBS // 5)
        if target == "flushall":
            with redis.Redis(unix_socket_path=str(socket_path(up.folder))) as client:
                client.flushall()
        else:
            up.kill(target)

        results = await stack.results_of(session, ids, timeout_s=150)

        assert stack.all_succeeded(results)
        await _assert_exactly_once(session, ids)


async def _until_some_are_done(session: Any, ids: list[str], count: int) -> None:
    query = text("SELECT count(*) FROM jobs WHERE result IS NOT NULL AND id >= :first AND id <= :last")
    while True:
        done = await session.database.read(
            lambda connection: connection.execute(query, {"first": min(ids), "last": max(ids)}).scalar_one()
        )
        assert done < len(ids), "the jobs were over before anything was killed"
        if done >= count:
            return
        await asyncio.sleep(0.02)


async def _assert_exactly_once(session: Any, ids: list[str]) -> None:
    bounds = {"first": min(ids), "last": max(ids)}
    finished = text(
        "SELECT job_id, count(*) FROM events WHERE kind = 'finished' AND job_id BETWEEN :first AND :last GROUP BY job_id"
    )
    open_steps = text(
        "SELECT count(*) FROM steps WHERE status IN ('ready', 'running') AND job_id BETWEEN :first AND :last"
    )
    most = text("SELECT max(attempts - released) FROM steps WHERE job_id BETWEEN :first AND :last")
    done_twice = text(
        "SELECT count(*) FROM (SELECT 1 FROM attempts WHERE outcome = 'done' AND job_id BETWEEN :first AND :last "
        "GROUP BY job_id, step HAVING count(*) > 1)"
    )

    def look(connection: Any) -> None:
        endings = dict(connection.execute(finished, bounds).all())
        assert set(endings) == set(ids)
        assert set(endings.values()) == {1}, "each job finished exactly once"
        assert connection.execute(open_steps, bounds).scalar_one() == 0, "nothing is left to do"
        assert connection.execute(most, bounds).scalar_one() <= 3, "no step started more than three times"
        assert connection.execute(done_twice, bounds).scalar_one() == 0, "no step was done twice"

    await session.database.read(look)
