"""Routes over real simulated servers: stand-ins, rests, hedges, and what the record tells of all that."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from k2think.agents.backends.openai import OpenAIBackend
from k2think.agents.backends.simulator import (
    CallOutcome,
    Fault,
    FaultKind,
    Reply,
    Script,
    SimulatedServer,
)
from k2think.agents.breaker import BreakerState
from k2think.agents.hedging import HEDGE_LOST
from k2think.agents.limits import Reservation
from k2think.agents.pace import SAMPLES_MIN
from k2think.agents.routing import Route
from k2think.agents.targets import Target
from k2think.schemas.backend_settings import BackendKind, BackendSettings
from k2think.schemas.completion import ChatMessage, CompletionRequest
from k2think.schemas.errors import (
    BackendsResting,
    BadRequest,
    ConfigurationError,
    Overloaded,
    RateLimited,
    StreamBroken,
    Unauthorized,
)
from k2think.schemas.trace import CallTrace

REQUEST = CompletionRequest(messages=(ChatMessage(role="user", content="What is 2 + 2?"),))
DOWN = Reply(fault=Fault(FaultKind.status, status=503))
BROKEN = Reply(text="one two three four five six", fault=Fault(FaultKind.reset, after_tokens=3))
NO_KEY = Reply(fault=Fault(FaultKind.status, status=401))
WRONG = Reply(fault=Fault(FaultKind.status, status=400))


@dataclass
class Watch:
    """What a route told."""

    told: list[tuple[Any, ...]] = field(default_factory=list[tuple[Any, ...]])

    def rests(self, backend: str, *, seconds: float, reason: str) -> None:
        self.told.append(("rests", backend))

    def returned(self, backend: str) -> None:
        self.told.append(("returned", backend))

    def fell_back(self, backend: str, to: str, *, reason: str) -> None:
        self.told.append(("fell back", backend, to))

    def hedged(self, backend: str, to: str, *, won: bool) -> None:
        self.told.append(("hedged", backend, to, won))


@dataclass(frozen=True)
class SlowTurns:
    """A limiter whose turns are all waited for."""

    wait_s: float

    @asynccontextmanager
    async def reserve(self, *, tokens: int, deadline: float | None = None) -> AsyncIterator[Reservation]:
        await asyncio.sleep(self.wait_s)
        turn = Reservation(tokens)
        turn.waited_s = self.wait_s
        yield turn


@dataclass
class World:
    """Servers a, b, … and a route over them."""

    servers: dict[str, SimulatedServer]
    targets: dict[str, Target]
    watch: Watch

    def route(self, *names: str, hedge: str | None = None) -> Route:
        targets = tuple(self.targets[name] for name in names)
        own = self.made[names[0]]
        return Route(own, targets, self.targets[hedge] if hedge else None)

    made: dict[str, OpenAIBackend] = field(default_factory=dict[str, OpenAIBackend])

    def calls(self, name: str) -> int:
        return len(self.servers[name].calls)


Build = Callable[..., Awaitable[World]]


@pytest.fixture
async def world() -> AsyncIterator[Build]:
    """`await world(a=[replies], b=[replies], **settings)`."""
    async with AsyncExitStack() as stack:

        async def build(*, settings: dict[str, Any] | None = None, **replies: list[Reply]) -> World:
            built = World({}, {}, Watch())
            for name, script in replies.items():
                server = await stack.enter_async_context(SimulatedServer(Script(*script)))
                fields = {
                    "backend": BackendKind.openai,
                    "base_url": server.url,
                    "model": "simulated",
                    "connect_retries": 0,
                }
                chosen = BackendSettings.model_validate({**fields, **(settings or {})})
                backend = OpenAIBackend(chosen, name=name)
                stack.push_async_callback(backend.aclose)

                async def make(backend: OpenAIBackend = backend) -> OpenAIBackend:
                    return backend

                built.servers[name] = server
                built.made[name] = backend
                built.targets[name] = Target(name, chosen, make, watcher=built.watch)
            return built

        yield build


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        (DOWN, "backend_overloaded"),
        (NO_KEY, "backend_unauthorized"),
        (Reply(fault=Fault.rate_limited(retry_after="300")), "backend_rate_limited"),
        (Reply(fault=Fault(FaultKind.reset)), "backend_unreachable"),
        (Reply(fault=Fault(FaultKind.html)), "backend_malformed_response"),
    ],
    ids=["503", "401", "429", "reset", "html"],
)
async def test_a_call_that_fails_before_a_token_goes_to_the_next(world: Build, reply: Reply, code: str) -> None:
    servers = await world(a=[reply], b=[Reply(text="four")])
    record = CallTrace()

    done = await servers.route("a", "b").complete(REQUEST, record=record)

    assert done.text == "four"
    assert (record.backend, record.raw_text) == ("b", "four")
    assert [(left.backend, left.reason) for left in record.left_calls] == [("a", code)]
    assert ("fell back", "a", "b") in servers.watch.told


async def test_a_server_that_is_away_is_left_for_the_next(world: Build) -> None:
    servers = await world(a=[Reply(text="never")], b=[Reply(text="four")])
    await servers.servers["a"].stop()
    record = CallTrace()
    assert (await servers.route("a", "b").complete(REQUEST, record=record)).text == "four"
    assert record.left_calls[0].reason == "backend_unreachable"
    assert record.wasted.total == 0


async def test_what_is_wrong_with_the_request_is_wrong_everywhere(world: Build) -> None:
    servers = await world(a=[WRONG], b=[Reply(text="four")])
    with pytest.raises(BadRequest):
        await servers.route("a", "b").complete(REQUEST, record=CallTrace())
    assert servers.calls("b") == 0
    assert servers.targets["a"].breaker.state is BreakerState.closed


async def test_a_stream_that_broke_is_the_steps_to_repeat(world: Build) -> None:
    servers = await world(a=[BROKEN], b=[Reply(text="four")])
    record = CallTrace()
    with pytest.raises(StreamBroken):
        await servers.route("a", "b").complete(REQUEST, record=record)
    assert servers.calls("b") == 0
    assert (record.backend, record.usage.completion > 0, record.left_calls) == ("a", True, [])


async def test_after_failures_in_a_row_it_is_not_asked_and_a_trial_brings_it_back(world: Build) -> None:
    settings = {"breaker_failures": 2, "breaker_rest_s": 0.2}
    servers = await world(settings=settings, a=[DOWN, DOWN, Reply(text="a is back")], b=[Reply(text="four")])
    route = servers.route("a", "b")
    for _ in range(5):
        assert (await route.complete(REQUEST, record=CallTrace())).text == "four"
    assert servers.calls("a") == 2
    await asyncio.sleep(0.25)

    assert (await route.complete(REQUEST, record=CallTrace())).text == "a is back"

    assert (await route.complete(REQUEST, record=CallTrace())).text == "a is back"
    assert [told for told in servers.watch.told if told[0] != "fell back"] == [("rests", "a"), ("returned", "a")]


async def test_a_wrong_key_is_left_alone_at_once_where_another_serves_and_told_where_none_does(world: Build) -> None:
    servers = await world(a=[NO_KEY], b=[Reply(text="four")])
    for _ in range(3):
        await servers.route("a", "b").complete(REQUEST, record=CallTrace())
    assert servers.calls("a") == 1

    alone = await world(c=[NO_KEY])
    for _ in range(3):
        with pytest.raises(Unauthorized):
            await alone.route("c").complete(REQUEST, record=CallTrace())
    assert alone.calls("c") == 3


async def test_the_last_failure_is_told_and_then_that_all_rest(world: Build) -> None:
    servers = await world(settings={"breaker_failures": 1, "breaker_rest_s": 3}, a=[DOWN], b=[DOWN])
    route = servers.route("a", "b")
    with pytest.raises(Overloaded):
        await route.complete(REQUEST, record=CallTrace())
    record = CallTrace()
    with pytest.raises(BackendsResting, match=r"'a', 'b'") as told:
        await route.complete(REQUEST, record=record)
    assert 0 < (told.value.retry_after_s or 0) <= 3
    assert not record.called
    assert (servers.calls("a"), servers.calls("b")) == (1, 1)


async def test_work_is_admitted_while_one_backend_may_be_called(world: Build) -> None:
    settings = {"breaker_failures": 1, "breaker_rest_s": 0.2}
    servers = await world(settings=settings, a=[DOWN, Reply(text="back")], b=[DOWN])
    route = servers.route("a", "b")
    assert route.admits()
    with pytest.raises(Overloaded):
        await route.complete(REQUEST, record=CallTrace())
    assert not route.admits()
    await asyncio.sleep(0.25)
    assert route.admits()
    assert (await route.complete(REQUEST, record=CallTrace())).text == "back"


async def test_being_told_to_slow_down_is_no_failure(world: Build) -> None:
    slow_down = Reply(fault=Fault.rate_limited(retry_after="300"))
    servers = await world(settings={"breaker_failures": 1}, a=[slow_down])
    for _ in range(3):
        with pytest.raises(RateLimited):
            await servers.route("a").complete(REQUEST, record=CallTrace())
    assert servers.targets["a"].breaker.state is BreakerState.closed


async def test_a_fallback_that_cannot_be_made_is_passed_over(world: Build) -> None:
    servers = await world(a=[DOWN], c=[Reply(text="four")])

    async def fail() -> OpenAIBackend:
        raise ConfigurationError("no key")

    servers.targets["b"] = Target("b", servers.targets["a"].settings, fail, watcher=servers.watch)
    assert (await servers.route("a", "b", "c").complete(REQUEST, record=CallTrace())).text == "four"


async def test_a_late_call_is_joined_and_the_first_token_wins(world: Build) -> None:
    servers = await world(a=[Reply(text="late", first_token_s=30.0)], b=[Reply(text="soon")])
    _learn(servers, "a", 0.05)
    record = CallTrace()

    done = await servers.route("a", hedge="b").complete(REQUEST, record=record)

    assert (done.text, record.backend, record.raw_text) == ("soon", "b", "soon")
    [left] = record.left_calls
    assert (left.backend, left.reason) == ("a", HEDGE_LOST)
    assert record.wasted.prompt > 0, "its prompt was read"
    assert servers.watch.told == [("hedged", "a", "b", True)]
    while servers.servers["a"].open_streams:
        await asyncio.sleep(0.01)
    assert servers.servers["a"].calls[0].outcome is CallOutcome.aborted


async def test_a_hedge_that_serves_says_nothing_of_the_backend_that_it_stands_beside(world: Build) -> None:
    """Given one that has failed all but once too often, then calls that its hedge serves do not clear it."""
    servers = await world(
        settings={"breaker_failures": 2}, a=[DOWN, Reply(text="x", first_token_s=30.0)], b=[Reply(text="soon")]
    )
    route = servers.route("a", hedge="b")
    with pytest.raises(Overloaded):
        await route.complete(REQUEST, record=CallTrace())
    _learn(servers, "a", 0.05)
    await route.complete(REQUEST, record=CallTrace())
    assert servers.targets["a"].breaker.enter().failed() is True, "two failures in a row, with nothing known between"


async def test_a_call_that_waits_for_its_limit_is_not_late(world: Build) -> None:
    servers = await world(a=[Reply(text="four"), Reply(text="late", first_token_s=30.0)], b=[Reply(text="soon")])
    _learn(servers, "a", 0.05)
    target = servers.targets["a"]
    target.limiter = SlowTurns(0.3)
    record = CallTrace()
    assert (await servers.route("a", hedge="b").complete(REQUEST, record=record)).text == "four"
    assert (record.backend, record.left_calls, servers.calls("b")) == ("a", [], 0)
    # A turn that came is followed by a first token in time, or by a hedge.
    assert (await servers.route("a", hedge="b").complete(REQUEST, record=CallTrace())).text == "soon"


async def test_a_joined_call_may_still_win(world: Build) -> None:
    servers = await world(a=[Reply(text="four", first_token_s=0.3)], b=[Reply(text="late", first_token_s=30.0)])
    _learn(servers, "a", 0.05)
    record = CallTrace()
    assert (await servers.route("a", hedge="b").complete(REQUEST, record=record)).text == "four"
    assert record.backend == "a"
    assert [(left.backend, left.reason) for left in record.left_calls] == [("b", HEDGE_LOST)]
    assert servers.watch.told == [("hedged", "a", "b", False)]
    while servers.servers["b"].open_streams:
        await asyncio.sleep(0.01)


async def test_a_call_in_time_is_not_joined_however_long_it_then_takes(world: Build) -> None:
    servers = await world(a=[Reply(text="a word and another " * 5, token_s=0.02)], b=[Reply(text="never")])
    _learn(servers, "a", 0.1)
    record = CallTrace()
    await servers.route("a", hedge="b").complete(REQUEST, record=record)
    assert (record.backend, record.left_calls, servers.calls("b")) == ("a", [], 0)


async def test_where_the_first_fails_meanwhile_the_second_goes_on(world: Build) -> None:
    stalled = Reply(text="x", first_token_s=0.2, fault=Fault(FaultKind.error_mid_stream))
    servers = await world(a=[stalled], b=[Reply(text="four", first_token_s=0.5)])
    _learn(servers, "a", 0.05)
    record = CallTrace()
    assert (await servers.route("a", hedge="b").complete(REQUEST, record=record)).text == "four"
    assert record.backend == "b"
    assert record.left_calls[0].backend == "a"
    assert record.left_calls[0].reason != HEDGE_LOST


async def test_where_both_fail_the_failure_is_told_and_both_are_in_the_record(world: Build) -> None:
    broken = Reply(text="x", first_token_s=0.2, fault=Fault(FaultKind.error_mid_stream))
    servers = await world(a=[broken], b=[broken])
    _learn(servers, "a", 0.05)
    record = CallTrace()
    with pytest.raises((StreamBroken, Overloaded)):
        await servers.route("a", hedge="b").complete(REQUEST, record=record)
    assert {record.backend, *(left.backend for left in record.left_calls)} == {"a", "b"}


async def test_hedges_are_bounded_when_everything_is_late(world: Build) -> None:
    servers = await world(
        settings={"hedge_share_max": 0.1}, a=[Reply(text="x", first_token_s=0.05)], b=[Reply(text="y")]
    )
    _learn(servers, "a", 0.001)
    route = servers.route("a", hedge="b")
    await asyncio.gather(*(route.complete(REQUEST, record=CallTrace()) for _ in range(60)))
    assert 5 <= servers.calls("b") <= 8


async def test_a_cancelled_hedged_call_closes_both_streams(world: Build) -> None:
    slow = Reply(text="x", first_token_s=30.0)
    servers = await world(a=[slow], b=[slow])
    _learn(servers, "a", 0.01)
    record = CallTrace()
    task = asyncio.create_task(servers.route("a", hedge="b").complete(REQUEST, record=record))
    while not servers.calls("b"):
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    while any(server.open_streams for server in servers.servers.values()):
        await asyncio.sleep(0.01)
    assert record.backend == "a"
    assert [left.backend for left in record.left_calls] == ["b"], "what the second stream cost is in the ledger, too"


def _learn(servers: World, name: str, seconds: float) -> None:
    for _ in range(SAMPLES_MIN):
        servers.targets[name].pace.saw(seconds)
