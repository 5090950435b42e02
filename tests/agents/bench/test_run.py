"""A whole measurement, over real servers and the real embedded engine."""

from typing import Any

import pytest
from k2think.agents.backends.simulator import (
    CallOutcome,
    ChatRequest,
    Fault,
    FaultKind,
    Reply,
    SimulatedEngine,
    SimulatedServer,
)
from k2think.agents.bench.load import Load
from k2think.agents.bench.run import Report, Target, measure_backend, ways
from k2think.schemas.backend_settings import BackendSettings
from k2think.schemas.errors import RateLimited, Unauthorized, Unreachable

LOAD = Load(streams=(1, 3), prompt_tokens=8, output_tokens=20, calls=2, rounds=2)
KEY = "sk-bench-1"


def talk(request: ChatRequest) -> Reply:
    """Twenty tokens and more."""
    return Reply(text="one " * 40)


def target(kind: str, server: SimulatedServer, **more: Any) -> Target:
    """A backend of the kind at the server."""
    url = server.root_url if kind == "cerebras" else server.url
    settings = BackendSettings.model_validate({"backend": kind, "base_url": url, "model": "simulated", "api_key": KEY})
    return Target(kind, settings, **more)


async def measured(one: Target, load: Load = LOAD) -> tuple[Report, list[str]]:
    """Measure; return the report and the progress that was told."""
    told: list[str] = []
    return await measure_backend(one, load, progress=told.append), told


@pytest.mark.parametrize("kind", ["openai", "vllm", "cerebras"])
async def test_both_clients_make_the_same_calls_in_turns(kind: str) -> None:
    engine = SimulatedEngine(token_s=0.001, draft_acceptance=0.5, per_request_acceptance=True)
    async with SimulatedServer(talk, engine=engine, api_key=KEY) as server:
        report, told = await measured(target(kind, server))
    (variant,) = report.variants
    assert variant.name == "as the server is"
    assert [level.streams for level in variant.levels] == [1, 3]
    for level in variant.levels:
        assert level.bare is not None
        for figures in (level.ours, level.bare):
            assert (figures.calls, figures.failed, figures.tokens) == (level.streams * 4, 0, 20.0)
            assert figures.first_token_p50_s is not None
            assert 0 < figures.tokens_per_s <= level.streams * 1100
        assert level.ours.draft_acceptance == 0.5
        assert len(level.overhead_rounds) == 2
        assert level.limit_tokens_per_s is None
    real = [call.request for call in server.calls if call.request.max_tokens == 20]
    ours, bare = ([r for r in real if r.headers["user-agent"].startswith("k2think") is mine] for mine in (True, False))
    if kind == "cerebras":
        ours, bare = (
            [r for r in real if (r.headers["accept-encoding"] == "identity") is mine] for mine in (True, False)
        )
    assert len(ours) == len(bare) == 16
    assert sorted(str(request.body) for request in ours) == sorted(str(request.body) for request in bare)
    assert {call.outcome for call in server.calls} == {CallOutcome.completed}
    rounds = [text.rpartition(": ")[2] for text in told if "round" in text]
    assert rounds[:4] == [
        "1 streams, round 1 of 2, ours",
        "1 streams, round 1 of 2, bare",
        "1 streams, round 2 of 2, bare",
        "1 streams, round 2 of 2, ours",
    ]


async def test_as_many_calls_run_at_once_as_there_are_streams() -> None:
    engine = SimulatedEngine(token_s=0.005)
    async with SimulatedServer(talk, engine=engine) as server:
        report, _ = await measured(target("openai", server, with_bare=False), Load((5,), 8, 20, 2, 1))
    assert engine.running_max == 5
    assert report.variants[0].levels[0].bare is None
    assert report.variants[0].levels[0].ours.calls == 10


async def test_the_limit_is_told_where_it_is_given() -> None:
    async with SimulatedServer(talk) as server:
        known = target("openai", server, bandwidth_bytes_per_s=1e9, model_bytes=10_000_000, with_bare=False)
        report, _ = await measured(known)
    assert [level.limit_tokens_per_s for level in report.variants[0].levels] == [100.0, 300.0]
    assert report.roofline.bandwidth_from == "as given"


async def test_calls_that_are_refused_are_counted_and_told() -> None:
    def sometimes(request: ChatRequest) -> Reply:
        full = request.max_tokens == 20 and len(server.calls) % 3 == 0
        return Reply(fault=Fault.rate_limited(retry_after="1")) if full else talk(request)

    async with SimulatedServer(sometimes) as server:
        report, _ = await measured(target("openai", server), Load((3,), 8, 20, 2, 2))
    for figures in (report.variants[0].levels[0].ours, report.variants[0].levels[0].bare):
        assert figures is not None
        assert figures.failed > 0
        assert figures.calls + figures.failed == 12
        assert "429" in figures.failures[0]


async def test_a_backend_that_refuses_everything_is_an_error() -> None:
    async with SimulatedServer(lambda request: Reply(fault=Fault(FaultKind.status, status=429))) as server:
        with pytest.raises(RateLimited):
            await measured(target("openai", server))


async def test_a_wrong_key_and_a_server_that_is_away_end_it_at_once() -> None:
    async with SimulatedServer(talk, api_key="another") as server:
        with pytest.raises(Unauthorized):
            await measured(target("cerebras", server))
        gone = target("openai", server)
    with pytest.raises(Unreachable):
        await measured(gone)


def test_only_the_embedded_engine_is_measured_with_and_without_speculation() -> None:
    lookup = [settings.speculative_tokens for _, settings in ways(BackendSettings(speculative_tokens=3))]
    assert lookup == [0, 3]
    names = [name for name, _ in ways(BackendSettings())]
    assert names == ["without speculation", "with prompt lookup of 4 tokens"]
    assert len(ways(BackendSettings.model_validate({"backend": "vllm", "model": "m"}))) == 1


async def test_the_embedded_engine_beside_the_plainest_loop() -> None:
    load = Load(streams=(1, 2), prompt_tokens=8, output_tokens=12, calls=1, rounds=2)
    report, _ = await measured(Target("openvino", BackendSettings()), load)
    plain, lookup = report.variants
    assert report.model == "k2think-mini"
    assert report.roofline.model_bytes == 2_393_377
    for variant in (plain, lookup):
        for level in variant.levels:
            assert level.bare is not None
            assert level.ours.calls == level.bare.calls == level.streams * 2
            assert level.ours.prompt_tokens == level.bare.prompt_tokens
            assert level.limit_tokens_per_s is not None
        # Alone in its batch, a call's seed decides its tokens: both clients asked for the same.
        assert variant.levels[0].bare is not None
        assert variant.levels[0].ours.tokens == variant.levels[0].bare.tokens
    assert plain.levels[0].ours.draft_acceptance is None
    assert lookup.levels[0].ours.draft_acceptance is not None
    assert lookup.facts["speculation"].startswith("prompt lookup, 4 tokens")
