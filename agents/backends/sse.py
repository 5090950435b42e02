"""Server-sent events, as far as model servers use them (https://html.spec.whatwg.org/multipage/server-sent-events.html).

Lines end with LF or CRLF (a lone CR, which no model server sends, is not a line end). Comments, ids and retry fields are
dropped. A server cannot make the buffer grow without end: lines and events have a largest size.
"""

from typing import NamedTuple

from ...schemas.errors import MalformedResponse

LINE_BYTES_MAX = 1_048_576
EVENT_BYTES_MAX = 4_194_304

_BOM = b"\xef\xbb\xbf"


class SseEvent(NamedTuple):
    """One event."""

    event: str
    """Value of the `event` field; empty = an ordinary message."""
    data: str
    """The `data` lines, joined with line feeds."""


class SseDecoder:
    """Turns the bytes of a stream, in whatever pieces they arrive, into events."""

    def __init__(self, *, line_bytes_max: int = LINE_BYTES_MAX, event_bytes_max: int = EVENT_BYTES_MAX) -> None:
        self._line_bytes_max = line_bytes_max
        self._event_bytes_max = event_bytes_max
        self._rest = b""
        self._event = ""
        self._data: list[str] = []
        self._data_bytes = 0
        self._first = True

    def feed(self, piece: bytes) -> list[SseEvent]:
        """Return the events that `piece` completes. Raises MalformedResponse when a line or an event is too long."""
        lines = (self._rest + piece).split(b"\n")
        self._rest = lines.pop()
        if len(self._rest) > self._line_bytes_max:
            raise MalformedResponse(f"the server sent a line of more than {self._line_bytes_max:,} bytes")
        events: list[SseEvent] = []
        for line in lines:
            self._take(line, events)
        return events

    def flush(self) -> list[SseEvent]:
        """Return the event that the end of the stream leaves behind (some servers omit the last empty line)."""
        events: list[SseEvent] = []
        rest, self._rest = self._rest, b""
        self._take(rest, events)
        self._take(b"", events)
        return events

    def _take(self, line: bytes, events: list[SseEvent]) -> None:
        if len(line) > self._line_bytes_max:
            raise MalformedResponse(f"the server sent a line of more than {self._line_bytes_max:,} bytes")
        line = line.removesuffix(b"\r")
        if self._first:
            line, self._first = line.removeprefix(_BOM), False
        if not line:
            if self._data:
                events.append(SseEvent(self._event, "\n".join(self._data)))
            self._event, self._data, self._data_bytes = "", [], 0
            return
        field, _, value = line.partition(b":")
        if field not in (b"data", b"event"):
            return
        text = value.removeprefix(b" ").decode("utf-8", errors="replace")
        if field == b"event":
            self._event = text
            return
        self._data_bytes += len(value)
        if self._data_bytes > self._event_bytes_max:
            raise MalformedResponse(f"the server sent an event of more than {self._event_bytes_max:,} bytes")
        self._data.append(text)
