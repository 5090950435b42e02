"""Our own system on a stack that the run starts for itself, as `k2think solve` does, with its database in the run's folder.

The database stays there until the target is through: a run that is killed finds its jobs again by their keys.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import shutil
from collections.abc import AsyncGenerator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ... import __version__
from ...agents.backends.registry import create_backend
from ...schemas.backend_settings import BUNDLED_MODEL, BackendSettings
from ...schemas.errors import ConfigurationError, QueueFull
from ...schemas.evaluation import Item, Row, TargetSpec
from ...schemas.jobs import JobStatus, SolveRequest
from ...schemas.messages import AgentKind
from ...schemas.policy import Policy, Priority
from ...schemas.settings import Settings, read_settings
from ...schemas.trace import JobTrace
from ...store.jobs import job_trace
from ...store.workers import seen_workers
from ...workers.session import Session, open_session
from ...workers.stack import running_stack
from ...workers.submit import resolve
from .base import Answered, item_seed, priced
from .definition import Definition, Price
from .fingerprint import backend_sha256, model_folder, model_name, revision_of, template_set, template_sha256
from .job_trace import answered, check_models, still_running

PREFIX = "K2THINK_"
DEADLINE_S = 604_800.0
"""Of jobs whose policy sets none: they wait for each other, and a run takes as long as it takes."""
SETTLE_S = 10.0
"""Seconds for which the end of cancelled attempts is waited for: what they cost is written down then."""
SETTLE_POLL_S = 0.05
START_S = 30.0
"""Seconds for which a worker is waited for before it is asked all the same."""
STACKS = "stacks"


class EmbeddedPolicy:
    """See `Opens`."""

    def __init__(self, name: str, definition: Definition, folder: Path) -> None:
        """`folder`: of the run. Raises ConfigurationError for settings, models or policies that cannot work."""
        self.name = name
        self.definition = definition
        self._given = definition.policy or Policy()
        plain = read_settings(**_fields(_variables(definition)))
        self._models = {agent: plain.resolve(role) for agent in AgentKind if (role := plain.role(agent)) is not None}
        self._stand_ins = {agent: _stand_ins(plain, chosen) for agent, chosen in self._models.items()}
        variables = {**_variables(definition), **_absolute(plain, self._models)}
        identity = hashlib.sha256(json.dumps(sorted(variables.items())).encode()).hexdigest()[:12]
        self._folder = folder / STACKS / identity
        self._variables = {
            **variables,
            f"{PREFIX}DATA_DIR": str(self._folder.absolute()),
            f"{PREFIX}DATABASE_URL": f"sqlite:///{self._folder.absolute() / 'k2think.db'}",
        }
        settings = read_settings(**_fields(self._variables))
        # Never the configured deployment: that is asked through its gateway.
        self._settings = settings.model_copy(update={"broker_url": None})
        for agent, chosen in self._models.items():
            create_backend(chosen, name=str(agent), cerebras_api_key=settings.cerebras_api_key)
        self._policy = resolve(SolveRequest(problem="-", policy=self._patient(self._given)), settings).policy
        _check_outside(name, definition, self._models)

    async def describe(self) -> TargetSpec:
        """See `Opens`."""
        chosen = self._models[AgentKind.generator]
        revision = self.definition.revision or revision_of(chosen)
        return TargetSpec(
            name=self.name,
            row=self.definition.row,
            model=model_name(chosen),
            revision=revision,
            policy=self._policy.model_dump(mode="json"),
            outside_models=self.definition.outside_models,
            sampling={
                **self._policy.sampling.model_dump(mode="json"),
                "max_tokens": self._policy.sampling.max_tokens or chosen.max_tokens,
                "seed": self._base_seed,
            },
            template_sha256=template_sha256(template_set(chosen, self._policy.templates)),
            backends_sha256={agent.value: self._backend_sha256(agent, revision) for agent in self._models},
            server=f"k2think {__version__}",
        )

    @contextlib.asynccontextmanager
    async def open(self, spec: TargetSpec) -> AsyncGenerator[OpenPolicy]:
        """See `Opens`."""
        with running_stack(self._settings, variables=self._variables) as served:
            async with open_session(served) as session:
                await _worker_there(session)
                yield OpenPolicy(spec, self._policy, self._base_seed, session, _prices(self.definition, self._models))

    def tidy_up(self) -> None:
        """See `Opens`."""
        shutil.rmtree(self._folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            self._folder.parent.rmdir()

    def _backend_sha256(self, agent: AgentKind, revision: str | None) -> str:
        """`revision`: of the generator's model, which need not be read again for a role that has the same."""
        chosen = self._models[agent]
        return backend_sha256(
            chosen,
            revision=revision if chosen == self._models[AgentKind.generator] else revision_of(chosen),
            templates=template_set(chosen, self._policy.templates),
            stand_ins=self._stand_ins[agent],
        )

    @property
    def _base_seed(self) -> int | None:
        return (self._given.sampling.seed or 0) if self.definition.seeded else None

    def _patient(self, policy: Policy) -> Policy:
        given: dict[str, Any] = {"priority": Priority.batch}
        if "deadline_s" not in policy.model_fields_set:
            given["deadline_s"] = DEADLINE_S
        return policy.model_copy(update=given)


