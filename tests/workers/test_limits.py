"""Limits shared through a real Redis: the script keeps the book's rules, and survives what can happen to it and its callers."""

import asyncio
import json
import os
import random
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, aclosing
from dataclasses import asdict, replace
from typing import Any

import pytest
import redis
from conftest import RedisServer
from k2think.agents.backends.openai import OpenAIBackend
from k2think.agents.backends.simulator import CallOutcome, Reply, Script, ServerRates, SimulatedServer
from k2think.agents.call import call_model
from k2think.agents.limit_book import STREAM_TTL_S, Book
from k2think.agents.limit_terms import Answer, Both, Facts, Outcome, Terms
from k2think.schemas.backend_settings import BackendSettings
from k2think.schemas.completion import ChatMessage, CompletionRequest
from k2think.schemas.errors import RateLimited
from k2think.schemas.trace import CallTrace
from k2think.workers import limits
from k2think.workers.limits import KEY_PREFIX, LimitScript, RedisLimiter, limiter_of
from k2think.workers.redis_clients import async_redis_client

ROUNDS = 400


class Walk:
    """A walk through calls of two processes, the same for each keeper of the same seed."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.terms = Terms(
            requests=self.chance.choice((None, 60, 600)),
            tokens=self.chance.choice((None, 6_000, 60_000)),
            streams=self.chance.choice((None, 3, 20)),
            adaptive=self.chance.random() < 0.7,
        )
        self.now = 1_000.0

    def tell(self, granted: Answer, id: str, tokens: int) -> Outcome:
        chance = self.chance
        outcome = Outcome(id=id, granted=granted, tokens=tokens, used=chance.randrange(tokens))
        kind = chance.random()
        if kind < 0.1:
            after_s = chance.choice((None, 0.5))
            outcome = replace(outcome, used=None, refused=True, retry_after_s=after_s)
        elif kind < 0.15:
            outcome = replace(outcome, used=None, overloaded=True)
        elif kind < 0.2:
            outcome = replace(outcome, used=None)
        else:
            outcome = replace(outcome, first_token_s=chance.choice((0.1, 0.1, 2.0)))
        if chance.random() < 0.5:
            told = Both(chance.choice((None, 300, 900)), chance.choice((None, 30_000)))
            left = Both(*(None if limit is None else chance.randrange(limit) for limit in told))
            outcome = replace(outcome, limits=told, remaining=left, spent_s=chance.choice((0, 0, 0, 0.2)))
        return outcome


@pytest.fixture
async def script(redis_server: RedisServer) -> AsyncIterator[LimitScript]:
    client = async_redis_client(redis_server.url)
    yield LimitScript(client, "fast")
    await client.aclose()


def close(one: Facts, other: Facts) -> bool:
    def flat(facts: Facts) -> dict[str, float]:
        values = asdict(facts)
        for pair in ("held", "carried"):
            values |= {f"{pair}.{number}": part for number, part in enumerate(values.pop(pair, ()))}
        return {name: -1.0 if value is None else float(value) for name, value in values.items()}

    return flat(one) == pytest.approx(flat(other), rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("seed", range(6))
async def test_the_script_keeps_the_rules_of_the_book(script: LimitScript, seed: int) -> None:
    walk, book = Walk(seed), Book()
    flying: list[tuple[Answer, Answer, str, int]] = []
    grants = 0
    for number in range(ROUNDS):
        walk.now += walk.chance.expovariate(10)
        now, terms, deed = walk.now, walk.terms, walk.chance.random()
        process = walk.chance.choice("ab")
        if deed < 0.55:
            id, tokens = f"call-{number}", walk.chance.choice((50, 500, 5_000))
            ours = book.reserve(now, terms, process=process, id=id, tokens=tokens)
            theirs = await script.reserve(terms, process=process, id=id, tokens=tokens, now=now)
            assert close(ours, theirs), f"reserve {number}: {ours} {theirs}"
            if ours.granted:
                grants += 1
                flying.append((ours, theirs, id, tokens))
        elif deed < 0.9 and flying:
            ours, theirs, id, tokens = flying.pop(walk.chance.randrange(len(flying)))
            outcome = walk.tell(ours, id, tokens)
            one = book.settle(now, terms, outcome)
            other = await script.settle(terms, replace(outcome, granted=theirs), now=now)
            assert close(one, other), f"settle {number}: {one} {other}"
        elif deed < 0.95:
            ids = [id for _, _, id, _ in flying]
            one = book.renew(now, terms, process=process, ids=ids)
            assert close(one, await script.renew(terms, process=process, ids=ids, now=now))
        else:
            book.leave(process)
            await script.leave(terms, process=process, now=now)
    assert grants > 10


# ---- Limiters


LimiterMaker = Callable[..., RedisLimiter]


@pytest.fixture
async def limiter(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[LimiterMaker]:
    """`limiter(streams_max=…)`: one process's keeper of the limits of one backend."""
    monkeypatch.setattr(limits, "AWAY_S", 0.1)
    made: list[RedisLimiter] = []

    def make(**fields: object) -> RedisLimiter:
        settings = BackendSettings.model_validate({"backend": "openai", "model": "m", **fields})
        one = limiter_of("fast", settings, broker_url=redis_server.url)
        assert one is not None
        made.append(one)
        return one

    yield make
    for one in made:
        await one.aclose()


