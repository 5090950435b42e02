"""The engine in this process, on a stand-in for the package vllm. `make test-vllm` runs test_engines.py on the real one."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncGenerator, Callable, Iterator
from pathlib import Path
from typing import Any

import harness
import pytest
from k2think.agents.backends.base import OwnsEngine
from k2think.agents.backends.registry import create_backend
from k2think.agents.backends.vllm_engine import VllmEngineBackend, engine_arguments
from k2think.schemas.backend_settings import BackendSettings
from k2think.schemas.completion import ChatMessage, CompletionRequest, Delta, Finish, FinishReason, TokenUsage
from k2think.schemas.errors import BadRequest, ConfigurationError, ContextTooLong, Stalled, StreamBroken

PACKAGE = Path(next(iter(harness.__path__))) / "vllm_package"
REPLY = "<think>347+58=405</think><answer>405</answer>"
WAIT_S = 10.0
Make = Callable[..., VllmEngineBackend]


@pytest.fixture(autouse=True)
def vllm_package(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The stand-in is what `import vllm` finds."""

    def forget() -> None:
        for name in [name for name in sys.modules if name.partition(".")[0] == "vllm"]:
            del sys.modules[name]

    forget()
    monkeypatch.syspath_prepend(str(PACKAGE))
    monkeypatch.setenv("VLLM_WORKER_MULTIPROC_METHOD", "spawn")
    yield
    forget()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "small-model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "k2think.json").write_text('{"templates": "mini"}')
    return folder


@pytest.fixture
async def make(model: Path) -> AsyncGenerator[Make, None]:
    """Make backends; all are closed at the end."""
    made: list[Any] = []

    def make(**fields: Any) -> Any:
        settings = BackendSettings.model_validate({"backend": "vllm_engine", "model": str(model), **fields})
        made.append(create_backend(settings, name="own"))
        return made[-1]

    yield make
    for backend in made:
        await backend.aclose()


def ask(text: str = "What is 347 + 58?", **fields: Any) -> CompletionRequest:
    return CompletionRequest(messages=(ChatMessage(role="user", content=text),), **fields)


async def collect(backend: VllmEngineBackend, request: CompletionRequest) -> tuple[list[Delta], Finish]:
    items: list[Any] = [item async for item in backend.stream(request)]
    assert isinstance(items[-1], Finish)
    return items[:-1], items[-1]


def engine_pid(model: Path) -> int:
    return json.loads((model / "engines.jsonl").read_text().splitlines()[-1])["pid"]


async def test_a_completion_with_its_usage_times_and_acceptance(make: Make) -> None:
    backend = make(speculative="ngram", max_tokens=200)
    assert isinstance(backend, OwnsEngine)
    assert (backend.model, backend.templates) == ("small-model", "mini")

    deltas, finish = await collect(backend, ask())

    assert "".join(delta.text for delta in deltas) == REPLY
    assert finish.usage == TokenUsage(prompt=17, completion=len(REPLY))
    assert finish.finish_reason is FinishReason.stop
    assert (finish.engine_queue_s, finish.engine_prompt_s, finish.engine_completion_s) == (0.5, 1.0, 2.0)
    assert (finish.draft_acceptance, finish.accepted_length, finish.cached_prompt_tokens) == (0.25, 1.5, 3)


async def test_limits_of_tokens(make: Make) -> None:
    backend = make(max_tokens=20, context_tokens=100)
    for request, completion in ((ask(), 20), (ask(max_tokens=3), 3), (ask("9" * 95), 5)):
        _, finish = await collect(backend, request)
        assert (finish.usage.completion, finish.finish_reason) == (completion, FinishReason.length)
    with pytest.raises(ContextTooLong, match="the prompt has 100 tokens, the context 100"):
        await collect(backend, ask("9" * 100))


async def test_what_vllm_or_the_template_refuses_is_a_bad_request(make: Make) -> None:
    backend = make()
    with pytest.raises(BadRequest, match="Grammar error"):
        await collect(backend, ask(json_schema={"type": "nonsense"}))
    with pytest.raises(BadRequest, match=r"chat template refuses.*Conversation roles"):
        await collect(backend, CompletionRequest(messages=(ChatMessage(role="assistant", content="x"),)))


