"""The rules of the limits: what headers say, and what the book makes of it, alone and against servers in simulated time."""

import random
from collections.abc import Callable

import pytest
from harness.limited_world import World
from k2think.agents.backends.simulator import RateHeaders, Refill, ServerRates
from k2think.agents.limit_book import (
    DECREASE,
    FIRST_TOKENS,
    HEED_S,
    PAUSE_S,
    STREAM_TTL_S,
    STREAMS_FIRST,
    WAITER_TTL_S,
    Book,
)
from k2think.agents.limit_terms import Answer, Both, Outcome, Terms
from k2think.agents.limits import UNLIMITED, Quota, ToldLimits, read_rate_limits

SECONDS = 60
REQUESTS, TOKENS = 600, 120_000
NOBODY = Terms()


def headers(**values: str) -> dict[str, str]:
    return {f"x-ratelimit-{name.replace('_', '-')}": value for name, value in values.items()}


# ---- What headers say

CEREBRAS = headers(
    limit_requests_day="14400",
    remaining_requests_day="14370",
    reset_requests_day="33011.382867097855",
    limit_tokens_minute="60000",
    remaining_tokens_minute="59000",
    reset_tokens_minute="11.38",
)
OPENAI = headers(
    limit_requests="5000",
    remaining_requests="4999",
    reset_requests="12ms",
    limit_tokens="160000",
    remaining_tokens="159976",
    reset_tokens="9ms",
)
# Requests are a day's there, tokens a minute's.
GROQ = headers(
    limit_requests="14400",
    remaining_requests="14370",
    reset_requests="2m59.56s",
    limit_tokens="18000",
    remaining_tokens="17997",
    reset_tokens="7.66ms",
)


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        pytest.param({}, ToldLimits(), id="none"),
        pytest.param(CEREBRAS, ToldLimits(tokens=Quota(60_000, 59_000)), id="cerebras"),
        pytest.param(OPENAI, ToldLimits(Quota(5_000, 4_999), Quota(160_000, 159_976)), id="openai"),
        pytest.param(GROQ, ToldLimits(tokens=Quota(18_000, 17_997)), id="groq"),
        pytest.param(
            headers(limit_requests="10000", remaining_requests="9999", reset_requests="8.64s"),
            ToldLimits(),
            id="openai-requests-of-a-day",
        ),
        pytest.param(
            headers(limit_requests_day="100", remaining_requests_day="0", reset_requests_day="33011.4"),
            ToldLimits(spent_s=33_011.4),
            id="day-spent",
        ),
        pytest.param(
            headers(limit_tokens="-1", remaining_tokens="-1", reset_tokens="0"), ToldLimits(), id="azure-says-nothing"
        ),
        pytest.param(
            headers(
                limit_tokens_per_minute="900", remaining_tokens_per_minute="8", reset_tokens_per_minute="1784000000"
            ),
            ToldLimits(tokens=Quota(900, 8)),
            id="reset-is-a-point-in-time",
        ),
        pytest.param(headers(limit_requests_minute="30"), ToldLimits(requests=Quota(30, None)), id="limit-alone"),
        pytest.param(headers(remaining_requests_minute="3"), ToldLimits(), id="remaining-alone"),
        pytest.param(
            headers(limit_requests_minute="many", remaining_tokens_minute="nan", limit_images_minute="5"),
            ToldLimits(),
            id="nonsense",
        ),
        pytest.param(
            headers(limit_requests="60", remaining_requests="0", reset_requests="1m0s"),
            ToldLimits(requests=Quota(60, 0)),
            id="spent-minute-is-no-day",
        ),
    ],
)
def test_rate_headers(told: dict[str, str], expected: ToldLimits) -> None:
    assert read_rate_limits(told) == expected


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("11.5", 11.5), ("12ms", 0.012), ("6m0s", 360), ("1h2m3.5s", 3723.5), ("1d", 86_400), ("soon", 0), ("5 s", 0)],
)
def test_resets_come_in_many_forms(text: str, seconds: float) -> None:
    told = headers(limit_tokens_day="10", remaining_tokens_day="0", reset_tokens_day=text)
    assert read_rate_limits(told).spent_s == pytest.approx(seconds)