def stored(server: RedisServer) -> tuple[dict[str, Any], int]:
    """Return what Redis knows: the book, and how many streams are in flight."""
    with redis.Redis(unix_socket_path=str(server.socket)) as client:
        (state,) = client.keys(f"{KEY_PREFIX}*.state")
        streams = state.replace(b".state", b".streams")
        return json.loads(client.get(state)), client.zcard(streams)


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not true():
            await asyncio.sleep(0.01)


def test_a_backend_without_limits_has_no_limiter() -> None:
    assert limiter_of("fast", BackendSettings(), broker_url="redis://127.0.0.1:1/0") is None
    assert BackendSettings.model_validate({"backend": "cerebras"}).limited
    assert not BackendSettings.model_validate({"backend": "cerebras", "adaptive": False}).limited


async def test_two_processes_share_the_streams(limiter: LimiterMaker) -> None:
    in_flight = most = 0

    async def call(one: RedisLimiter) -> None:
        nonlocal in_flight, most
        async with one.reserve(tokens=10) as turn:
            in_flight += 1
            most = max(most, in_flight)
            await asyncio.sleep(0.02)
            in_flight -= 1
            turn.settle(5)

    both = [limiter(streams_max=3), limiter(streams_max=3)]
    await asyncio.gather(*(call(both[number % 2]) for number in range(30)))
    assert most == 3


async def test_two_processes_share_the_requests(limiter: LimiterMaker) -> None:
    granted: list[float] = []

    async def calls(one: RedisLimiter) -> None:
        while True:
            async with one.reserve(tokens=10) as turn:
                granted.append(time.monotonic())
                turn.settle(5)

    both = [asyncio.create_task(calls(limiter(requests_per_minute=1_200))) for _ in range(2)]
    await until(lambda: len(granted) >= 20)
    for task in both:
        task.cancel()
    assert granted[19] - granted[0] >= 18 / 20, "twenty a second, and the first at once"


async def test_what_is_left_over_is_given_back(limiter: LimiterMaker, redis_server: RedisServer) -> None:
    one = limiter(tokens_per_minute=6_000)
    async with one.reserve(tokens=500) as turn:
        turn.settle(20)
    await until(lambda: stored(redis_server)[1] == 0)
    level = stored(redis_server)[0]["tokens"]["level"]
    assert 480 + 100 <= level <= 600, "what was not used, the margin, and what filled in"


async def test_a_call_that_never_began_costs_nothing(limiter: LimiterMaker, redis_server: RedisServer) -> None:
    one = limiter(requests_per_minute=6, tokens_per_minute=60)
    with pytest.raises(LookupError):
        async with one.reserve(tokens=10):
            raise LookupError
    async with asyncio.timeout(5), one.reserve(tokens=10):
        pass


async def test_a_refusal_pauses_the_other_process_too(limiter: LimiterMaker) -> None:
    one, other = limiter(streams_max=10), limiter(streams_max=10)
    async with one.reserve(tokens=10) as turn:
        turn.refused(0.5)
    refused_at = time.monotonic()
    await asyncio.sleep(0.1)
    async with other.reserve(tokens=10) as turn:
        assert time.monotonic() - refused_at >= 0.45
        assert turn.waited_s is not None


async def test_a_long_pause_is_told_at_once(limiter: LimiterMaker) -> None:
    one, other = limiter(streams_max=10), limiter(streams_max=10, retry_after_max_s=5)
    async with one.reserve(tokens=10) as turn:
        turn.refused(600.0)
    await asyncio.sleep(0.1)
    with pytest.raises(RateLimited, match="wait") as caught:
        async with asyncio.timeout(5), other.reserve(tokens=10):
            pass
    assert caught.value.retry_after_s == pytest.approx(600, abs=5)


async def test_limits_are_learned_from_headers(limiter: LimiterMaker, redis_server: RedisServer) -> None:
    one, other = limiter(adaptive=True), limiter(adaptive=True)
    told = {"x-ratelimit-limit-requests-minute": "60", "x-ratelimit-remaining-requests-minute": "3"}
    async with one.reserve(tokens=10) as turn:
        turn.told(told)
        turn.settle(5)
    await until(lambda: stored(redis_server)[0]["told"])
    for _ in range(2):
        async with other.reserve(tokens=10) as turn:
            turn.settle(5)
    loop = asyncio.get_running_loop()
    with pytest.raises(RateLimited, match="no turn within the time"):
        async with other.reserve(tokens=10, deadline=loop.time() + 0.2):
            pass


