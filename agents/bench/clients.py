"""Who makes the calls: our own way, as the agents call a model, and what every client needs to run over many streams."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Protocol

from ...schemas.backend_settings import BackendSettings
from ...schemas.completion import CompletionRequest
from ...schemas.errors import BackendError
from ...schemas.trace import CallTrace
from ..backends.base import Backend
from ..call import call_model
from .figures import Run, Sample


class Client(Protocol):
    """Makes calls over many streams at once."""

    async def run(self, requests: Sequence[CompletionRequest], streams: int) -> Run:
        """Make all calls, `streams` at once. Calls that fail are told in the run."""
        ...

    async def aclose(self) -> None:
        """Free what was opened."""
        ...


class OwnClient:
    """A backend called as the agents call it: recorded, its reasoning split off, its stream not watched."""

    def __init__(self, backend: Backend, settings: BackendSettings) -> None:
        self._backend = backend
        # A refusal is a finding here, and waiting to try again would be measured.
        self._settings = settings.model_copy(update={"connect_retries": 0})

    async def run(self, requests: Sequence[CompletionRequest], streams: int) -> Run:
        """See `Client.run`."""
        return await over_streams(requests, streams, self._call)

    async def aclose(self) -> None:
        """Close the backend."""
        await self._backend.aclose()

    async def _call(self, request: CompletionRequest) -> Sample:
        record = CallTrace()
        await call_model(self._backend, request, record=record, settings=self._settings)
        return Sample(
            first_token_s=record.time_to_first_token_s,
            duration_s=record.duration_s,
            prompt_tokens=record.usage.prompt,
            tokens=record.usage.completion,
            draft_acceptance=record.draft_acceptance,
            accepted_length=record.accepted_length,
        )


async def over_streams(
    requests: Sequence[CompletionRequest], streams: int, call: Callable[[CompletionRequest], Awaitable[Sample]]
) -> Run:
    """Make the calls in order, `streams` at once, each stream taking the next request when its last call is over."""
    samples: list[Sample] = []
    failures: list[BackendError] = []
    waiting = iter(requests)

    async def stream(waiting: Iterator[CompletionRequest]) -> None:
        for request in waiting:
            try:
                samples.append(await call(request))
            except BackendError as exc:
                failures.append(exc)

    began, cpu = time.monotonic(), time.process_time()
    async with asyncio.TaskGroup() as group:
        for _ in range(streams):
            group.create_task(stream(waiting))
    return Run(tuple(samples), tuple(failures), time.monotonic() - began, time.process_time() - cpu)
