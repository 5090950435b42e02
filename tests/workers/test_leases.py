"""Leases: a step whose work broke must not live on by its worker's heartbeat."""

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest
import redis
from harness.leases import reclaim_over
from harness.silent_link import SilentLink
from k2think.agents.pipeline import first_step
from k2think.schemas.jobs import SolveRequest
from k2think.schemas.trace import AttemptOutcome
from k2think.store.database import Database
from k2think.store.jobs import accept_job
from k2think.store.migrate import upgrade
from k2think.store.steps import Claim, claim_step
from k2think.workers import subscriptions
from k2think.workers.leases import Leases, Work
from k2think.workers.queues import CANCEL_CHANNEL

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


async def test_notices_are_heard_again_after_their_connection_went_silent(
    tmp_path: Path, redis_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscriptions, "PING_S", 0.2)
    url = f"sqlite:///{tmp_path}/k2think.db"
    await asyncio.to_thread(upgrade, url)
    database = Database(url)
    work = Work(await claimed(database))
    notice = json.dumps({"job": work.key[0], "steps": None})
    link = SilentLink(redis_server.socket)
    async with link.serve(), asyncio.timeout(20):
        leases = Leases(database, worker="w", broker_url=link.url, lease_s=LEASE_S, heartbeat_s=60)
        leases.add(work)
        leases.start()
        with redis.Redis(unix_socket_path=str(redis_server.socket)) as client:
            while not client.pubsub_numsub(CANCEL_CHANNEL)[0][1]:
                await asyncio.sleep(0.02)
            link.silence()
            while work.stopped is None:
                client.publish(CANCEL_CHANNEL, notice)
                await asyncio.sleep(0.05)
        await leases.close()
    assert link.connections == 2
    assert work.stopped is AttemptOutcome.cancelled
    database.close()
