"""Bells: one connection for all that a process waits for, whatever becomes of Redis."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING

import pytest
import redis
from harness.silent_link import SilentLink
from k2think.workers import subscriptions
from k2think.workers.doorbells import CONFIRM_S, POLL_CONNECTED_S, POLL_S, Doorbells
from k2think.workers.queues import ENDED_NOTICE, RUNG_NOTICE, job_channel

if TYPE_CHECKING:
    from conftest import RedisServer

MANY = 50
TIMEOUT_S = 20.0


@pytest.fixture
def client(redis_server: RedisServer) -> redis.Redis:
    """A client of the server under test."""
    return redis.Redis(unix_socket_path=str(redis_server.socket))


def listeners(client: redis.Redis, job_id: str) -> int:
    """Return how many connections are subscribed to a job's channel."""
    with client:
        return client.pubsub_numsub(job_channel(job_id))[0][1]


async def until(client: redis.Redis, job_id: str, *, count: int) -> None:
    """Wait until so many connections are subscribed."""
    async with asyncio.timeout(TIMEOUT_S):
        while listeners(client, job_id) != count:
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def bells_of(server: RedisServer) -> AsyncGenerator[Doorbells]:
    """Bells whose connection is kept."""
    bells = Doorbells(server.url)
    async with bells.kept():
        yield bells


async def test_many_bells_share_one_connection(redis_server: RedisServer, client: redis.Redis) -> None:
    async with bells_of(redis_server) as bells, contextlib.AsyncExitStack() as stack:
        for number in range(MANY):
            await stack.enter_async_context(bells.at(f"job-{number}"))
            await stack.enter_async_context(bells.at(f"job-{number}"))
        await until(client, f"job-{MANY - 1}", count=1)
        assert all(listeners(client, f"job-{number}") == 1 for number in range(MANY))
        with client:
            assert len(client.client_list("pubsub")) == 1
        await stack.aclose()
        for number in range(MANY):
            await until(client, f"job-{number}", count=0)
    with client:
        assert client.client_list("pubsub") == []


async def test_a_bell_hears_its_own_job_and_nobody_elses(redis_server: RedisServer, client: redis.Redis) -> None:
    bells = Doorbells(redis_server.url)
    async with bells.at("mine") as mine, bells.at("other") as other:
        await until(client, "other", count=1)
        for bell in (mine, other):  # the connection itself rings all of them once
            await bell.ring()
            await bell.end()
        began = time.monotonic()
        with client:
            client.publish(job_channel("mine"), RUNG_NOTICE)
        await mine.ring()
        assert time.monotonic() - began < POLL_CONNECTED_S
        ending = asyncio.ensure_future(mine.end())
        ringing = asyncio.ensure_future(other.ring())
        await asyncio.sleep(0.2)
        assert not ending.done()
        assert not ringing.done()
        with client:
            client.publish(job_channel("mine"), ENDED_NOTICE)
        await ending
        assert time.monotonic() - began < POLL_CONNECTED_S
        await ringing
        assert time.monotonic() - began >= POLL_CONNECTED_S


async def test_bells_are_heard_again_when_redis_is_back(redis_server: RedisServer, client: redis.Redis) -> None:
    async with bells_of(redis_server) as bells, bells.at("job") as bell:
        await until(client, "job", count=1)
        redis_server.kill()
        async with asyncio.timeout(TIMEOUT_S):
            while bells.connected:
                await asyncio.sleep(0.01)
        began = time.monotonic()
        async with bells.at("while-away"):
            redis_server.start()
            await until(client, "while-away", count=1)
            await until(client, "job", count=1)
        await bell.end()
        await bell.ring()
        assert time.monotonic() - began < TIMEOUT_S
        with client:
            client.publish(job_channel("job"), ENDED_NOTICE)
        await bell.end()


async def test_without_redis_waiting_is_looking_now_and_then(redis_server: RedisServer) -> None:
    redis_server.kill()
    bells = Doorbells(redis_server.url)
    async with bells.at("job") as bell:
        began = time.monotonic()
        await bell.end()
        assert POLL_S <= time.monotonic() - began < TIMEOUT_S


async def test_a_bell_is_heard_when_it_is_handed_out(redis_server: RedisServer, client: redis.Redis) -> None:
    async with bells_of(redis_server) as bells:
        for number in range(MANY):
            async with bells.at(f"job-{number}"):
                assert listeners(client, f"job-{number}") == 1


async def test_a_connection_that_went_silent_is_replaced(
    redis_server: RedisServer, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscriptions, "PING_S", 0.3)
    link = SilentLink(redis_server.socket)
    async with link.serve():
        bells = Doorbells(link.url)
        async with bells.kept(), bells.at("before") as before:
            link.silence()
            began = time.monotonic()
            async with bells.at("after"):
                assert time.monotonic() - began < CONFIRM_S
                assert link.connections == 2
                assert listeners(client, "after") == 1
            with client:
                client.publish(job_channel("before"), ENDED_NOTICE)
            await before.end()


async def test_a_quiet_connection_is_kept(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subscriptions, "PING_S", 0.2)
    link = SilentLink(redis_server.socket)
    async with link.serve():
        bells = Doorbells(link.url)
        async with bells.kept(), bells.at("job"):
            await asyncio.sleep(3)
            assert bells.connected
            assert link.connections == 1
