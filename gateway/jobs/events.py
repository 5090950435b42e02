"""The events of a job, followed to its end."""

import contextlib
from collections.abc import AsyncGenerator

from ...schemas.errors import Stopping
from ...schemas.trace import EventKind, JobEvent
from ...store.job_views import last_event
from ...store.jobs import events_after, job_result
from ..services import Services
from ..sse import sse


async def follow(services: Services, job_id: str, *, after: int = 0) -> AsyncGenerator[JobEvent]:
    """Yield the job's events with a number above `after`, as they happen, to the end. The job must exist.

    A reader that has seen the end already gets nothing, rather than waiting for ever.
    """
    # Of one moment: a job that is not final has not got its last event yet.
    (status, _result), newest = await services.database.read(
        lambda connection: (job_result(connection, job_id), last_event(connection, job_id))
    )
    after = min(after, newest)
    if not status.final:
        async with contextlib.aclosing(services.submitter.watch(job_id, after=after)) as events:  # pyright: ignore[reportArgumentType]
            async for event in events:
                yield event
        return
    while True:
        events = await services.database.read(lambda connection, last=after: events_after(connection, job_id, last))
        for event in events:
            after = event.seq
            yield event
            if event.kind is EventKind.finished:
                return
        if not events:
            return


async def job_events(services: Services, job_id: str, *, after: int) -> AsyncGenerator[bytes]:
    """Yield the same as server-sent events. A gateway that stops just ends them: the reader goes on at another."""
    with contextlib.suppress(Stopping):
        async with contextlib.aclosing(follow(services, job_id, after=after)) as events:
            async for event in events:
                yield sse(event.model_dump_json(), event=event.kind.value, id=event.seq)