async def test_closing_cancelling_and_time_outs_abort_the_request(make: Make, model: Path) -> None:
    backend = make(first_token_timeout_s=0.2)
    stream: Any = backend.stream(ask())
    await anext(stream)
    assert backend.running == 1
    await stream.aclose()
    assert backend.running == 0
    (model / "stands_still").touch()
    with pytest.raises(Stalled, match="first token"):
        await collect(backend, ask())
    assert backend.running == 0


async def test_a_closed_backend_ends_its_streams_and_its_engine(make: Make, model: Path) -> None:
    (model / "stands_still").touch()
    backend = make()
    task = asyncio.create_task(collect(backend, ask()))
    async with asyncio.timeout(WAIT_S):
        while not backend.running:
            await asyncio.sleep(0.01)
    pid = engine_pid(model)
    await backend.aclose()
    with pytest.raises(StreamBroken, match="closed"):
        await task
    with pytest.raises(StreamBroken, match="closed"):
        await collect(backend, ask())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_a_dead_engine_breaks_its_streams_and_holds_later_calls_until_the_end(make: Make, model: Path) -> None:
    backend = make()
    serving = asyncio.create_task(backend.serve())
    stream: Any = backend.stream(ask())
    await anext(stream)
    # When the engine's process is killed
    os.kill(engine_pid(model), signal.SIGKILL)
    # Then what runs is broken, and it is told
    with pytest.raises(StreamBroken):
        async for _ in stream:
            pass
    assert "the engine died" in await asyncio.wait_for(serving, WAIT_S)
    # And a call that comes now is neither failed nor served: the process ends, and its step is handed back
    later = asyncio.create_task(collect(backend, ask()))
    await asyncio.sleep(0.1)
    assert not later.done()
    await backend.aclose()
    with pytest.raises(StreamBroken):
        await later


async def test_an_engine_that_does_not_start_is_told_as_its_end(make: Make, model: Path) -> None:
    (model / "does_not_start").touch()
    backend = make(first_token_timeout_s=0.05)
    assert "the engine did not start: Engine core initialization failed" in await backend.serve()
    with pytest.raises(Stalled, match="nobody ended this process"):
        await collect(backend, ask())


@pytest.mark.parametrize("options", [{"dtype": "complex"}, {"no_such_argument": 1}], ids=["value", "name"])
async def test_options_that_vllm_refuses_are_a_configuration_error(make: Make, options: dict[str, Any]) -> None:
    backend = make(engine_options=options)
    for call in (backend.serve(), collect(backend, ask())):
        with pytest.raises(ConfigurationError, match=r"refuses its options: .*(complex|no_such_argument)"):
            await call


async def test_probe_loads_nothing(make: Make, model: Path) -> None:
    facts = await make(speculative="ngram").probe()
    assert facts["engine"] == "vLLM 0.32.0"
    assert facts["speculation"] == "ngram"
    assert not (model / "engines.jsonl").exists()


def test_the_arguments_of_the_engine(model: Path) -> None:
    settings = BackendSettings.model_validate(
        {
            "backend": "vllm_engine",
            "model": "org/m",
            "tensor_parallel": 4,
            "context_tokens": 4096,
            "speculative": f"draft:{model}",
            "speculative_tokens": 6,
            "engine_options": {"gpu_memory_utilization": 0.8},
        }
    )
    assert engine_arguments(settings, "org/m", version=(0, 32)) == {
        "model": "org/m",
        "tensor_parallel_size": 4,
        "enable_prefix_caching": True,
        "max_model_len": 4096,
        "speculative_config": {"method": "draft_model", "model": str(model), "num_speculative_tokens": 6},
        "per_request_spec_decode_metrics": "summary",
        "gpu_memory_utilization": 0.8,
    }


def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def create(**fields: Any) -> None:
        create_backend(BackendSettings.model_validate({"backend": "vllm_engine", **fields}), name="own")

    with pytest.raises(ConfigurationError, match="'own' needs a model"):
        create()
    with pytest.raises(ConfigurationError, match="there is no model folder"):
        create(model=str(tmp_path / "nothing"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match="'own' needs vLLM in the worker's environment: pip install vllm"):
        create(model="org/m")
