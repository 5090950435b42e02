"""A call that a second backend joins when the first is late ("The Tail at Scale", Dean and Barroso, 2013)."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from ..schemas.completion import CompletionRequest
from ..schemas.errors import BackendError, StreamBroken
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
        self._heard = asyncio.Event()
        self._winner: _Stream | None = None

    async def run(self, record: CallTrace) -> Completion:
        """Return what the winner completes; `record` becomes the winner's, with the loser's cost in it."""
        streams = [self._begin(self._first, record)]
        ticket: Ticket | None = None
        try:
            await self._listen(streams, timeout_s=self._late_s)
            if self._undecided(streams) and self._second.breaker.allows and self._first.pace.take_hedge():
                ticket = self._second.breaker.enter()
                streams.append(self._begin(self._second, CallTrace()))
                while self._undecided(streams):
                    await self._listen(streams, timeout_s=None)
            winner = self._winner or next((one for one in streams if not _failed(one)), streams[0])
            return await self._conclude(winner, streams, record, ticket)
        finally:
            for stream in streams:
                stream.task.cancel()
            await asyncio.gather(*(stream.task for stream in streams), return_exceptions=True)

    def _begin(self, target: Target, record: CallTrace) -> _Stream:
        def heard() -> None:
            self._winner = self._winner or stream
            self._heard.set()

        task = asyncio.get_running_loop().create_task(
            target.call(self._request, record=record, around_call=self._around_call, on_first_token=heard)
        )
        stream = _Stream(target, record, task)
        return stream

    async def _listen(self, streams: Sequence[_Stream], *, timeout_s: float | None) -> None:
        """Wait for a first token, or for a stream's end."""
        hearing = asyncio.ensure_future(self._heard.wait())
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

    async def _conclude(
        self, winner: _Stream, streams: Sequence[_Stream], record: CallTrace, ticket: Ticket | None
    ) -> Completion:
        losers = [stream for stream in streams if stream is not winner]
        for loser in losers:
            loser.task.cancel()
        await asyncio.gather(*(loser.task for loser in losers), return_exceptions=True)
        try:
            completion = await winner.task
            problem: BackendError | None = None
        except BackendError as exc:
            completion, problem = None, exc
        if ticket is not None:
            hedge_won = winner.target is self._second
            self._second.watcher.hedged(self._first.name, self._second.name, won=hedge_won)
            if hedge_won:
                self._second.judge(ticket, problem, alone=False)
            else:
                ticket.left()
        for loser in losers:
            if winner.record is not record:
                leave(record, reason=_reason(loser))
                take(record, winner.record)
            else:
                note_left(record, loser.record, reason=_reason(loser))
        if completion is None:
            raise problem or StreamBroken("a hedged call ended without a result")
        return completion


def _failed(stream: _Stream) -> bool:
    return stream.task.done() and (stream.task.cancelled() or stream.task.exception() is not None)


def _reason(stream: _Stream) -> str:
    error = None if stream.task.cancelled() else stream.task.exception()
    return error.code if isinstance(error, BackendError) else HEDGE_LOST