async def test_whoever_stops_waiting_leaves_nothing_behind(limiter: LimiterMaker, redis_server: RedisServer) -> None:
    one = limiter(streams_max=1)

    async def wait() -> None:
        async with one.reserve(tokens=10):
            pass

    async with one.reserve(tokens=10):
        waiters = [asyncio.create_task(wait()) for _ in range(5)]
        await until(lambda: bool(stored(redis_server)[0]["line"]))
        for waiter in waiters:
            waiter.cancel()
        await asyncio.gather(*waiters, return_exceptions=True)
        await until(lambda: not stored(redis_server)[0]["line"])
    await until(lambda: stored(redis_server)[1] == 0)


async def test_a_grant_that_comes_too_late_is_given_back(limiter: LimiterMaker, redis_server: RedisServer) -> None:
    one = limiter(streams_max=1)

    async def wait() -> None:
        async with one.reserve(tokens=10):
            pass

    for delay_s in (0.0, 0.0005, 0.001, 0.0015, 0.002, 0.003):
        for _ in range(5):
            waiter = asyncio.create_task(wait())
            await asyncio.sleep(delay_s)
            waiter.cancel()
            await asyncio.gather(waiter, return_exceptions=True)
    async with asyncio.timeout(5), one.reserve(tokens=10):
        pass
    await until(lambda: stored(redis_server)[1] == 0)


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


# ---- Calls


@pytest.fixture
async def limited() -> AsyncIterator[Callable[..., Any]]:
    """`await limited(requests_per_minute=…)`: a simulated server with quotas."""
    async with AsyncExitStack() as stack:

        async def make(**quotas: object) -> SimulatedServer:
            rates = ServerRates(**quotas)  # type: ignore[arg-type]
            reply = Reply(text="word " * 20, token_s=0.001)
            return await stack.enter_async_context(SimulatedServer(Script(reply), rates=rates))

        yield make


REQUEST = CompletionRequest(messages=(ChatMessage(role="user", content="What is 347 + 58?"),), max_tokens=400)


@pytest.mark.parametrize("quota", ["requests_per_minute", "tokens_per_minute"])
async def test_calls_to_a_limited_server_wait_instead_of_being_refused(
    limiter: LimiterMaker, limited: Callable[..., Any], quota: str
) -> None:
    per_minute = {"requests_per_minute": 60, "tokens_per_minute": 1_200}[quota]
    server = await limited(**{quota: per_minute})
    settings = BackendSettings.model_validate(
        {"backend": "openai", "base_url": server.url, "model": "simulated", quota: per_minute}
    )
    backends = [OpenAIBackend(settings, name="fast") for _ in range(2)]
    keepers = [limiter(base_url=server.url, **{quota: per_minute}) for _ in range(2)]
    records = [CallTrace() for _ in range(61 if quota == "requests_per_minute" else 20)]
    calls = (
        call_model(backends[number % 2], REQUEST, record=record, settings=settings, limiter=keepers[number % 2])
        for number, record in enumerate(records)
    )
    began = time.monotonic()
    async with aclosing(backends[0]), aclosing(backends[1]):
        await asyncio.gather(*calls)
    took_s = time.monotonic() - began
    assert not [call for call in server.calls if call.outcome is CallOutcome.refused]
    assert len(server.calls) == len(records)
    waits = [record.limit_wait_s for record in records if record.limit_wait_s is not None]
    assert len(waits) == len(records)
    assert max(waits) > 0.1, "the bucket does not hold all of them"
    for record in records:
        assert record.time_to_first_token_s is not None
        assert record.time_to_first_token_s <= record.duration_s
        assert record.duration_s + (record.limit_wait_s or 0) <= took_s + 0.1
    assert min(record.duration_s for record in records) < 1.0


async def test_a_call_that_is_cancelled_in_line_was_not_begun(
    limiter: LimiterMaker, limited: Callable[..., Any]
) -> None:
    server = await limited(requests_per_minute=600)
    settings = BackendSettings.model_validate({"backend": "openai", "base_url": server.url, "model": "simulated"})
    backend, keeper, record = OpenAIBackend(settings, name="fast"), limiter(streams_max=1), CallTrace()
    async with aclosing(backend), keeper.reserve(tokens=10):
        task = asyncio.create_task(call_model(backend, REQUEST, record=record, settings=settings, limiter=keeper))
        await asyncio.sleep(0.2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert not server.calls
    assert record.usage.total == 0
    assert (record.limit_wait_s or 0) >= 0.2
    assert record.duration_s < 0.2


async def test_a_refusal_by_the_server_is_told_to_everybody(limiter: LimiterMaker, limited: Callable[..., Any]) -> None:
    server = await limited(requests_per_minute=60)
    settings = BackendSettings.model_validate({"backend": "openai", "base_url": server.url, "model": "simulated"})
    backend, keeper = OpenAIBackend(settings, name="fast"), limiter(adaptive=True)
    server.rates.requests.take(60)
    record = CallTrace()
    async with aclosing(backend):
        await call_model(backend, REQUEST, record=record, settings=settings, limiter=keeper)
    assert [call.outcome for call in server.calls] == [CallOutcome.refused, CallOutcome.completed]
    assert record.retries == 1
