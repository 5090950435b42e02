"""A measurement from settings to report: each variant of the backend, each number of streams, our client and a bare one in turns.

Both clients get the same requests, and change who is first from round to round: what a server has in its caches from the
one helps the other as often. So an even number of rounds is fair.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from pydantic import SecretStr

from ...schemas.backend_settings import BackendKind, BackendSettings
from ...schemas.errors import ConfigurationError, StreamBroken
from ..backends.base import Backend
from ..backends.registry import create_backend
from .clients import Client, OwnClient
from .figures import Level, Run, Variant, level_of
from .load import Load
from .roofline import Roofline, copy_bandwidth

LOOKUP_TOKENS = 4
"""Prompt-lookup tokens of the embedded engine where its settings have speculation off."""
PROBE_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Target:
    """What is measured."""

    name: str
    """Name of the backend."""
    settings: BackendSettings
    """Its settings, resolved."""
    cerebras_api_key: SecretStr | None = None
    """Key of a cerebras backend that has none of its own."""
    bandwidth_bytes_per_s: float | None = None
    """Memory bandwidth; None = measured for the embedded engine, else not known."""
    model_bytes: int | None = None
    """Bytes that one decoding step reads; None = the weights' for the embedded engine, else not known."""
    with_bare: bool = True
    """Whether a bare client runs beside ours."""


@dataclass(frozen=True, slots=True)
class Report:
    """What came of it."""

    model: str
    """Model name."""
    roofline: Roofline
    """What the memory allows."""
    variants: tuple[Variant, ...] = field(default=())
    """Ways of running the backend."""


async def measure_backend(target: Target, load: Load, *, progress: Callable[[str], None]) -> Report:
    """Measure; `progress` is told what goes on. Raises ConfigurationError and BackendError."""
    variants: list[Variant] = []
    roofline, model = Roofline(None, "", None), ""
    for name, settings in ways(target.settings):
        progress(f"{name}: reaching the backend")
        async with _opened(target, settings) as (backend, clients):
            facts = await _probed(backend)
            model = facts.get("model", backend.model)
            if not variants:
                roofline = await _roofline(target, backend)
            levels = await _levels(clients, load, roofline, lambda text, name=name: progress(f"{name}: {text}"))
        variants.append(Variant(name, facts, levels))
    return Report(model=model, roofline=roofline, variants=tuple(variants))


def ways(settings: BackendSettings) -> list[tuple[str, BackendSettings]]:
    """Return the ways of running the backend that can be compared, by name."""
    if settings.backend != BackendKind.openvino:
        return [("as the server is", settings)]
    drafted = settings.speculative_tokens or LOOKUP_TOKENS
    # All streams are speculated, so that the table tells up to how many it pays.
    lookup = {"speculative_tokens": drafted, "speculative_streams_max": 0}
    return [
        ("without speculation", settings.model_copy(update={"speculative_tokens": 0})),
        (f"with prompt lookup of {drafted} tokens", settings.model_copy(update=lookup)),
    ]


@asynccontextmanager
async def _opened(target: Target, settings: BackendSettings) -> AsyncGenerator[tuple[Backend, dict[str, Client]]]:
    backend = create_backend(settings, name=target.name, cerebras_api_key=target.cerebras_api_key)
    if settings.api_key is None and settings.backend == BackendKind.cerebras:
        settings = settings.model_copy(update={"api_key": target.cerebras_api_key})
    clients: dict[str, Client] = {"ours": OwnClient(backend, settings)}
    try:
        bare = _bare_client(backend, settings) if target.with_bare else None
        if bare is not None:
            clients["bare"] = bare
        yield backend, clients
    finally:
        for client in clients.values():
            await client.aclose()


def _bare_client(backend: Backend, settings: BackendSettings) -> Client | None:
    """Return the bare client of the kind; None = the kind has none."""
    match BackendKind(settings.backend):
        case BackendKind.cerebras:
            from ..backends.cerebras import CerebrasBackend
            from .bare import BareCerebras

            return BareCerebras(backend, settings) if isinstance(backend, CerebrasBackend) else None
        case BackendKind.openai | BackendKind.vllm:
            from ..backends.openai import OpenAIBackend
            from .bare import BareHttp

            return BareHttp(backend, settings) if isinstance(backend, OpenAIBackend) else None
        case BackendKind.openvino:
            from ..backends.openvino import OpenVINOBackend
            from .bare_openvino import BareOpenVINO

            return BareOpenVINO(backend.engine_settings) if isinstance(backend, OpenVINOBackend) else None
        case BackendKind.vllm_engine:
            return None


async def _probed(backend: Backend) -> dict[str, str]:
    try:
        async with asyncio.timeout(PROBE_TIMEOUT_S):
            return await backend.probe()
    except TimeoutError as exc:
        raise StreamBroken(f"backend {backend.name!r}: no answer within {PROBE_TIMEOUT_S:g} s; is it up?") from exc


async def _roofline(target: Target, backend: Backend) -> Roofline:
    from ..backends.openvino import OpenVINOBackend

    bandwidth, model_bytes = target.bandwidth_bytes_per_s, target.model_bytes
    said = "as given" if bandwidth is not None else ""
    if isinstance(backend, OpenVINOBackend):
        made_of = backend.engine_settings
        model_bytes = model_bytes or (made_of.folder / "openvino_model.bin").stat().st_size
        if bandwidth is None:
            bandwidth = await asyncio.to_thread(copy_bandwidth, model_bytes, threads=made_of.threads)
            said = f"measured by copying blocks of the model's size, threads: {made_of.threads}"
    return Roofline(bandwidth, said, model_bytes)


async def _levels(
    clients: dict[str, Client], load: Load, roofline: Roofline, progress: Callable[[str], None]
) -> tuple[Level, ...]:
    levels: list[Level] = []
    for streams in load.streams:
        progress(f"{streams} streams, warming up")
        for client in clients.values():
            _check_tokens(await client.run(load.warm_ups(streams), streams))
        runs: dict[str, list[Run]] = {name: [] for name in clients}
        for number in range(load.rounds):
            requests = load.requests(streams, number)
            order = list(clients) if number % 2 == 0 else list(reversed(clients))
            for name in order:
                progress(f"{streams} streams, round {number + 1} of {load.rounds}, {name}")
                runs[name].append(await clients[name].run(requests, streams))
        levels.append(
            level_of(streams, runs["ours"], runs.get("bare"), limit_tokens_per_s=roofline.tokens_per_s(streams))
        )
    return tuple(levels)


def _check_tokens(run: Run) -> None:
    if not run.samples:
        raise run.failures[0]
    if not any(sample.tokens for sample in run.samples):
        raise ConfigurationError("the model generates no tokens: there is nothing to measure")
