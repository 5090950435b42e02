"""The events of a job over any number of connections: none is lost, none comes twice."""

import time
from collections.abc import Iterator, Sequence

from pydantic import ValidationError

from ..schemas.errors import GatewayUnreachable
from ..schemas.trace import EventKind, JobEvent
from .exchange import Exchange, Patience, segment
from .failures import not_understood
from .flow import Call, Flow, Read

OVERSHOOT_S = 0.5
"""Seconds by which a wait may be longer than asked for."""


class EventData:
    """The data of server-sent events, from bytes that come in any pieces (https://html.spec.whatwg.org, section 9.2)."""

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """Yield what is complete. Comments and other fields are passed over: a JobEvent has its number and kind in it."""
        *lines, self._rest = (self._rest + piece).split(b"\n")
        for line in lines:
            name, _, value = line.removesuffix(b"\r").partition(b":")
            if name == b"data":
                self._data.append(value.removeprefix(b" "))
            elif line in (b"", b"\r") and self._data:
                yield b"\n".join(self._data)
                self._data = []


class Following:
    """One reader of a job's events."""

    def __init__(self, exchange: Exchange, job_id: str, *, after: int = 0, deadline: float | None = None) -> None:
        """`after`: number of the last event that is known; `deadline`: of `time.monotonic`, in seconds."""
        self._exchange = exchange
        self._path = f"/v1/jobs/{segment(job_id)}/events"
        self._last = after
        self._deadline = deadline
        self._patience = Patience(exchange, deadline=deadline)
        self._data = EventData()
        self._connected_at = 0.0
        self._read_timeout_s = 0.0
        self._heard = False
        self._news = False
        self.connected = False
        """Whether a stream is open."""
        self.nothing_left = False
        """Whether the newest stream came to its end, and had no new event."""
        self.finished = False
        """Whether the last event has been handed out."""
        self.deaf = False
        """Whether a stream was opened that stayed silent to its time-out: something on the way keeps streams back."""

    def connect(self) -> Flow[None]:
        """Open a stream that begins after the last event handed out. Raises what `Exchange.ask` does."""
        self._read_timeout_s = self._patience.read_timeout_s()
        headers = {"Last-Event-ID": str(self._last)}
        call = Call("GET", self._path, headers=headers, read_timeout_s=self._read_timeout_s)
        yield from self._exchange.ask(call, deadline=self._deadline, stream=True)
        self._data, self._connected_at = EventData(), time.monotonic()
        self.connected, self.nothing_left, self._heard, self._news = True, False, False, False

    def more(self) -> Flow[Sequence[JobEvent]]:
        """Return the next events of the open stream: none after a mere sign of life, none when the stream is over.

        Then `connected` is false. Raises GatewayUnreachable when there was no sign of life for longer than patience lasts.
        """
        try:
            piece: bytes = yield Read()
        except GatewayUnreachable as exc:
            silent_s = time.monotonic() - self._connected_at
            self.deaf = not self._heard and silent_s >= 0.9 * self._read_timeout_s
            self.connected = False
            yield from self._patience.pause(exc)
            return ()
        if not piece:
            self.nothing_left = not self._news
            self.connected = False
            return ()
        self._heard = True
        self._patience.renew()
        events = [event for data in self._data.feed(piece) if (event := self._event(data)).seq > self._last]
        if events:
            self._last = events[-1].seq
            self._news = True
            self.finished = events[-1].kind is EventKind.finished
        if self._deadline is not None and self._deadline - time.monotonic() < self._read_timeout_s - OVERSHOOT_S:
            # The next silence could last beyond the deadline: go on with a stream that is given up in time.
            self.connected = False
        return events

    def breathe(self) -> Flow[None]:
        """Pause before the next stream when the last one brought nothing, although the job goes on. Raises as `more`."""
        if self.nothing_left:
            yield from self._patience.pause(GatewayUnreachable("streams of events end before the job does", sent=True))

    def _event(self, data: bytes) -> JobEvent:
        try:
            return JobEvent.model_validate_json(data, extra="ignore")
        except ValidationError as exc:
            raise not_understood(exc, "a JobEvent") from exc
