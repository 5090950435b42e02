"""A call that a second backend joins when the first is late ("The Tail at Scale", Dean and Barroso, 2013)."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from ..schemas.completion import CompletionRequest
from ..schemas.errors import BackendError
from ..schemas.trace import CallTrace
from .breaker import Ticket
from .call import Completion
from .targets import AroundCall, Target, leave, note_left, take

HEDGE_LOST = "hedge_lost"
"""Why a call was left: another stream had its first token sooner."""


@dataclass(eq=False)
class _Stream:
    """One of the two streams of a hedged call."""

    target: Target
    record: CallTrace
    task: "asyncio.Task[Completion]"


class HedgedCall:
    """A call that a second backend joins when the first is late."""

    def __init__(
        self,
        first: Target,
        second: Target,
        request: CompletionRequest,
        *,
        late_s: float,
        around_call: AroundCall,
    ) -> None:
        self._first = first
        self._second = second
        self._request = request
        self._late_s = late_s
        self._around_call = around_call
        self._turn = asyncio.Event()
        """The first stream's turn at its backend's limits has come: lateness is counted from there, as the pace is."""
        self._heard = asyncio.Event()
        self._winner: _Stream | None = None

    async def run(self, record: CallTrace) -> Completion:
        """Return what the winner completes. `record` becomes the winner's whatever happens, with the other's cost in it."""
        streams = [self._begin(self._first, record)]
        ticket: Ticket | None = None
        try:
            await self._listen(self._turn, streams, timeout_s=None)
            await self._listen(self._heard, streams, timeout_s=self._late_s)
            if self._undecided(streams) and self._second.breaker.allows and self._first.pace.take_hedge():
                ticket = self._second.breaker.enter()
                streams.append(self._begin(self._second, CallTrace()))
                while self._undecided(streams):
                    await self._listen(self._heard, streams, timeout_s=None)
            winner = self._winner_of(streams)
            for stream in streams:
                if stream is not winner:
                    stream.task.cancel()
            return await winner.task
        finally:
            for stream in streams:
                stream.task.cancel()
            await asyncio.gather(*(stream.task for stream in streams), return_exceptions=True)
            if ticket is not None:
                first, second = streams
                self._conclude(record, first, second, ticket)

    def _begin(self, target: Target, record: CallTrace) -> _Stream:
        def heard() -> None:
            self._winner = self._winner or stream
            self._heard.set()

        task = asyncio.get_running_loop().create_task(
            target.call(
                self._request,
                record=record,
                around_call=self._around_call,
                on_turn=self._turn.set,
                on_first_token=heard,
            )
        )
        stream = _Stream(target, record, task)
        return stream

    async def _listen(self, event: asyncio.Event, streams: Sequence[_Stream], *, timeout_s: float | None) -> None:
        """Wait for the event, or for a stream's end."""
        hearing = asyncio.ensure_future(event.wait())
        running = [stream.task for stream in streams if not stream.task.done()]
        try:
            await asyncio.wait([hearing, *running], timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            hearing.cancel()

    def _undecided(self, streams: Sequence[_Stream]) -> bool:
        """Whether no stream has spoken or ended well, and one may still."""
        return (
            self._winner is None
            and not any(stream.task.done() and not _failed(stream) for stream in streams)
            and any(not stream.task.done() for stream in streams)
        )

    def _winner_of(self, streams: Sequence[_Stream]) -> _Stream:
        return self._winner or next((stream for stream in streams if not _failed(stream)), streams[0])

    def _conclude(self, record: CallTrace, first: _Stream, second: _Stream, ticket: Ticket) -> None:
        """Tell how it went, when both have ended."""
        won = self._winner_of((first, second)) is second
        self._second.watcher.hedged(self._first.name, self._second.name, won=won)
        error = _error(second)
        if won or error is not None:
            self._second.judge(ticket, error, alone=False)
        else:
            ticket.left()
        if won:
            leave(record, reason=_reason(first))
            take(record, second.record)
        else:
            note_left(record, second.record, reason=_reason(second))


def _failed(stream: _Stream) -> bool:
    return stream.task.done() and (stream.task.cancelled() or stream.task.exception() is not None)


def _error(stream: _Stream) -> BackendError | None:
    error = None if stream.task.cancelled() else stream.task.exception()
    return error if isinstance(error, BackendError) else None


def _reason(stream: _Stream) -> str:
    error = _error(stream)
    return HEDGE_LOST if error is None else error.code
