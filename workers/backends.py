"""The backends of one worker process, one for each distinct setting, and the routes of its agents among them."""

import asyncio
from collections.abc import Callable, Iterable, Iterator

import structlog

from ..agents.backends.base import Backend, OwnsEngine
from ..agents.backends.registry import create_backend
from ..agents.limits import UNLIMITED
from ..agents.routing import Route
from ..agents.targets import Target
from ..schemas.backend_settings import BackendKind, BackendSettings
from ..schemas.errors import K2ThinkError
from ..schemas.messages import AgentKind
from ..schemas.settings import Settings
from .counters import counters
from .ending import end_tasks
from .limits import RedisLimiter, limiter_of
from .queues import broker_url

log = structlog.stdlib.get_logger(__name__)


class BackendPool:
    """Creates backends on first use, off the event loop (the embedded engine takes a second to load)."""

    def __init__(
        self,
        settings: Settings,
        *,
        generator_backend: str | None = None,
        on_engine_end: Callable[[str, str], None] | None = None,
    ) -> None:
        """`generator_backend` binds the generators of this process to a backend from K2THINK_BACKENDS.

        `on_engine_end` is called with a backend's name and the reason when the engine that this process owns has died.
        """
        self._settings = settings
        self._on_engine_end = on_engine_end
        self._serving: list[asyncio.Task[None]] = []
        self._generator_backend = generator_backend
        self._targets: dict[str, Target] = {}
        self._created: dict[str, asyncio.Task[Backend]] = {}
        self._routes: dict[AgentKind, Route] = {}
        self._limiters: list[RedisLimiter] = []

    def configured(self, agent: AgentKind) -> tuple[str, BackendSettings] | None:
        """Return the name and settings of an agent's own backend; None = it needs no model. Raises ConfigurationError."""
        if agent is AgentKind.generator and self._generator_backend is not None:
            return self._generator_backend, self._settings.backend(self._generator_backend)
        role = self._settings.role(agent)
        return None if role is None else (str(role.backend), self._settings.resolve(role))

    def standing_in(self, agent: AgentKind) -> list[str]:
        """Return the names of the backends that an agent's calls may go to besides its own."""
        configured = self.configured(agent)
        if configured is None:
            return []
        _name, settings = configured
        return [*settings.fallback, *([settings.hedge] if settings.hedge else [])]

    async def route(self, agent: AgentKind) -> Route | None:
        """Return an agent's route, its own backend created if need be; None = it needs no model. Raises ConfigurationError."""
        if agent not in self._routes:
            configured = self.configured(agent)
            if configured is None:
                return None
            name, settings = configured
            target = self._target(name, settings)
            fallbacks = self._named(settings.fallback)
            hedge = next(self._named([settings.hedge] if settings.hedge else []), None)
            self._routes[agent] = Route(await target.make(), (target, *fallbacks), hedge)
        return self._routes[agent]

    def admits(self, agent: AgentKind) -> bool:
        """Whether an agent's work may be begun: not while all its backends are left alone."""
        return agent not in self._routes or self._routes[agent].admits()

    def _named(self, names: Iterable[str]) -> Iterator[Target]:
        return (self._target(name, self._settings.backend(name)) for name in names)

    def _target(self, name: str, settings: BackendSettings) -> Target:
        key = f"{name} {_identity(settings)}"
        if key not in self._targets:

            async def make() -> Backend:
                return await self._made(key, name, settings)

            limiter = limiter_of(name, settings, broker_url=broker_url(self._settings))
            if limiter is not None:
                self._limiters.append(limiter)
            self._targets[key] = Target(name, settings, make, limiter=limiter or UNLIMITED, watcher=_Watcher())
        return self._targets[key]

    async def _made(self, key: str, name: str, settings: BackendSettings) -> Backend:
        if key not in self._created:
            self._created[key] = asyncio.get_running_loop().create_task(self._create(name, settings))
        try:
            return await asyncio.shield(self._created[key])
        except asyncio.CancelledError:
            raise
        except Exception:
            self._created.pop(key, None)
            raise

    async def _create(self, name: str, settings: BackendSettings) -> Backend:
        key = self._settings.cerebras_api_key
        if settings.backend is BackendKind.openvino:
            return await asyncio.to_thread(create_backend, settings, name=name, cerebras_api_key=key)
        backend = create_backend(settings, name=name, cerebras_api_key=key)
        if isinstance(backend, OwnsEngine):
            self._serving.append(asyncio.get_running_loop().create_task(self._serve(name, backend)))
        return backend

    async def _serve(self, name: str, backend: OwnsEngine) -> None:
        """Load an engine that this process owns, and tell of its end."""
        try:
            reason = await backend.serve()
        except K2ThinkError as exc:
            log.error(
                "engine_not_loaded", backend=name, reason=str(exc), hint="steps that need it fail with this reason"
            )
            return
        if self._on_engine_end is not None:
            self._on_engine_end(name, reason)

    async def close(self) -> None:
        """Close all backends, and their limits."""
        await end_tasks(*self._serving)
        for task in self._created.values():
            if task.done() and not task.cancelled() and task.exception() is None:
                await task.result().aclose()
        self._created.clear()
        for limiter in self._limiters:
            await limiter.aclose()


class _Watcher:
    """Logs and counts what routes do."""

    def rests(self, backend: str, *, seconds: float, reason: str) -> None:
        """See RouteWatcher."""
        counters().rested(backend)
        hint = "its calls go to the fallback, or wait; it is tried again after that time"
        log.warning("backend_rests", backend=backend, seconds=round(seconds, 1), reason=reason, hint=hint)

    def returned(self, backend: str) -> None:
        """See RouteWatcher."""
        log.info("backend_returned", backend=backend)

    def fell_back(self, backend: str, to: str, *, reason: str) -> None:
        """See RouteWatcher."""
        counters().fell_back(backend, to)
        log.info("fell_back", backend=backend, to=to, reason=reason)

    def hedged(self, backend: str, to: str, *, won: bool) -> None:
        """See RouteWatcher."""
        counters().hedged(backend, to, won=won)


def _identity(settings: BackendSettings) -> str:
    """Settings that make one engine or client; two roles that differ in nothing else share it."""
    key = settings.api_key.get_secret_value() if settings.api_key else ""
    return f"{settings.model_dump_json(exclude={'concurrency', 'api_key'})} {hash(key)}"
