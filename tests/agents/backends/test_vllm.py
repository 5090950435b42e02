"""What the vLLM backend learns about speculative decoding."""

import asyncio
import math
from collections.abc import AsyncGenerator, Callable

import pytest
from k2think.agents.backends import vllm
from k2think.agents.backends.base import WARNING
from k2think.agents.backends.simulator import Fault, FaultKind, Reply, Script, SimulatedEngine, SimulatedServer
from k2think.agents.backends.vllm import DraftCounters, VllmBackend, draft_counters
from k2think.agents.backends.vllm_sampling import judged
from k2think.agents.backends.wire import Drafting
from k2think.schemas.backend_settings import BackendSettings
from k2think.schemas.completion import ChatMessage, CompletionRequest, Finish

REQUEST = CompletionRequest(messages=(ChatMessage(role="user", content="What is 347 + 58?"),))
REPLY = Script(Reply(text="one two three four"))
Attach = Callable[[SimulatedServer], VllmBackend]


@pytest.fixture
async def attach() -> AsyncGenerator[Attach, None]:
    """Make backends; all are closed at the end."""
    made: list[VllmBackend] = []

    def make(server: SimulatedServer) -> VllmBackend:
        made.append(VllmBackend(BackendSettings(base_url=server.url, model="simulated"), name="vllm"))
        return made[-1]

    yield make
    for backend in made:
        await backend.aclose()


async def finish_of(backend: VllmBackend) -> Finish:
    items = [item async for item in backend.stream(REQUEST)]
    assert isinstance(items[-1], Finish)
    return items[-1]


def test_counters_are_summed_over_engines() -> None:
    text = """
# HELP vllm:spec_decode_num_draft_tokens_total Number of draft tokens.
# TYPE vllm:spec_decode_num_draft_tokens_total counter
vllm:spec_decode_num_draft_tokens_total{engine="0",model_name="a b } c"} 129.0
vllm:spec_decode_num_draft_tokens_total{engine="1",model_name="m"} 1.0e+01
vllm:spec_decode_num_draft_tokens_created{engine="0",model_name="m"} 1.7e+09
vllm:spec_decode_num_accepted_tokens_total{engine="0",model_name="m"} 10.0
vllm:spec_decode_num_accepted_tokens_per_pos_total{engine="0",position="0"} 4.0
vllm:spec_decode_num_drafts_total{engine="0",model_name="m"} 30.0
vllm:spec_decode_num_drafts_total{engine="1",model_name="m"} 10.0
"""
    assert draft_counters(text) == DraftCounters(drafted=139.0, accepted=10.0, drafts=40.0)
    assert draft_counters("vllm:spec_decode_num_draft_tokens_total 5.0\n") == DraftCounters(5.0, 0.0, 0.0)
    assert draft_counters("vllm:num_requests_running 1.0\n") is None


def test_the_means_are_of_what_came_since_the_last_reading() -> None:
    before, now = DraftCounters(100.0, 10.0, 50.0), DraftCounters(300.0, 110.0, 100.0)
    assert now.since(before).drafting == Drafting(acceptance=0.5, accepted_length=3.0)
    assert now.since(None).drafting == Drafting(acceptance=110 / 300, accepted_length=2.1)
    # The server was restarted in between.
    assert before.since(now) == before
    assert DraftCounters(0.0, 0.0, 0.0).drafting == Drafting()


@pytest.mark.parametrize(
    ("engine", "expected"),
    [({}, "off"), ({"draft_acceptance": 0.25}, "on, nothing drafted yet")],
)
async def test_probe_tells_whether_speculation_is_on(attach: Attach, engine: dict[str, float], expected: str) -> None:
    async with SimulatedServer(REPLY, engine=SimulatedEngine(**engine), context_tokens=4096) as server:  # type: ignore[arg-type]
        facts = await attach(server).probe()
    assert facts["speculation"].startswith(expected)
    assert facts["context"] == "4,096 tokens"


async def test_probe_tells_the_acceptance_so_far(attach: Attach) -> None:
    async with SimulatedServer(REPLY, engine=SimulatedEngine(draft_acceptance=0.25)) as server:
        backend = attach(server)
        await finish_of(backend)
        assert f"25% of {server.sent_tokens} drafted tokens" in (await backend.probe())["speculation"]


