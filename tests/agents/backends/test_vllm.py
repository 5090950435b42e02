"""What the vLLM backend learns about speculative decoding."""

import asyncio
from collections.abc import AsyncGenerator, Callable

import pytest
from k2think.agents.backends import vllm
from k2think.agents.backends.simulator import Reply, Script, SimulatedEngine, SimulatedServer
from k2think.agents.backends.vllm import DraftCounters, VllmBackend, draft_counters
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
"""
    assert draft_counters(text) == DraftCounters(drafted=139.0, accepted=10.0)
    assert draft_counters("vllm:spec_decode_num_draft_tokens_total 5.0\n") == DraftCounters(5.0, 0.0)
    assert draft_counters("vllm:num_requests_running 1.0\n") is None


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
            while (await finish_of(backend)).draft_acceptance != 0.25:
                await asyncio.sleep(0.01)


async def test_acceptance_of_the_call_itself_outranks_the_mean(attach: Attach) -> None:
    engine = SimulatedEngine(draft_acceptance=0.5, per_request_acceptance=True)
    async with SimulatedServer(REPLY, engine=engine) as server:
        assert (await finish_of(attach(server))).draft_acceptance == 0.5


async def test_a_server_without_metrics_fails_no_call(attach: Attach) -> None:
    async with SimulatedServer(REPLY) as server:
        backend = attach(server)
        finishes = [await finish_of(backend) for _ in range(3)]
    assert [finish.draft_acceptance for finish in finishes] == [None, None, None]
