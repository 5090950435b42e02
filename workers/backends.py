"""The backends of one worker process: one for each distinct setting, shared by the agents that use it."""

import asyncio

import structlog

from ..agents.backends.base import Backend
from ..agents.backends.registry import create_backend
from ..schemas.backend_settings import BackendKind, BackendSettings
from ..schemas.messages import AgentKind
from ..schemas.settings import Settings

log = structlog.stdlib.get_logger(__name__)


class BackendPool:
    """Creates backends on first use, off the event loop (the embedded engine takes a second to load)."""

    def __init__(self, settings: Settings, *, generator_backend: str | None = None) -> None:
        """`generator_backend` binds the generators of this process to a backend from K2THINK_BACKENDS."""
        self._settings = settings
        self._generator_backend = generator_backend
        self._created: dict[str, asyncio.Task[Backend]] = {}

    def configured(self, agent: AgentKind) -> tuple[str, BackendSettings] | None:
        """Return the name and settings of an agent's backend; None = it needs no model. Raises ConfigurationError."""
        if agent is AgentKind.generator and self._generator_backend is not None:
            return self._generator_backend, self._settings.backend(self._generator_backend)
        role = self._settings.role(agent)
        return None if role is None else (str(role.backend), self._settings.resolve(role))

    async def get(self, agent: AgentKind) -> tuple[Backend | None, BackendSettings | None]:
        """Return an agent's backend, created if need be. Raises ConfigurationError."""
        configured = self.configured(agent)
        if configured is None:
            return None, None
        name, settings = configured
        key = f"{name} {_identity(settings)}"
        if key not in self._created:
            self._created[key] = asyncio.get_running_loop().create_task(self._create(name, settings))
        try:
            return await asyncio.shield(self._created[key]), settings
        except asyncio.CancelledError:
            raise
        except Exception:
            self._created.pop(key, None)
            raise

    async def _create(self, name: str, settings: BackendSettings) -> Backend:
        key = self._settings.cerebras_api_key
        if settings.backend is BackendKind.openvino:
            return await asyncio.to_thread(create_backend, settings, name=name, cerebras_api_key=key)
        return create_backend(settings, name=name, cerebras_api_key=key)

    async def close(self) -> None:
        """Close all backends."""
        for task in self._created.values():
            if task.done() and not task.cancelled() and task.exception() is None:
                await task.result().aclose()
        self._created.clear()


def _identity(settings: BackendSettings) -> str:
    """Settings that make one engine or client; two roles that differ in nothing else share it."""
    key = settings.api_key.get_secret_value() if settings.api_key else ""
    return f"{settings.model_dump_json(exclude={'concurrency', 'api_key'})} {hash(key)}"
