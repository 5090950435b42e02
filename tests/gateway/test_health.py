"""/health/live and /health/ready: on real databases and Redis, present, gone and hanging."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from pathlib import Path
from typing import Any

from harness.asgi import gateway_settings, serving
from harness.operations import Place, bad, checks_of
from k2think.store.database import Database
from k2think.store.migrate import upgrade
from k2think.store.workers import ROLES_NEEDED
from sqlalchemy import text

BOUND_S = 5.0
"""Far more than the time-outs of the checks, far less than for ever."""


async def test_a_gateway_is_ready_once_every_role_that_jobs_need_is_alive(place: Place) -> None:
    async with serving(place.settings) as http:
        assert bad(await http.get("/health/ready")) == set(ROLES_NEEDED)

        for role in ROLES_NEEDED:
            place.sign(role)
        await asyncio.sleep(0.6)

        assert bad(await http.get("/health/ready")) == set()


async def test_one_process_of_role_all_is_enough(place: Place) -> None:
    place.sign("all")
    async with serving(place.settings) as http:
        assert bad(await http.get("/health/ready")) == set()


async def test_those_who_fell_silent_or_were_told_to_stop_do_not_count(place: Place) -> None:
    for role in ROLES_NEEDED:
        place.sign(role)
    place.sign("planner", worker="planner-0-0", draining=True)
    place.sign("verifier", worker="verifier-0-0", age_s=place.settings.lease_s + 5)
    async with serving(place.settings) as http:
        assert bad(await http.get("/health/ready")) == {"planner", "verifier"}


async def test_nothing_is_told_that_only_an_operator_should_know(place: Place) -> None:
    place.sign("all")
    async with serving(place.settings) as http:
        for path in ("/health/live", "/health/ready"):
            said = (await http.get(path)).text
            for secret in ("a-secret-host", socket.gethostname(), str(place.redis.socket), place.url, "0.1.0"):
                assert secret not in said


async def test_a_schema_of_another_version_is_told(place: Place) -> None:
    place.sign("all")
    for revision, words in (("0001", "older"), ("9999", "newer")):
        async with serving(place.settings) as http:
            place.database.run_sync(
                lambda conn, one=revision: conn.execute(
                    text("UPDATE alembic_version SET version_num = :one"), {"one": one}
                )
            )
            answer = await http.get("/health/ready")
        assert not checks_of(answer)["schema"]
        assert words in answer.text


async def test_a_redis_that_is_gone_makes_it_unready_and_the_process_stays_alive(place: Place) -> None:
    place.sign("all")
    async with serving(place.settings) as http:
        assert bad(await http.get("/health/ready")) == set()
        place.redis.kill()
        await asyncio.sleep(0.6)

        assert bad(await http.get("/health/ready")) == {"redis"}
        assert (await http.get("/health/live")).json() == {"alive": True}

        place.redis.start()
        await asyncio.sleep(0.6)
        assert bad(await http.get("/health/ready")) == set()


async def test_a_redis_that_hangs_delays_the_answer_only_so_long(place: Place) -> None:
    place.sign("all")
    os.kill(place.redis.pid, signal.SIGSTOP)
    try:
        async with serving(place.settings) as http:
            began = time.monotonic()
            assert bad(await http.get("/health/ready")) == {"redis"}
            assert time.monotonic() - began < BOUND_S
    finally:
        os.kill(place.redis.pid, signal.SIGCONT)


async def test_a_database_that_hangs_is_asked_once_however_many_ask(
    tmp_path: Path, redis_server: Any, postgres_server: Any
) -> None:
    url = postgres_server.new_database()
    upgrade(url)
    place = Place(tmp_path, url, redis_server)
    place.sign("all")
    locker = Database(url)
    locked, release = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def lock(conn: Any) -> None:
        conn.execute(text("LOCK TABLE alembic_version IN ACCESS EXCLUSIVE MODE"))
        loop.call_soon_threadsafe(locked.set)
        asyncio.run_coroutine_threadsafe(release.wait(), loop).result(60)

    holding = asyncio.ensure_future(locker.run(lock))
    try:
        async with serving(place.settings) as http:
            await locked.wait()
            began = time.monotonic()
            answers = await asyncio.gather(*(http.get("/health/ready") for _ in range(50)))
            answers += [await http.get("/health/ready")]
            assert time.monotonic() - began < 2 * BOUND_S
            assert all(bad(answer) == {"database", "schema", *ROLES_NEEDED} for answer in answers)
            waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            assert place.database.read_sync(lambda conn: conn.execute(text(waiting)).scalar_one()) == 1

            release.set()
            await holding
            await asyncio.sleep(0.6)
            assert bad(await http.get("/health/ready")) == set()
    finally:
        release.set()
        await holding
        locker.close()
        place.database.close()


async def test_being_alive_asks_nobody(tmp_path: Path) -> None:
    nowhere = gateway_settings(
        tmp_path, database_url="postgresql://nobody@127.0.0.1:1/none", broker_url="redis://127.0.0.1:1/0"
    )
    async with serving(nowhere) as http:
        began = time.monotonic()
        assert (await http.get("/health/live")).status_code == 200
        assert time.monotonic() - began < 1.0