# ---- What the book makes of it


class Calls:
    """A book with a clock."""

    def __init__(self, terms: Terms) -> None:
        self.book, self.terms, self.now, self.numbers = Book(), terms, 1_000.0, iter(range(10_000))

    def ask(self, tokens: int = 10, *, process: str = "a") -> tuple[str, Answer]:
        id = str(next(self.numbers))
        return id, self.book.reserve(self.now, self.terms, process=process, id=id, tokens=tokens)

    def go(self, tokens: int = 10, *, process: str = "a") -> tuple[str, Answer]:
        id, answer = self.ask(tokens, process=process)
        assert answer.granted
        return id, answer

    def tell(self, call: tuple[str, Answer], *, tokens: int = 10, **more: object) -> None:
        self.book.settle(self.now, self.terms, Outcome(id=call[0], granted=call[1], tokens=tokens, **more))  # type: ignore[arg-type]


async def test_without_limits_everybody_passes() -> None:
    async with UNLIMITED.reserve(tokens=10**9) as turn:
        assert turn.waited_s is None


def test_limits_begin_with_one_call_and_its_answer_tells_the_rest() -> None:
    calls = Calls(Terms(requests=60))
    first = calls.go()
    _, refused = calls.ask()
    assert not refused.granted
    assert refused.due_s == pytest.approx(1.0)
    calls.tell(first, used=5, limits=Both(60, None), remaining=Both(59, None))
    for _ in range(58):
        calls.go()
    assert not calls.ask()[1].granted, "one second's worth is never spent"


def test_what_was_not_used_is_given_back() -> None:
    calls = Calls(Terms(tokens=6_000))
    call = calls.go(5_000)
    calls.tell(call, tokens=5_000, used=100, limits=Both(None, 6_000), remaining=Both(None, 1_000))
    assert calls.book.tokens.level == pytest.approx(5_900)


def test_what_another_caller_of_the_account_uses_is_heeded() -> None:
    calls = Calls(Terms(tokens=6_000))
    call = calls.go(1_000)
    calls.tell(call, tokens=1_000, used=1_000, limits=Both(None, 6_000), remaining=Both(None, 150))
    assert calls.book.tokens.level == pytest.approx(150)


def test_answers_to_calls_that_overtook_each_other_change_nothing() -> None:
    calls = Calls(Terms(tokens=60_000))
    first = calls.go(100)
    calls.tell(first, tokens=100, used=100, limits=Both(None, 60_000), remaining=Both(None, 50_000))
    several = [calls.go(100) for _ in range(20)]
    for call, place in zip(reversed(several), range(20), strict=True):
        left = 50_000 - 100 * (place + 1)
        calls.tell(call, tokens=100, used=100, limits=Both(None, 60_000), remaining=Both(None, left))
    calls.now += HEED_S
    last = calls.go(100)
    held = last[1].held.tokens
    calls.tell(last, tokens=100, used=100, limits=Both(None, 60_000), remaining=Both(None, round(held)))
    assert calls.book.tokens.level == pytest.approx(held, abs=1)


def test_what_the_server_has_less_is_carried_over_in_a_mean() -> None:
    calls = Calls(Terms(tokens=60_000))
    first = calls.go(100)
    calls.tell(first, tokens=100, used=100, limits=Both(None, 60_000), remaining=Both(None, 50_000))
    calls.now += HEED_S
    for less in (3_000, 1_000):
        call = calls.go(100)
        left = round(call[1].held.tokens) - less
        calls.tell(call, tokens=100, used=100, limits=Both(None, 60_000), remaining=Both(None, left))
        held = call[1].held.tokens
    assert calls.book.tokens.level == pytest.approx(held, abs=1), "the second is a part of the next mean"
    assert calls.book.tokens.carried == pytest.approx(
        first[1].carried.tokens + 50_000 - first[1].held.tokens - 3_000, abs=1
    )


