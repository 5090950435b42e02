"""What the embedded engine needs to stream text: stop strings and token-wise decoding."""

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st
from k2think.agents.backends.detokenise import Detokeniser
from k2think.agents.backends.stops import StopScanner

MARK = 1000


def decode(ids: list[int]) -> str:
    """Decode a vocabulary of single bytes; like a tokenizer, it drops its special token."""
    return bytes(token for token in ids if token != MARK).decode("utf-8", errors="replace")


def stream(ids: list[int], cuts: list[int], *, literal: dict[int, str] | None = None) -> list[str]:
    detokeniser = Detokeniser(literal=literal)
    edges = [0, *sorted(cuts), len(ids)]
    pieces: list[str] = []
    for a, b in itertools.pairwise(edges):
        text = detokeniser.add(ids[a:b], decode)
        shown, whole = (decode(window) for window in detokeniser.windows())
        pieces.append(text + detokeniser.take(shown, whole))
    return [*pieces, detokeniser.finish(decode)]


@settings(deadline=None)
@given(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="�"), max_size=40),
    st.lists(st.integers(0, 160), max_size=40),
)
def test_characters_of_several_tokens_are_never_broken(text: str, cuts: list[int]) -> None:
    ids = list(text.encode())
    pieces = stream(ids, [min(cut, len(ids)) for cut in cuts])
    assert "".join(pieces) == text


@settings(deadline=None)
@given(st.binary(max_size=60))
def test_bytes_that_are_no_text_do_not_stop_the_stream(raw: bytes) -> None:
    pieces = stream(list(raw) + list(b" and then plain text follows"), list(range(len(raw))))
    assert "".join(pieces).endswith("and then plain text follows")


def test_a_literal_token_survives_and_completes_what_came_before() -> None:
    ids = [*b"a", *"é".encode()[:1], MARK, *b"b"]
    assert "".join(stream(ids, [1, 2, 3], literal={MARK: "<think>"})) == "a�<think>b"
    assert "".join(stream(ids, [1, 2, 3])) == "a�b"


@settings(deadline=None)
@given(
    st.text(alphabet="<>/abs", max_size=30),
    st.lists(st.text(alphabet="<>/abs", max_size=4), max_size=3),
    st.lists(st.integers(0, 30), max_size=10),
)
def test_text_ends_before_the_first_stop_string(text: str, stops: list[str], cuts: list[int]) -> None:
    found = [at for at in (text.find(stop) for stop in stops if stop) if at >= 0]
    scanner = StopScanner(tuple(stops))
    edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    pieces = [scanner.feed(text[a:b]) for a, b in itertools.pairwise(edges)]
    assert "".join(pieces) + scanner.finish() == (expected := text[: min(found)] if found else text)
    assert scanner.stopped == bool(found), expected