class OpenPolicy:
    """See `Target`."""

    interruptible = True
    """The stack's database knows the jobs."""

    def __init__(
        self,
        spec: TargetSpec,
        policy: Policy,
        base_seed: int | None,
        session: Session,
        prices: tuple[Price | None, Mapping[str, Price]],
    ) -> None:
        self.spec = spec
        self._policy = policy
        self._base_seed = base_seed
        self._session = session
        self._prices = prices

    async def ask(self, item: Item, repeat: int, *, key: str) -> Answered:
        """See `Target`."""
        policy = seeded(self._policy, item_seed(self._base_seed, item, repeat))
        generation = 0
        while True:
            request = SolveRequest(problem=item.task.prompt, policy=policy, idempotency_key=f"eval:{key}:{generation}")
            created, trace = await self._solved(request)
            if created or trace.status not in (JobStatus.expired, JobStatus.cancelled):
                break
            generation += 1  # it ended only since nobody worked on it after a kill
        check_models(trace, self.spec)
        found = answered(trace)
        return replace(found, spent=priced(found.spent, *self._prices))

    async def _solved(self, request: SolveRequest) -> tuple[bool, JobTrace]:
        submitter, database = self._session.submitter, self._session.database
        while True:
            try:
                accepted = await submitter.submit(request)
                break
            except QueueFull as exc:
                await asyncio.sleep(exc.retry_after_s)
        await submitter.wait(accepted.job_id)
        loop = asyncio.get_running_loop()
        until = loop.time() + SETTLE_S
        while True:
            trace = await database.read(lambda connection: job_trace(connection, accepted.job_id))
            if not still_running(trace) or loop.time() > until:
                return accepted.created, trace
            await asyncio.sleep(SETTLE_POLL_S)


def seeded(policy: Policy, seed: int | None) -> Policy:
    """Return the policy with this seed of its samplers."""
    return policy.model_copy(update={"sampling": policy.sampling.model_copy(update={"seed": seed})})


async def _worker_there(session: Session) -> None:
    """Wait for the worker's first sign of life, so that the first items' seconds are not those of its start."""
    since = session.database.now()
    loop = asyncio.get_running_loop()
    until = loop.time() + START_S
    while loop.time() < until:
        if await session.database.read(lambda connection: seen_workers(connection, since=since)):
            return
        await asyncio.sleep(SETTLE_POLL_S)


def _variables(definition: Definition) -> dict[str, str]:
    model = {} if definition.model is None else {f"{PREFIX}GENERATOR__MODEL": definition.model}
    return {**model, **definition.settings}


def _fields(variables: Mapping[str, str]) -> dict[str, Any]:
    """Return the settings' fields that variables stand for, as pydantic-settings would read them from the environment."""
    fields: dict[str, Any] = {}
    for name, text in variables.items():
        *outer, last = name.removeprefix(PREFIX).lower().split("__")
        place = fields
        for part in outer:
            place = place.setdefault(part, {})
        try:
            place[last] = json.loads(text) if text.lstrip().startswith(("{", "[")) else text
        except ValueError as exc:
            raise ConfigurationError(f"settings: {name} is not valid JSON: {exc}") from exc
    return fields


def _stand_ins(settings: Settings, chosen: BackendSettings) -> list[BackendSettings]:
    return [settings.backend(name) for name in (*chosen.fallback, chosen.hedge) if name]


def _absolute(settings: Settings, models: Mapping[AgentKind, BackendSettings]) -> dict[str, str]:
    """Name the model folders in full: the stack has a data folder of its own, and no models in it."""
    named: dict[str, str] = {}
    for agent, chosen in models.items():
        own = agent is AgentKind.generator or getattr(settings, agent.value) is not None
        folder = model_folder(chosen)
        if (
            own
            and chosen.model is not None
            and folder is not None
            and folder.is_dir()
            and chosen.model != BUNDLED_MODEL
        ):
            named[f"{PREFIX}{agent.value.upper()}__MODEL"] = str(folder)
    return named


def _check_outside(name: str, definition: Definition, models: Mapping[AgentKind, BackendSettings]) -> None:
    """Hold the label of the row against the models that the settings name. Raises ConfigurationError."""
    policy = definition.policy
    if definition.row is Row.single or policy is None:
        return
    own = models[AgentKind.generator]
    identity = (own.backend, own.base_url, model_name(own))
    for agent in (AgentKind.planner, AgentKind.verifier):
        chosen = models[agent]
        other = model_name(chosen)
        if (chosen.backend, chosen.base_url, other) != identity and other not in definition.outside_models:
            raise ConfigurationError(
                f"target {name!r}: the settings give the {agent} another model ({other!r}) than the generator "
                f"({model_name(own)!r}): name it in outside_models and call the row outside_scaffold"
            )


def _prices(
    definition: Definition, models: Mapping[AgentKind, BackendSettings]
) -> tuple[Price | None, Mapping[str, Price]]:
    """Return the price of the model and those of other roles: the definition's, then the settings'."""
    roles = dict(definition.role_prices)
    for agent, chosen in models.items():
        if chosen.price_prompt or chosen.price_completion:
            roles.setdefault(agent.value, Price(prompt=chosen.price_prompt, completion=chosen.price_completion))
    if definition.price is not None:
        roles.pop(AgentKind.generator.value, None)
    return definition.price, roles
