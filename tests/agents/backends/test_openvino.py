"""The embedded engine on the bundled model, beyond what all real engines share (`test_engines.py`)."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from k2think.agents.backends.openvino import OpenVINOBackend
from k2think.schemas.backend_settings import BackendSettings
from k2think.schemas.completion import ChatMessage, CompletionRequest, Delta, Finish, FinishReason
from k2think.schemas.errors import BadRequest, ConfigurationError, ContextTooLong, StreamBroken

VERDICT_SCHEMA = {
    "type": "object",
    "properties": {"preference": {"type": "string", "enum": ["first", "second", "tie"]}},
    "required": ["preference"],
    "additionalProperties": False,
}
LONG_SCHEMA = {"type": "array", "items": {"type": "integer"}, "minItems": 400}
"""Keeps any model busy until its context is full."""
UNSURE = "<solve>What is 9876 - 5789?"
"""A problem that the bundled model is not always right about."""
BAD_SCHEMA = {"type": "nonsense"}


def ask(text: str = "<solve>What is 347 + 58?", **fields: Any) -> CompletionRequest:
    return CompletionRequest(messages=(ChatMessage(role="user", content=text),), **{"seed": 1, **fields})


async def collect(backend: OpenVINOBackend, request: CompletionRequest) -> tuple[str, Finish]:
    items = [item async for item in backend.stream(request)]
    assert all(isinstance(item, Delta) for item in items[:-1])
    assert isinstance(items[-1], Finish)
    return "".join(item.text for item in items[:-1] if isinstance(item, Delta)), items[-1]


@pytest.fixture(scope="module")
def backend() -> Iterator[OpenVINOBackend]:
    """The bundled model, loaded once for all tests of this module."""
    made = OpenVINOBackend(BackendSettings(threads=1), name="openvino")
    yield made
    asyncio.run(made.aclose())


async def idle(backend: OpenVINOBackend) -> None:
    """Wait until the engine holds no request; at most 5 seconds."""
    async with asyncio.timeout(5.0):
        while backend.running:
            await asyncio.sleep(0.01)


async def test_a_completion_streams_with_its_usage_tags_and_times(backend: OpenVINOBackend) -> None:
    items = [item async for item in backend.stream(ask())]
    text, finish = "".join(item.text for item in items if isinstance(item, Delta)), items[-1]
    assert isinstance(finish, Finish)
    assert text.startswith("<think>")
    assert text.endswith("</answer>")
    assert finish.finish_reason is FinishReason.stop
    assert finish.usage.prompt > 0
    # The end-of-text token is counted, not shown.
    assert finish.usage.completion == sum(item.pieces for item in items if isinstance(item, Delta)) + 1
    assert finish.model == backend.model == "k2think-mini"
    assert backend.templates == "mini"
    assert finish.engine_queue_s is not None
    assert finish.engine_completion_s is not None


async def test_max_tokens_of_the_request_the_settings_and_the_context() -> None:
    small = OpenVINOBackend(BackendSettings(threads=1, max_tokens=9, context_tokens=100), name="openvino")
    try:
        _, by_request = await collect(small, ask(max_tokens=3))
        _, by_settings = await collect(small, ask(max_tokens=1000))
    finally:
        await small.aclose()
    assert (by_request.usage.completion, by_request.finish_reason) == (3, FinishReason.length)
    assert (by_settings.usage.completion, by_settings.finish_reason) == (9, FinishReason.length)
    large = OpenVINOBackend(BackendSettings(threads=1, context_tokens=100), name="openvino")
    try:
        _, by_context = await collect(large, ask(json_schema=LONG_SCHEMA))
        with pytest.raises(ContextTooLong, match="takes 100"):
            await collect(large, ask("9" * 200))
    finally:
        await large.aclose()
    assert by_context.usage.prompt + by_context.usage.completion == 100
    assert by_context.finish_reason is FinishReason.length


async def test_a_schema_that_ends_the_engine_fails_alone_the_second_time(backend: OpenVINOBackend) -> None:
    bystander: Any = backend.stream(ask(json_schema=LONG_SCHEMA))
    await anext(bystander)
    with pytest.raises(BadRequest, match="schema"):
        await collect(backend, ask(json_schema=BAD_SCHEMA))

    async def rest() -> None:
        async for _ in bystander:
            pass

    with pytest.raises(StreamBroken, match="failed"):
        await rest()
    # A new engine serves, and the schema is known.
    running: Any = backend.stream(ask(json_schema=LONG_SCHEMA))
    await anext(running)
    with pytest.raises(BadRequest, match="schema"):
        await collect(backend, ask(json_schema=BAD_SCHEMA))
    await anext(running)
    await running.aclose()


async def test_prompt_lookup_keeps_the_greedy_text(backend: OpenVINOBackend) -> None:
    lookup = OpenVINOBackend(BackendSettings(threads=1, speculative_tokens=4), name="openvino")
    try:
        facts = await lookup.probe()
        assert facts["speculation"].startswith("prompt lookup")
        assert (await collect(lookup, ask(temperature=0.0)))[0] == (await collect(backend, ask(temperature=0.0)))[0]
    finally:
        await lookup.aclose()


async def test_probe_tells_what_runs(backend: OpenVINOBackend) -> None:
    facts = await backend.probe()
    assert facts["model"] == "k2think-mini"
    assert facts["threads"] == "1"
    assert facts["speculation"] == "off"


async def test_a_broken_model_file_is_a_configuration_error(tmp_path: Any) -> None:
    for name in ("openvino_model.xml", "openvino_tokenizer.xml", "openvino_detokenizer.xml"):
        (tmp_path / name).write_text("<net/>")
    (tmp_path / "config.json").write_text('{"max_position_embeddings": 64}')
    (tmp_path / "k2think.json").write_text('{"templates": "mini"}')
    broken = OpenVINOBackend(BackendSettings(model=str(tmp_path)), name="mine")
    assert broken.templates == "mini"
    assert broken.model == os.path.basename(tmp_path)
    try:
        for _ in range(2):
            with pytest.raises(ConfigurationError, match="cannot be loaded"):
                await collect(broken, ask())
    finally:
        await broken.aclose()


async def test_a_seed_gives_the_same_text_alone_among_others_and_speculated(backend: OpenVINOBackend) -> None:
    wild: dict[str, Any] = {"text": UNSURE, "temperature": 1.5, "top_p": 1.0}
    alone = [(await collect(backend, ask(seed=seed, **wild)))[0] for seed in range(8)]
    assert len(set(alone)) > 1

    async def among_others(engine: OpenVINOBackend) -> list[str]:
        others = [collect(engine, ask(seed=1000 + n, temperature=1.5)) for n in range(16)]
        ours = [collect(engine, ask(seed=seed, **wild)) for seed in range(8)]
        return [text for text, _ in (await asyncio.gather(*others, *ours))[16:]]

    assert await among_others(backend) == alone
    always = OpenVINOBackend(
        BackendSettings(threads=1, speculative_tokens=4, speculative_streams_max=0), name="openvino"
    )
    try:
        assert [(await collect(always, ask(seed=seed, **wild)))[0] for seed in range(8)] == alone
        assert await among_others(always) == alone
    finally:
        await always.aclose()


async def test_speculation_is_for_few_streams_and_tells_what_was_accepted(backend: OpenVINOBackend) -> None:
    settings = BackendSettings(threads=1, speculative_tokens=3, speculative_streams_max=2)
    switched = OpenVINOBackend(settings, name="openvino")
    try:
        assert "at most 2 streams" in (await switched.probe())["speculation"]
        _, single = await collect(switched, ask())
        assert single.accepted_length is not None
        assert single.draft_acceptance is not None
        assert 1.0 <= single.accepted_length <= 4.0
        assert single.draft_acceptance == pytest.approx((single.accepted_length - 1) / 3)
        pair = await asyncio.gather(*(collect(switched, ask(seed=seed)) for seed in range(2)))
        assert all(finish.accepted_length is not None for _, finish in pair)
        # What comes together is a load together.
        many = await asyncio.gather(*(collect(switched, ask(seed=seed)) for seed in range(6)))
        assert all(finish.accepted_length is finish.draft_acceptance is None for _, finish in many)
        # With five running, a sixth is not speculated; alone again, one is.
        running: list[Any] = [switched.stream(ask(json_schema=LONG_SCHEMA, seed=seed)) for seed in range(5)]
        await asyncio.gather(*(anext(stream) for stream in running))
        assert (await collect(switched, ask()))[1].accepted_length is None
        for stream in running:
            await stream.aclose()
        await idle(switched)
        assert (await collect(switched, ask()))[1].accepted_length is not None
    finally:
        await switched.aclose()
    assert (await collect(backend, ask()))[1].accepted_length is None


async def test_a_schema_holds_for_many_streams_and_with_speculation(backend: OpenVINOBackend) -> None:
    wild: dict[str, Any] = {"json_schema": VERDICT_SCHEMA, "max_tokens": 200, "temperature": 1.5, "top_p": 1.0}
    always = OpenVINOBackend(
        BackendSettings(threads=1, speculative_tokens=4, speculative_streams_max=0), name="openvino"
    )
    try:
        for engine in (backend, always):
            mixed = [ask(seed=seed, **wild) if seed % 2 else ask(seed=seed) for seed in range(12)]
            got = await asyncio.gather(*(collect(engine, request) for request in mixed))
            for text, finish in got[1::2]:
                assert json.loads(text)["preference"] in {"first", "second", "tie"}
                assert finish.finish_reason is FinishReason.stop
            assert all("<think>" in text for text, _ in got[::2])
    finally:
        await always.aclose()


THREADS_PROBE = """
import asyncio, json, os, sys, time
from k2think.agents.backends.openvino import OpenVINOBackend
from k2think.schemas.backend_settings import BackendSettings
from k2think.schemas.completion import ChatMessage, CompletionRequest

