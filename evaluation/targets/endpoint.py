"""A model called once for each item, through the backends that serve our agents: their errors, time-outs and retries."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any, cast

from pydantic import SecretStr
from yarl import URL

from ...agents.backends.base import Backend
from ...agents.backends.openai import OpenAIBackend
from ...agents.backends.registry import create_backend
from ...agents.call import Completion, call_model
from ...agents.templates import choose_set, load_templates
from ...schemas.backend_settings import BackendKind, BackendSettings
from ...schemas.completion import ChatMessage, CompletionRequest, FinishReason, TokenUsage
from ...schemas.errors import BackendError, ConfigurationError
from ...schemas.evaluation import Item, Spent, Status, TargetSpec
from ...schemas.messages import AgentKind
from ...schemas.settings import Settings
from ...schemas.trace import CallTrace
from .base import HOPELESS, Answered, Sample, error_code, item_seed, priced
from .definition import Definition, Price
from .fingerprint import backend_sha256, model_name, revision_of, template_sha256

TRIES = 3
"""Calls of one item at most, where a stream broke or stalled midway; each is paid for and counted."""
CONNECT_RETRIES = 10
RETRY_AFTER_MAX_S = 300.0
"""A run has time: it waits as long as a server tells it to."""
BACKOFF_S = 2.0
KEY_CHARS_MAX = 10_000
GENERATOR = "generator"


class Endpoint:
    """See `Opens`."""

    def __init__(self, name: str, definition: Definition, settings: Settings) -> None:
        """Check what can be checked without a connection. Raises ConfigurationError."""
        self.name = name
        self.definition = definition
        self._backend_settings = _settings_of(name, definition, settings)
        self._cerebras_key = settings.cerebras_api_key
        self._create()

    async def describe(self) -> TargetSpec:
        """See `Opens`. Reaches the server: a run whose target is not there is not begun."""
        definition, chosen = self.definition, self._backend_settings
        backend = self._create()
        try:
            await backend.probe()
            server = await _server_of(backend)
        finally:
            await backend.aclose()
        embedded = chosen.backend == BackendKind.openvino
        revision = definition.revision or revision_of(chosen)
        templates = choose_set(backend.templates, definition.templates)
        return TargetSpec(
            name=self.name,
            row=definition.row,
            model=definition.model or (model_name(chosen) if embedded else backend.model),
            revision=revision,
            base_url=None if embedded else _address(backend),
            sampling={
                **definition.sampling.model_dump(mode="json"),
                "max_tokens": definition.sampling.max_tokens or chosen.max_tokens,
                "seed": _base_seed(definition),
            },
            template_sha256=template_sha256(templates),
            backends_sha256={GENERATOR: backend_sha256(chosen, revision=revision, templates=templates)},
            server=server,
        )

    @contextlib.asynccontextmanager
    async def open(self, spec: TargetSpec) -> AsyncGenerator[OpenEndpoint]:
        """See `Opens`."""
        backend = self._create()
        try:
            yield OpenEndpoint(spec, self.definition, backend, self._backend_settings)
        finally:
            await backend.aclose()

    def tidy_up(self) -> None:
        """See `Opens`. Nothing is kept."""

    def _create(self) -> Backend:
        return create_backend(self._backend_settings, name=self.name, cerebras_api_key=self._cerebras_key)


class OpenEndpoint:
    """See `Target`."""

    interruptible = False
    """A call that is broken off is paid for and lost."""

    def __init__(self, spec: TargetSpec, definition: Definition, backend: Backend, settings: BackendSettings) -> None:
        self.spec = spec
        self._definition = definition
        self._backend = backend
        self._settings = settings
        self._templates = load_templates(choose_set(backend.templates, definition.templates))
        self._price = definition.price or own_price(settings)

    async def ask(self, item: Item, repeat: int, *, key: str) -> Answered:
        """See `Target`."""
        sampling = self._definition.sampling
        seed = item_seed(_base_seed(self._definition), item, repeat)
        request = CompletionRequest(
            messages=self._messages(item),
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            max_tokens=sampling.max_tokens,
            stop=sampling.stop,
            seed=seed,
            request_id=f"eval-{key[:32]}",
        )
        records: list[CallTrace] = []
        failure: BackendError | None = None
        completion: Completion | None = None
        while completion is None and len(records) < TRIES:
            if failure is not None:
                await asyncio.sleep(random.uniform(0, BACKOFF_S * 2 ** len(records)))
            record = CallTrace()
            records.append(record)
            try:
                completion = await call_model(self._backend, request, record=record, settings=self._settings)
            except HOPELESS:
                raise
            except BackendError as exc:
                failure = exc
                # What was refused before its first token has been tried often enough by the call itself.
                if not exc.retryable or not record.usage.completion:
                    break
        spent = priced({GENERATOR: _spent(records)}, self._price, {})
        if completion is None:
            reason = error_code(failure) if failure is not None else "no_answer"
            sample = Sample("", "", seed=seed, usage=records[-1].usage, status=Status.errored, reason=reason)
            return Answered((sample,), None, status=Status.errored, reason=reason, spent=spent)
        return Answered((_sample(completion, seed),), 0, spent=spent)

    def _messages(self, item: Item) -> tuple[ChatMessage, ...]:
        if self._templates.manifest.verbatim:
            return (ChatMessage(role="user", content=item.task.prompt),)
        return self._templates.chat("generator", problem=self._templates.prepared(item.task.prompt))


def _sample(completion: Completion, seed: int | None) -> Sample:
    finish = completion.finish
    withheld = finish.finish_reason is FinishReason.content_filter
    return Sample(
        text=f"<think>{completion.reasoning}</think>{completion.text}" if completion.reasoning else completion.text,
        visible=completion.text,
        finish_reason=str(finish.finish_reason),
        seed=seed,
        usage=finish.usage,
        status=Status.refused if withheld else None,
        reason="content_filter" if withheld else "",
    )


def _spent(records: list[CallTrace]) -> Spent:
    called = [record for record in records if record.called]
    return Spent(
        calls=len(called),
        usage=sum((record.usage for record in called), TokenUsage()),
        seconds=sum(record.duration_s for record in called),
    )


def _base_seed(definition: Definition) -> int | None:
    return (definition.sampling.seed or 0) if definition.seeded else None


def _settings_of(name: str, definition: Definition, settings: Settings) -> BackendSettings:
    patience: dict[str, Any] = {
        "connect_retries": CONNECT_RETRIES,
        "retry_after_max_s": RETRY_AFTER_MAX_S,
        "first_token_timeout_s": definition.first_token_timeout_s,
        "idle_timeout_s": definition.idle_timeout_s,
    }
    if definition.backend is None:
        chosen = BackendSettings(
            backend=BackendKind.openai, base_url=definition.base_url, api_key=read_key(name, definition.key_file)
        )
    else:
        chosen = named_backend(name, definition.backend, settings)
    if definition.model is not None:
        patience["model"] = definition.model
    return chosen.model_copy(update=patience)


def named_backend(name: str, backend: str, settings: Settings) -> BackendSettings:
    """Return the settings that a backend's name, a role or a kind stands for. Raises ConfigurationError."""
    if backend in settings.backends:
        return settings.backend(backend)
    role = settings.role(AgentKind(backend)) if backend in AgentKind.__members__ else None
    if role is not None:
        return settings.resolve(role)
    if backend in BackendKind.__members__:
        resolved = settings.resolve(settings.generator)
        return resolved if resolved.backend == backend else BackendSettings(backend=BackendKind(backend))
    known = ", ".join([*sorted(settings.backends), *AgentKind.__members__, *BackendKind.__members__])
    raise ConfigurationError(f"{name}: unknown backend {backend!r}: choose one of {known}")


