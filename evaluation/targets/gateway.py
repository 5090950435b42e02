"""Our own system behind a running gateway, asked through the Python client."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import Any, cast

import httpx

from ...client.asynchronous import AsyncClient
from ...schemas.errors import K2ThinkError
from ...schemas.evaluation import Item, Status, TargetSpec
from ...schemas.policy import Policy, Priority
from ...schemas.trace import JobTrace
from .base import HOPELESS, Answered, error_code, item_seed, priced
from .definition import Definition
from .embedded import DEADLINE_S, SETTLE_POLL_S, SETTLE_S, seeded
from .endpoint import read_key
from .fingerprint import template_sha256
from .job_trace import answered, check_models, still_running

PATIENCE_S = 600.0
"""Seconds for which a gateway that was there is waited for."""
TIMEOUT_S = 10.0


class GatewayPolicy:
    """See `Opens`."""

    def __init__(self, name: str, definition: Definition) -> None:
        """Connect to nothing. Raises ConfigurationError for a key that cannot be read."""
        self.name = name
        self.definition = definition
        self._url = (definition.base_url or "").rstrip("/").removesuffix("/v1")
        key = read_key(name, definition.key_file)
        self._key = None if key is None else key.get_secret_value()
        given = definition.policy or Policy()
        update: dict[str, Any] = {"priority": Priority.batch}
        if "deadline_s" not in given.model_fields_set:
            update["deadline_s"] = DEADLINE_S
        self._policy = given.model_copy(update=update)
        self._base_seed = (given.sampling.seed or 0) if definition.seeded else None

    async def describe(self) -> TargetSpec:
        """See `Opens`. Looks whether the gateway is there and lets us in."""
        async with self._client() as client:
            async for _ in client.list():
                break
        sampling = self._policy.sampling
        templates = self._policy.templates
        return TargetSpec(
            name=self.name,
            row=self.definition.row,
            model=self.definition.model or "unknown",
            revision=self.definition.revision,
            base_url=self._url,
            policy=self._policy.model_dump(mode="json"),
            outside_models=self.definition.outside_models,
            sampling={**sampling.model_dump(mode="json"), "seed": self._base_seed},
            # A gateway does not tell which set its workers' backends are bound to, nor which backends these are.
            template_sha256=None if templates is None else template_sha256(templates),
            server=await self._server(),
        )

    @contextlib.asynccontextmanager
    async def open(self, spec: TargetSpec) -> AsyncGenerator[OpenGateway]:
        """See `Opens`."""
        async with self._client() as client:
            yield OpenGateway(spec, self.definition, self._policy, self._base_seed, client)

    def tidy_up(self) -> None:
        """See `Opens`. Nothing is kept."""

    def _client(self) -> AsyncClient:
        return AsyncClient(self._url, api_key=self._key, patience_s=PATIENCE_S)

    async def _server(self) -> str | None:
        """The version stands in the description of the API."""
        with contextlib.suppress(httpx.HTTPError, ValueError, KeyError, TypeError):
            async with httpx.AsyncClient(timeout=TIMEOUT_S) as http:
                answer = await http.get(f"{self._url}/openapi.json")
            info = cast(dict[str, Any], answer.json())["info"]
            return f"k2think {info['version']}"
        return None


class OpenGateway:
    """See `Target`."""

    interruptible = True
    """The gateway's database knows the jobs by their keys."""

    def __init__(
        self, spec: TargetSpec, definition: Definition, policy: Policy, base_seed: int | None, client: AsyncClient
    ) -> None:
        self.spec = spec
        self._definition = definition
        self._policy = policy
        self._base_seed = base_seed
        self._client = client

    async def ask(self, item: Item, repeat: int, *, key: str) -> Answered:
        """See `Target`."""
        policy = seeded(self._policy, item_seed(self._base_seed, item, repeat))
        try:
            job = await self._client.submit(item.task.prompt, policy=policy, idempotency_key=f"eval:{key}")
            await self._client.wait(job.id)
            trace = await self._trace(job.id)
        except HOPELESS:
            raise
        except K2ThinkError as exc:
            return Answered((), None, status=Status.errored, reason=error_code(exc))
        check_models(trace, self.spec)
        found = answered(trace)
        return replace(found, spent=priced(found.spent, self._definition.price, self._definition.role_prices))

    async def _trace(self, job_id: str) -> JobTrace:
        loop = asyncio.get_running_loop()
        until = loop.time() + SETTLE_S
        while True:
            trace = await self._client.trace(job_id)
            if not still_running(trace) or loop.time() > until:
                return trace
            await asyncio.sleep(SETTLE_POLL_S)