def used():
    found = {}
    for task in os.listdir("/proc/self/task"):
        fields = open(f"/proc/self/task/{task}/stat").read().rsplit(")", 1)[1].split()
        found[task] = int(fields[11]) + int(fields[12])
    return found

async def main():
    engines = [OpenVINOBackend(BackendSettings(threads=threads), name="x") for threads in map(int, sys.argv[1:])]
    request = CompletionRequest(messages=(ChatMessage(role="user", content="<solve>1+1"),), json_schema={"type": "array",
        "items": {"type": "integer"}, "minItems": 60}, max_tokens=150)
    async def run(engine):
        async for _ in engine.stream(request):
            pass
    for engine in engines:
        await engine.probe()
    before, clock, cpu = used(), time.monotonic(), time.process_time()
    await asyncio.gather(*(run(engine) for engine in engines for _ in range(8)))
    clock, cpu, after = time.monotonic() - clock, time.process_time() - cpu, used()
    ticks = sorted((after[task] - before.get(task, 0) for task in after), reverse=True)
    for engine in engines:
        await engine.aclose()
    print(json.dumps({"threads": len(after), "busy": cpu / clock, "ticks": ticks}))

asyncio.run(main())
"""


@pytest.mark.parametrize("engines", [["1"], ["1", "1"]], ids=["one", "two"])
def test_an_engine_keeps_to_its_threads(engines: list[str]) -> None:
    command = [sys.executable, "-c", THREADS_PROBE, *engines]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    # Never more cores busy than threads were given; the event loop, which reads the streams, takes its little.
    assert seen["busy"] < len(engines) + 0.25
    # The work is done on one thread for each engine; others there are, and they rest.
    resting = seen["ticks"][len(engines) :]
    assert sum(resting) < 0.25 * sum(seen["ticks"])
    # They grow with engines and cores, never with requests.
    assert seen["threads"] <= 8 + len(engines) * (8 + 4 * (os.cpu_count() or 1))