def test_a_limit_of_ours_below_the_servers_holds() -> None:
    calls = Calls(Terms(requests=60))
    for _ in range(5):
        call = calls.go()
        calls.tell(call, used=1, limits=Both(6_000, None), remaining=Both(5_999, None))
        calls.now += 1
    granted = sum(calls.ask()[1].granted for _ in range(200))
    assert granted <= 2


def test_a_refused_call_pauses_everybody_and_costs_nothing() -> None:
    calls = Calls(Terms(requests=600))
    call = calls.go()
    calls.tell(call, refused=True, retry_after_s=7.0)
    _, answer = calls.ask(process="b")
    assert (answer.granted, answer.pause_s) == (False, 7.0)
    assert not calls.book.streams
    calls.now += 7.1
    calls.go(process="b")


def test_a_refusal_without_retry_after_is_a_short_pause() -> None:
    calls = Calls(Terms(streams=5))
    calls.tell(calls.go(), refused=True)
    assert calls.ask()[1].pause_s == PAUSE_S


def test_one_decrease_for_all_that_was_in_flight() -> None:
    calls = Calls(Terms(adaptive=True))
    for call in [calls.go() for _ in range(5)]:
        calls.now += 0.01
        calls.tell(call, refused=True, retry_after_s=0.0)
    assert calls.book.allowed == pytest.approx(STREAMS_FIRST * DECREASE)
    calls.now += PAUSE_S
    calls.tell(calls.go(), refused=True, retry_after_s=0.0)
    assert calls.book.allowed == pytest.approx(STREAMS_FIRST * DECREASE**2)


def test_streams_grow_only_while_they_are_wanted() -> None:
    calls = Calls(Terms(adaptive=True))
    for _ in range(100):
        calls.now += 1
        calls.tell(calls.go(), used=5)
    assert calls.book.allowed == STREAMS_FIRST


def test_an_overloaded_server_gets_fewer_streams_and_no_pause() -> None:
    calls = Calls(Terms(adaptive=True))
    calls.tell(calls.go(), overloaded=True)
    assert calls.book.allowed < STREAMS_FIRST
    calls.go()


def test_a_dead_process_holds_neither_streams_nor_the_line() -> None:
    calls = Calls(Terms(streams=1))
    calls.go(process="dead")
    assert not calls.ask(process="dead")[1].granted
    calls.now += 1
    assert not calls.ask(process="b")[1].granted
    calls.now += max(STREAM_TTL_S, WAITER_TTL_S)
    calls.go(process="b")


def test_a_large_call_is_not_starved_by_small_ones() -> None:
    calls = Calls(Terms(tokens=6_000))
    calls.go(10, process="small")
    _, large = calls.ask(600, process="large")
    granted_after = 0
    while not large.granted:
        calls.now += 0.01
        granted_after += calls.ask(10, process="small")[1].granted
        _, large = calls.ask(600, process="large")
        assert calls.now < 1_000 + 10, "600 tokens come in 6 seconds, the margin in one"
    assert granted_after <= 1


def test_a_call_larger_than_the_quota_goes_when_the_bucket_is_full() -> None:
    calls = Calls(Terms(tokens=600))
    calls.go(10)
    assert not calls.ask(10_000)[1].granted
    calls.now += 61
    calls.go(10_000)


# ---- Against servers


