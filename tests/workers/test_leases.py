"""Leases: a step whose work broke must not live on by its worker's heartbeat."""

import asyncio
import time
from pathlib import Path
from typing import Any

from harness.leases import reclaim_over
from k2think.agents.pipeline import first_step
from k2think.schemas.jobs import SolveRequest
from k2think.store.database import Database
from k2think.store.jobs import accept_job
from k2think.store.migrate import upgrade
from k2think.store.steps import claim_step
from k2think.workers.leases import Leases, Work

LEASE_S = 30.0


async def test_an_idle_lease_is_given_up_and_a_running_one_kept(tmp_path: Path, redis_server: Any) -> None:
    url = f"sqlite:///{tmp_path}/k2think.db"
    await asyncio.to_thread(upgrade, url)
    database = Database(url)
    leases = Leases(database, worker="w", broker_url=redis_server.url, lease_s=LEASE_S, heartbeat_s=0.05)
    claims = []
    for _ in range(2):
        request = SolveRequest(problem="What is 1 + 1?")
        accepted = await database.run(
            lambda conn, one=request: accept_job(
                conn, request=one, first=first_step(one), tenant="default", now=time.time()
            )
        )
        assert accepted.message is not None
        claim = await database.run(
            lambda conn, message=accepted.message: claim_step(
                conn, message, worker="w", now=time.time(), lease_s=LEASE_S
            )
        )
        assert claim is not None
        claims.append(claim)
    running, broken = claims
    leases.add(Work(running))
    leases.start()
    try:
        async with asyncio.timeout(20):
            lost = []
            while not lost:
                await asyncio.sleep(0.02)
                lost = await database.run(lambda conn: reclaim_over(conn, now=time.time(), attempts_max=3))
    finally:
        await leases.close()
        database.close()
    assert [step.job_id for step in lost] == [broken.envelope.job_id]
