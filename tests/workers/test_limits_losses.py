"""Limits shared through a real Redis survive what can happen to it and its callers."""

import asyncio
import os
import signal
import sys

import pytest
import redis
from conftest import RedisServer
from harness.limiters import LimiterMaker, stored, until
from k2think.agents.limit_book import STREAM_TTL_S
from k2think.agents.limit_terms import Answer
from k2think.schemas.errors import RateLimited
from k2think.workers import limits
from k2think.workers.limits import KEY_PREFIX, RedisLimiter

HOLDER = """
import asyncio, sys
from k2think.schemas.backend_settings import BackendSettings
from k2think.workers.limits import RedisLimiter
async def hold():
    settings = BackendSettings.model_validate({"backend": "openai", "model": "m", "streams_max": 1})
    async with RedisLimiter("fast", settings, broker_url=sys.argv[1]).reserve(tokens=10):
        print("held", flush=True)
        await asyncio.sleep(600)
asyncio.run(hold())
"""


async def test_the_streams_of_a_killed_process_come_free(
    limiter: LimiterMaker, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = limits.SCRIPT.replace(f"local STREAM_TTL_S = {STREAM_TTL_S}\n", "local STREAM_TTL_S = 0.5\n")
    assert short != limits.SCRIPT
    holder = await asyncio.create_subprocess_exec(
        sys.executable, "-c", HOLDER, redis_server.url, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert holder.stdout is not None
        assert await holder.stdout.readline() == b"held\n"
    finally:
        holder.kill()
        await holder.wait()
    # The holder's slot lasts as long as it said; the clock is not waited for here.
    with redis.Redis(unix_socket_path=str(redis_server.socket)) as client:
        (streams,) = client.keys(f"{KEY_PREFIX}*.streams")
        ((id, until_s),) = client.zrange(streams, 0, -1, withscores=True)
        client.zadd(streams, {id: until_s - STREAM_TTL_S})
    monkeypatch.setattr(limits, "SCRIPT", short)
    async with asyncio.timeout(5), limiter(streams_max=1).reserve(tokens=10):
        pass


async def test_a_stream_in_flight_is_renewed(
    limiter: LimiterMaker, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "RENEW_S", 0.05)
    one = limiter(streams_max=1)
    async with one.reserve(tokens=10):
        redis_server.flush()
        # Forgotten by Redis, and told anew by its holder.
        await until(lambda: bool(keys(redis_server)) and stored(redis_server)[1] == 1)


def keys(server: RedisServer) -> list[bytes]:
    with redis.Redis(unix_socket_path=str(server.socket)) as client:
        return client.keys(f"{KEY_PREFIX}*")


async def test_everything_in_redis_expires(limiter: LimiterMaker, redis_server: RedisServer) -> None:
    async with limiter(streams_max=3, requests_per_minute=60).reserve(tokens=10):
        found = keys(redis_server)
        with redis.Redis(unix_socket_path=str(redis_server.socket)) as client:
            assert len(found) == 2
            assert all(client.ttl(key) > 0 for key in found)
            assert {key.partition(b"{")[2].partition(b"}")[0] for key in found} != {b""}


async def test_flushall_lets_work_go_on(limiter: LimiterMaker, redis_server: RedisServer) -> None:
    both = [limiter(streams_max=2), limiter(streams_max=2)]
    done = 0

    async def calls(one: RedisLimiter) -> None:
        nonlocal done
        while True:
            async with one.reserve(tokens=10) as turn:
                await asyncio.sleep(0.005)
                turn.settle(5)
            done += 1

    tasks = [asyncio.create_task(calls(one)) for one in both for _ in range(3)]
    for _ in range(5):
        before = done
        await until(lambda before=before: done > before + 10)
        redis_server.flush()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize("way", ["killed", "silent"])
async def test_work_goes_on_without_redis(
    limiter: LimiterMaker, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    monkeypatch.setattr(limits, "REDIS_TIMEOUT_S", 0.2)
    one = limiter(streams_max=2)
    in_flight = most = done = 0

    async def calls() -> None:
        nonlocal in_flight, most, done
        while True:
            async with one.reserve(tokens=10) as turn:
                in_flight += 1
                most = max(most, in_flight)
                await asyncio.sleep(0.005)
                in_flight -= 1
                done += 1
                turn.settle(5)

    tasks = [asyncio.create_task(calls()) for _ in range(5)]
    await until(lambda: done > 5)
    if way == "killed":
        redis_server.kill()
    else:
        os.kill(redis_server.pid, signal.SIGSTOP)
    before, most = done, 0
    await until(lambda: done > before + 50)
    assert most <= 4, "two by Redis, when it went, and two by this process alone"
    if way == "killed":
        redis_server.start()
    else:
        os.kill(redis_server.pid, signal.SIGCONT)
    await until(lambda: one.shared)
    before = done
    await until(lambda: done > before + 20)
    assert one.shared
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_callers_who_leave_as_a_pause_is_told_take_nobodys_turn(
    limiter: LimiterMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = limiter(requests_per_minute=10)
    told = asyncio.Event()

    async def ask(_tokens: int) -> limits._Turn:
        await told.wait()
        return limits._Turn("id", Answer(granted=False, pause_s=10_000), local=False)

    async def call() -> None:
        async with one.reserve(tokens=1):
            pass

    monkeypatch.setattr(one, "_ask", ask)
    callers = [asyncio.create_task(call()) for _ in range(4)]
    await asyncio.sleep(0.05)
    told.set()
    callers[0].cancel()
    callers[1].cancel()
    async with asyncio.timeout(5):
        ends = await asyncio.gather(*callers, return_exceptions=True)
        assert [type(end) for end in ends] == [asyncio.CancelledError] * 2 + [RateLimited] * 2
        with pytest.raises(RateLimited):
            await call()
