"""Limits shared through a real Redis: the script keeps the book's rules, and survives what can happen to it and its callers."""

import random
from collections.abc import AsyncIterator
from dataclasses import asdict, replace

import pytest
from conftest import RedisServer
from k2think.agents.limit_book import Book
from k2think.agents.limit_terms import Answer, Both, Facts, Outcome, Terms
from k2think.workers.limits import LimitScript
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