async def test_the_recent_mean_is_recorded_beside_the_calls(attach: Attach, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm, "REFRESH_S", 0.0)
    engine = SimulatedEngine(draft_acceptance=0.25)
    async with SimulatedServer(REPLY, engine=engine) as server:
        backend = attach(server)
        async with asyncio.timeout(10):  # fails the test when it never is
            while (finish := await finish_of(backend)).draft_acceptance != 0.25:
                await asyncio.sleep(0.01)
    assert finish.accepted_length == 1.25


async def test_acceptance_of_the_call_itself_outranks_the_mean(attach: Attach) -> None:
    engine = SimulatedEngine(draft_acceptance=0.5, per_request_acceptance=True)
    async with SimulatedServer(REPLY, engine=engine) as server:
        finish = await finish_of(attach(server))
    assert (finish.draft_acceptance, finish.accepted_length) == (0.5, 1.5)


async def test_a_call_that_drafted_nothing_has_no_acceptance(attach: Attach, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm, "REFRESH_S", 0.0)
    # vLLM then tells 0 and 1, which are no measurements; the server's mean is another call's.
    nothing = {"draft_acceptance_rate": 0.0, "mean_acceptance_length": 1.0, "num_draft_tokens": 0}
    engine = SimulatedEngine(draft_acceptance=0.5, per_request_acceptance=True)
    monkeypatch.setattr(engine, "drafting", lambda: nothing)
    async with SimulatedServer(REPLY, engine=engine) as server:
        backend = attach(server)
        finishes = [await finish_of(backend) for _ in range(3)]
    assert {(finish.draft_acceptance, finish.accepted_length) for finish in finishes} == {(None, None)}


async def test_probe_warns_where_speculation_was_asked_for_and_is_off() -> None:
    async with SimulatedServer(REPLY) as server:
        backend = VllmBackend(
            BackendSettings(base_url=server.url, model="simulated", speculative="eagle:org/head"), name="vllm"
        )
        try:
            facts = await backend.probe()
        finally:
            await backend.aclose()
    assert "`k2think vllm up MODEL --speculative eagle:org/head`" in facts[WARNING]


async def test_probe_warns_where_completions_are_longer_than_the_context() -> None:
    async with SimulatedServer(REPLY, context_tokens=512) as server:
        for max_tokens in (513, 512):
            backend = VllmBackend(
                BackendSettings(base_url=server.url, model="simulated", max_tokens=max_tokens), name="vllm"
            )
            try:
                facts = await backend.probe()
            finally:
                await backend.aclose()
            assert ("vLLM refuses such calls" in facts.get(WARNING, "")) == (max_tokens == 513)


@pytest.mark.parametrize("wrong", [False, True])
async def test_probe_looks_at_sampled_tokens_where_speculation_is_on(attach: Attach, wrong: bool) -> None:
    engine = SimulatedEngine(draft_acceptance=0.25, samples_wrongly=wrong)
    async with SimulatedServer(REPLY, engine=engine) as server:
        facts = await attach(server).probe()
    assert (WARNING in facts) == wrong
    if wrong:
        assert "20 of 20 sampled tokens were none of the 4 most probable" in facts[WARNING]
    else:
        assert facts["sampling"].startswith("as the model would (0 of 20 sampled tokens")


async def test_a_server_that_gives_no_log_probabilities_is_not_judged(attach: Attach) -> None:
    refusing = Script(Reply(text="x", fault=Fault(FaultKind.status, status=400, message="logprobs are disabled")))
    async with SimulatedServer(refusing, engine=SimulatedEngine(draft_acceptance=0.25)) as server:
        facts = await attach(server).probe()
    assert "not checked" in facts["sampling"]
    assert "logprobs are disabled" in facts["sampling"]
    assert WARNING not in facts


def test_sampling_is_judged_by_the_models_own_account() -> None:
    """A flat distribution puts most tokens outside the five most probable, and that is right."""
    flat = [math.log(1 / 20)] * 5
    assert not judged([(math.log(1 / 20) - 0.1, flat)] * 190 + [(flat[0], flat)] * 66).wrong
    sure = [-0.01, -5.0, -6.0, -7.0, -8.0]
    assert not judged([(-0.01, sure)] * 250 + [(-9.0, sure)] * 2).wrong
    assert judged([(-0.01, sure)] * 240 + [(-18.0, sure)] * 16).wrong


async def test_a_server_without_metrics_fails_no_call(attach: Attach) -> None:
    async with SimulatedServer(REPLY) as server:
        backend = attach(server)
        finishes = [await finish_of(backend) for _ in range(3)]
    assert [finish.draft_acceptance for finish in finishes] == [None, None, None]
