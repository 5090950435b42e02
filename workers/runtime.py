"""Everything that one worker process holds: database, doorbell, leases, backends, and the agents' runner."""

import asyncio
import os
import signal

import structlog

from ..schemas.backend_settings import BackendKind
from ..schemas.messages import AgentKind
from ..schemas.settings import Settings
from ..store.database import database_of
from .backends import BackendPool
from .coordinator import Coordinator
from .counters import counters
from .dispatcher import Dispatcher
from .ending import end_tasks
from .leases import Leases
from .presence import Presence, process_id
from .queues import broker_url, result_backend_url, role_queues
from .replies import Replies
from .runner import StepRunner
from .submit import Submitter
from .sweeper import Sweeper
from .tasks import CeleryDoor
from .webhooks import WebhookSender

EMBEDDED_CONCURRENCY = 8
REMOTE_CONCURRENCY = 100
RULES_CONCURRENCY = 16
"""Of a safety worker without a guard model. It waits for nothing but the database, so more at once would only stand in
front of what is more urgent and still in the queue."""
log = structlog.stdlib.get_logger(__name__)


class Runtime:
    """Built before Celery's worker starts; `start` and `drain` run on the pool's event loop."""

    def __init__(self, settings: Settings, *, role: str, backend: str | None, concurrency: int | None = None) -> None:
        """`role`: planner, generator, verifier, safety, intake or all. `concurrency`: steps at once; None = by the settings.

        Raises ConfigurationError.
        """
        self._settings = settings
        self._role = role
        if AgentKind.generator not in self._agents():
            backend = None  # only generators are bound to one
        self._weight = 1.0 if backend is None else settings.backend(backend).weight
        self.worker = process_id(role)
        self.backends = BackendPool(settings, generator_backend=backend, on_engine_end=self._engine_ended)
        self.engine_died = False
        """Whether this process is ending because the engine that it owned has died."""
        self.concurrency = concurrency or self._default_concurrency()
        """Steps in flight at most."""
        self._expect(role_queues(role, names=() if backend is None else settings.names_of(backend)))
        self.database = database_of(settings)
        self.dispatcher = Dispatcher(broker_url(settings))
        replies = Replies(result_backend_url(settings))
        self.coordinator = Coordinator(self.database, self.dispatcher, replies)
        self.leases = Leases(
            self.database,
            worker=self.worker,
            broker_url=broker_url(settings),
            lease_s=settings.lease_s,
            heartbeat_s=settings.heartbeat_s,
        )
        self.runner = StepRunner(settings, self.coordinator, self.leases, self.backends, worker=self.worker)
        self.door = CeleryDoor(Submitter(settings, self.coordinator), self.coordinator)
        self.presence = Presence(
            settings,
            self.database,
            worker=self.worker,
            role=role,
            backend=backend,
            capacity=self.concurrency,
            running=lambda: self.leases.count,
        )
        self._background: list[asyncio.Task[None]] = []

    def _expect(self, queues: list[str]) -> None:
        """Let the counters begin at zero, and see that the agents' settings name backends that exist."""
        configured = {agent: self.backends.configured(agent) for agent in self._agents()}
        named = [(agent.value, backend[0]) for agent, backend in configured.items() if backend is not None]
        named += [(agent.value, name) for agent in configured for name in self.backends.standing_in(agent)]
        counters().expect(configured, queues=queues, backends=named)

    def _agents(self) -> list[AgentKind]:
        if self._role == "all":
            return list(AgentKind)
        return [AgentKind(self._role)] if self._role in AgentKind.__members__ else []

    def _default_concurrency(self) -> int:
        """The role's setting, else by kind of backend. The weight is the generators'."""
        if self._role == AgentKind.safety and self._settings.role(AgentKind.safety) is None:
            return RULES_CONCURRENCY
        roles = [role for agent in self._agents() if (role := self._settings.role(agent)) is not None]
        own = self._settings.generator
        chosen = max((role.concurrency * (self._weight if role is own else 1.0) for role in roles), default=0.0)
        used = [backend for agent in self._agents() if (backend := self.backends.configured(agent)) is not None]
        embedded = any(settings.backend is BackendKind.openvino for _name, settings in used)
        usual = EMBEDDED_CONCURRENCY if embedded else REMOTE_CONCURRENCY
        return max(1, round(chosen or usual * self._weight))

    async def start(self) -> None:
        """Begin to keep leases and to listen, with role all to sweep and to send webhooks; load the backends meanwhile."""
        loop = asyncio.get_running_loop()
        self.leases.start()
        self.presence.start()
        self._background = [loop.create_task(self._preload())]
        if self._role == "all":
            self._background.append(loop.create_task(Sweeper(self._settings, self.coordinator).run()))
            self._background.append(loop.create_task(WebhookSender(self._settings, self.database).run()))
        log.info("worker_started", worker=self.worker)

    async def _preload(self) -> None:
        """The first step shall not wait for an engine to load. A failure shows itself to the step that needs it."""
        for agent in self._agents():
            try:
                await self.backends.route(agent)
            except Exception as exc:
                log.error("backend_not_loaded", agent=agent.value, reason=str(exc))

    def _engine_ended(self, backend: str, reason: str) -> None:
        """A new engine needs a new process: hand back the steps and end, as when told to stop, but as a failure."""
        hint = "this worker hands back its steps and ends; who keeps it alive starts another"
        log.error("engine_died", backend=backend, reason=reason, hint=hint)
        self.engine_died = True
        os.kill(os.getpid(), signal.SIGTERM)

    async def drain(self) -> None:
        """Let running steps finish for `K2THINK_SHUTDOWN_S`, hand back the rest, close everything."""
        log.info("worker_draining", running=self.leases.count)
        await self.presence.drain()
        await self.leases.drain(timeout_s=self._settings.shutdown_s)
        await end_tasks(*self._background)
        await self.leases.close()
        await self.coordinator.settle()
        await self.backends.close()
        await self.presence.close()
        self.dispatcher.close()
        self.database.close()
        log.info("worker_stopped")
