"""Limits shared through a real Redis: the script keeps the book's rules, and all processes have what it grants."""

import asyncio
import random
import time
from collections.abc import AsyncIterator
from dataclasses import asdict, replace

import pytest
from conftest import RedisServer
from harness.limiters import LimiterMaker, stored, until
from k2think.agents.limit_book import Book
from k2think.agents.limit_terms import Answer, Both, Facts, Outcome, Terms
from k2think.schemas.backend_settings import BackendSettings
from k2think.schemas.errors import RateLimited
from k2think.workers.limits import LimitScript, RedisLimiter, limiter_of
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
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2), other.reserve(tokens=10):
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
