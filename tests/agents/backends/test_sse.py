"""The parser of server-sent events."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from k2think.agents.backends.sse import SseDecoder, SseEvent
from k2think.schemas.errors import MalformedResponse

STREAM = (
    b"\xef\xbb\xbf: keepalive\r\n\r\n"
    b'data: {"a": "\xc3\xa9"}\n\n'
    b"event: error\r\ndata:one\r\ndata: two\r\n\r\n"
    b"id: 7\nretry: 10\nunknown\n\n"
    b"data: [DONE]"
)
EVENTS = [SseEvent("", '{"a": "é"}'), SseEvent("error", "one\ntwo"), SseEvent("", "[DONE]")]


@settings(deadline=None)
@given(st.lists(st.integers(0, len(STREAM)), max_size=30))
def test_any_cutting_of_the_bytes_gives_the_same_events(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(STREAM)]
    decoder = SseDecoder()
    events = [event for a, b in itertools.pairwise(edges) for event in decoder.feed(STREAM[a:b])]
    assert events + decoder.flush() == EVENTS


def test_a_line_without_end_is_refused() -> None:
    decoder = SseDecoder(line_bytes_max=100)
    decoder.feed(b"data: " + b"x" * 80)
    with pytest.raises(MalformedResponse, match="100 bytes"):
        decoder.feed(b"x" * 80)


def test_a_long_line_that_arrives_whole_is_refused() -> None:
    with pytest.raises(MalformedResponse):
        SseDecoder(line_bytes_max=100).feed(b"data: " + b"x" * 200 + b"\n\n")


def test_an_event_of_too_many_lines_is_refused() -> None:
    decoder = SseDecoder(event_bytes_max=1000)
    with pytest.raises(MalformedResponse, match="event"):
        decoder.feed(b"data: " + b"x" * 90 + b"\n" + (b"data: " + b"x" * 90 + b"\n") * 20)