def read_key(name: str, path: Path | None) -> SecretStr | None:
    """Return the key in a file; None = no file is named. Raises ConfigurationError."""
    if path is None:
        return None
    try:
        with path.expanduser().open(encoding="utf-8") as file:
            text = file.read(KEY_CHARS_MAX).strip()
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigurationError(f"target {name!r}: the key file {path} cannot be read: {exc}") from exc
    if not text:
        raise ConfigurationError(f"target {name!r}: the key file {path} is empty")
    return SecretStr(text)


def own_price(settings: BackendSettings) -> Price | None:
    """Return the price that the settings of a backend tell; None = they do not."""
    if not settings.price_prompt and not settings.price_completion:
        return None
    return Price(prompt=settings.price_prompt, completion=settings.price_completion)


def _address(backend: Backend) -> str | None:
    return backend.origin.address if isinstance(backend, OpenAIBackend) else None


async def _server_of(backend: Backend) -> str | None:
    """vLLM tells its version; other servers do not, in any form that many share."""
    if not isinstance(backend, OpenAIBackend):
        return None
    with contextlib.suppress(BackendError, ValueError, TypeError):
        value = json.loads(await backend.get_text(URL(backend.origin.address).with_path("/version")))
        version = cast(dict[str, Any], value).get("version") if isinstance(value, dict) else None
        return f"vllm {version}" if isinstance(version, str) else None
    return None
