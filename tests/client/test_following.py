"""Server-sent events are read the same, in whatever pieces they come."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from k2think.client.following import EventData

STREAM = (
    b': keepalive\n\nid: 7\nevent: accepted\ndata: {"seq": 7}\n\n:\n\ndata:{}\r\n\r\nid: 8\n\n'
    b"data: first\ndata: second\ndata:  third\n\n\n\nretry: 100\ndata\ndata: \xc3\xa4\n\ndata: without an end\n"
)
EVENTS = [b'{"seq": 7}', b"{}", b"first\nsecond\n third", b"\n\xc3\xa4"]


@given(st.lists(st.integers(0, len(STREAM)), max_size=20))
def test_pieces_do_not_matter(cuts: list[int]) -> None:
    places = [0, *sorted(cuts), len(STREAM)]
    data = EventData()
    found = [event for start, end in pairwise(places) for event in data.feed(STREAM[start:end])]
    assert found == EVENTS
