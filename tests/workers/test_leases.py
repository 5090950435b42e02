"""Leases: a step whose work broke must not live on by its worker's heartbeat."""

import asyncio
import time
from pathlib import Path
from typing import Any

from harness.leases import reclaim_over
from k2think.agents.pipeline import first_step
from k2think.schemas.jobs import SolveRequest
from k2think.schemas.trace import AttemptOutcome
from k2think.store.database import Database
from k2think.store.jobs import accept_job
from k2think.store.migrate import upgrade
from k2think.store.steps import Claim, claim_step
from k2think.workers.leases import Leases, Work

LEASE_S = 30.0


async def claimed(database: Database) -> Claim:
    """Accept a job and claim its first step."""
    request = SolveRequest(problem="What is 1 + 1?")
    accepted = await database.run(
        lambda conn: accept_job(conn, request=request, first=first_step(request), tenant="default", now=time.time())
    )
    message = accepted.message
    assert message is not None
    claim = await database.run(lambda conn: claim_step(conn, message, worker="w", now=time.time(), lease_s=LEASE_S))
    assert claim is not None
    return claim


async def test_an_idle_lease_is_given_up_and_a_running_one_kept(tmp_path: Path, redis_server: Any) -> None:
    url = f"sqlite:///{tmp_path}/k2think.db"
    await asyncio.to_thread(upgrade, url)
    database = Database(url)
    leases = Leases(database, worker="w", broker_url=redis_server.url, lease_s=LEASE_S, heartbeat_s=0.05)
    running, broken = await claimed(database), await claimed(database)
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


async def test_what_a_claim_under_way_brings_is_handed_back(tmp_path: Path, redis_server: Any) -> None:
    url = f"sqlite:///{tmp_path}/k2think.db"
    await asyncio.to_thread(upgrade, url)
    database = Database(url)
    leases = Leases(database, worker="w", broker_url=redis_server.url, lease_s=LEASE_S, heartbeat_s=10)
    with leases.claiming():
        draining = asyncio.ensure_future(leases.drain(timeout_s=0))
        await asyncio.sleep(0.05)
        assert not draining.done(), "it waits for the claim"
        work = Work(await claimed(database))
        leases.add(work)
    assert work.stopped is AttemptOutcome.released
    assert not draining.done(), "it waits for the work"
    leases.remove(work)
    await draining
    database.close()