def rates(**quotas: object) -> Callable[..., ServerRates]:
    return lambda **more: ServerRates(**quotas, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("way", ["configured", "learned"])
@pytest.mark.parametrize("style", [RateHeaders.cerebras, RateHeaders.openai])
@pytest.mark.parametrize("seed", [1, 2])
def test_a_quota_of_requests_is_used_up_without_refusals(way: str, style: RateHeaders, seed: int) -> None:
    terms = Terms(requests=REQUESTS) if way == "configured" else Terms(adaptive=True)
    world = World(rates(requests_per_minute=REQUESTS, headers=style), terms, seed=seed)
    world.run(SECONDS)
    assert world.refused_share < 0.01
    assert world.server.admitted >= 0.95 * (REQUESTS + REQUESTS * SECONDS / 60)


@pytest.mark.parametrize("way", ["configured", "learned"])
@pytest.mark.parametrize("style", [RateHeaders.cerebras, RateHeaders.openai])
@pytest.mark.parametrize("seed", [1, 2])
def test_a_quota_of_tokens_is_used_up_without_refusals(way: str, style: RateHeaders, seed: int) -> None:
    terms = Terms(tokens=TOKENS) if way == "configured" else Terms(adaptive=True)
    world = World(rates(tokens_per_minute=TOKENS, headers=style), terms, seed=seed)
    world.run(SECONDS)
    assert world.refused_share < 0.01
    assert world.server.used_tokens >= 0.95 * (TOKENS + TOKENS * SECONDS / 60)


@pytest.mark.parametrize("refill", list(Refill))
def test_a_server_that_tells_nothing_is_paced(refill: Refill) -> None:
    world = World(
        rates(requests_per_minute=REQUESTS, headers=RateHeaders.none, refill=refill), Terms(requests=REQUESTS)
    )
    world.run(2 * SECONDS)
    assert world.refused_share < 0.01
    assert world.server.admitted >= 0.95 * REQUESTS * 2 * SECONDS / 60


def test_limits_that_begin_afresh_flood_nobody() -> None:
    world = World(rates(requests_per_minute=REQUESTS), Terms(requests=REQUESTS))
    world.run(SECONDS)
    world.book = Book()
    world.run(SECONDS)
    assert world.refused_share < 0.01


@pytest.mark.parametrize("delay_s", [0.02, 0.5, 5.0])
def test_calls_that_overtake_each_other_confuse_nobody(delay_s: float) -> None:
    world = World(rates(requests_per_minute=REQUESTS), Terms(requests=REQUESTS), delay_s=delay_s)
    world.run(SECONDS)
    assert world.refused_share < 0.01
    assert world.server.admitted >= 0.95 * (REQUESTS + REQUESTS * SECONDS / 60)


@pytest.mark.parametrize("quota", ["requests_per_minute", "tokens_per_minute"])
def test_what_others_use_of_the_account_is_left_to_them(quota: str) -> None:
    limit = {"requests_per_minute": REQUESTS, "tokens_per_minute": TOKENS}[quota]
    world = World(rates(**{quota: limit}), Terms(**{quota.partition("_")[0]: limit}), others_share=0.5)
    world.run(2 * SECONDS)
    assert world.refused_share < 0.01
    used = world.server.admitted if world.server.requests else world.server.used_tokens
    assert used >= 0.95 * (limit + 0.5 * limit * 2 * SECONDS / 60)


def test_no_process_is_left_behind() -> None:
    world = World(rates(requests_per_minute=REQUESTS), Terms(requests=REQUESTS), processes=10)
    world.run(2 * SECONDS)
    shares = [world.granted[process] / sum(world.granted.values()) for process in range(10)]
    assert min(shares) > 0.05


def test_streams_settle_where_the_first_token_still_comes_soon() -> None:
    world = World(rates(), Terms(adaptive=True), slots=8, processes=4)
    world.run(10 * SECONDS)
    assert 8 <= world.book.allowed <= 40


def test_prompts_that_grow_longer_do_not_end_in_one_stream() -> None:
    world = World(rates(), Terms(adaptive=True), slots=8, processes=4)
    world.run(5 * SECONDS)
    before = world.book.allowed
    world.first_token_s *= 20
    world.run(5 * SECONDS)
    assert world.book.allowed > before / 3


def test_a_server_that_slows_down_gets_fewer_streams() -> None:
    world = World(rates(), Terms(adaptive=True), slots=20, processes=4)
    world.run(5 * SECONDS)
    before = world.book.allowed
    world.slots = 2
    world.run(5 * SECONDS)
    assert world.book.allowed < before / 2


def test_times_to_first_token_count_in_means() -> None:
    calls, chance = Calls(Terms(adaptive=True)), random.Random(1)
    for _ in range(10 * FIRST_TOKENS):
        calls.now += 1
        calls.tell(calls.go(), used=5, first_token_s=chance.choice((0.1, 0.1, 0.1, 0.5)))
    assert calls.book.allowed == STREAMS_FIRST
