"""The embedded default: an openvino-genai engine in this very process, on any CPU.

The model is the bundled k2think-mini or any OpenVINO GenAI folder with its own chat template. Streams share one engine, which
batches them step by step. Seeds are per request; with `precision` f32 the same seed gave the same text alone, among others
and with prompt lookup in every trial (docs/backends.md), in bf16 it does not. Prompt lookup (`speculative_tokens`) keeps the
distribution, and is used only while few streams run (`speculative_streams_max`).
"""

import asyncio
import importlib.metadata
import importlib.util
import os
from collections.abc import AsyncGenerator
from pathlib import Path

from ...schemas.backend_settings import BUNDLED_MODEL, BackendSettings
from ...schemas.completion import CompletionRequest, Delta, Finish, StreamItem
from ...schemas.errors import BackendError, ConfigurationError, Stalled, StreamBroken
from .lumps import merged
from .openvino_engine import Engine
from .openvino_folder import MODELS_DIR, context_tokens, model_config, own_templates
from .openvino_generation import EngineSettings, Generation

CONTEXT_TOKENS_DEFAULT = 4096
"""Context of a model whose config.json does not tell."""

_WHAT_TO_DO = (
    "K2THINK_<ROLE>__MODEL must be k2think-mini, a name that `k2think models list` shows, or an OpenVINO GenAI model folder "
    "(`k2think models pull` and `convert` make them)"
)


class OpenVINOBackend:
    """Completions from the embedded engine. See `Backend` for the contract."""

    def __init__(self, settings: BackendSettings, *, name: str) -> None:
        """Check the settings, the package and the model folder; load nothing. Raises ConfigurationError."""
        if importlib.util.find_spec("openvino_genai") is None:
            raise ConfigurationError(f"backend {name!r} needs openvino-genai: pip install 'k2think[embedded]'")
        bundled = settings.model in (None, BUNDLED_MODEL)
        self._folder = MODELS_DIR / BUNDLED_MODEL if bundled else Path(settings.model or "").expanduser()
        try:
            config = model_config(self._folder)
            own = own_templates(self._folder)
        except ConfigurationError as exc:
            raise ConfigurationError(f"backend {name!r}: {exc}; {_WHAT_TO_DO}") from exc
        self.name = name
        self.model = BUNDLED_MODEL if bundled else self._folder.resolve().name
        self.templates = settings.template_set or own
        self._settings = settings
        known = context_tokens(config) or CONTEXT_TOKENS_DEFAULT
        self.engine_settings = EngineSettings(
            folder=self._folder,
            model=self.model,
            threads=settings.threads or max(1, len(os.sched_getaffinity(0)) // 2),
            exact=settings.precision == "f32",
            speculative_tokens=settings.speculative_tokens,
            speculative_streams_max=settings.speculative_streams_max,
            context_tokens=min(known, settings.context_tokens or known),
            max_tokens=settings.max_tokens,
        )
        """What the engine is made of."""
        self._refused_schemas: set[str] = set()
        self._engine: Engine | None = None
        self._closed = False

    @property
    def running(self) -> int:
        """Requests that hold a place in the engine."""
        return self._engine.running if self._engine else 0

    async def stream(
        self, request: CompletionRequest, *, unseen: list[Delta] | None = None
    ) -> AsyncGenerator[StreamItem, None]:
        """Yield deltas, then exactly one `Finish`. See `Backend.stream`."""
        engine = await self._loaded()
        generation = Generation(request, asyncio.get_running_loop(), watched=unseen is None)
        engine.submit(generation)
        limit_s, waited = self._settings.first_token_timeout_s, "without a first token"
        try:
            while True:
                item = await self._next(generation, limit_s, waited)
                if isinstance(item, BackendError):
                    raise item
                yield item
                if isinstance(item, Finish):
                    return
                limit_s, waited = self._settings.idle_timeout_s, "between two tokens"
        finally:
            engine.cancel(generation)
            if unseen is not None:
                unseen += merged(generation.left())

    async def probe(self) -> dict[str, str]:
        """Load the model; return facts about the engine. Raises BackendError or ConfigurationError."""
        await self._loaded()
        made_of = self.engine_settings
        lookup, most = made_of.speculative_tokens, made_of.speculative_streams_max
        while_few = f" while at most {most} streams run" if most else ""
        return {
            "model": self.model,
            "folder": str(self._folder),
            "context": f"{made_of.context_tokens:,} tokens",
            "threads": str(made_of.threads),
            "precision": "f32" if made_of.exact else "auto",
            "speculation": f"prompt lookup, {lookup} tokens a step{while_few}" if lookup else "off",
            "engine": f"openvino-genai {importlib.metadata.version('openvino-genai')}",
        }

    async def aclose(self) -> None:
        """End the engine; running streams end with StreamBroken."""
        self._closed = True
        engine, self._engine = self._engine, None
        if engine is not None:
            await asyncio.to_thread(engine.close)

    async def _loaded(self) -> Engine:
        """Return the engine, made anew when there is none or the last one failed."""
        if self._closed:
            raise StreamBroken(f"the embedded engine ({self.model}) was closed")
        if self._engine is None or self._engine.failure is not None:
            self._engine = Engine(self.engine_settings, refused_schemas=self._refused_schemas)
        engine = self._engine
        # Shielded: one cancelled caller must not spoil the loading for the others.
        await asyncio.shield(asyncio.wrap_future(engine.ready))
        return engine

    async def _next(self, generation: Generation, limit_s: float, waited: str) -> StreamItem | BackendError:
        if not generation.items.empty():
            return generation.items.get_nowait()
        try:
            async with asyncio.timeout(limit_s):
                return await generation.items.get()
        except TimeoutError as exc:
            raise Stalled(f"backend {self.name!r} (embedded {self.model}): silent for {limit_s:g} s {waited}") from exc
