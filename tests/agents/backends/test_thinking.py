"""Splitting inline reasoning from the text."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from k2think.agents.backends.thinking import ReasoningSplitter
from k2think.schemas.completion import Delta

PIECES = st.lists(
    st.sampled_from(["<think>", "</think>", "<thi", "nk>", "</", "think>", "<", "a", " b\n", "</answer>", ""]),
    max_size=12,
)


def split(pieces: list[str], *, opened: bool = False) -> tuple[str, str, str, str]:
    """Return the totals and what was passed on: (text, reasoning, passed text, passed reasoning)."""
    splitter = ReasoningSplitter(opened=opened)
    passed = [splitter.feed(Delta(text=piece)) for piece in pieces] + [splitter.finish()]
    deltas = [delta for delta in passed if delta is not None]
    return (
        splitter.text,
        splitter.reasoning,
        "".join(delta.text for delta in deltas),
        "".join(delta.reasoning for delta in deltas),
    )


@settings(deadline=None)
@given(PIECES, st.data(), st.booleans())
def test_any_split_into_deltas_gives_the_same_result(pieces: list[str], data: st.DataObject, opened: bool) -> None:
    whole = "".join(pieces)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=8)))
    edges = [0, *cuts, len(whole)]
    parts = [whole[a:b] for a, b in itertools.pairwise(edges)]
    assert split(parts, opened=opened) == split([whole], opened=opened) == split(list(whole), opened=opened)


@settings(deadline=None)
@given(PIECES, st.booleans())
def test_nothing_but_at_most_two_tags_is_lost(pieces: list[str], opened: bool) -> None:
    whole = "".join(pieces)
    text, reasoning, *_ = split(pieces, opened=opened)
    lost = len(whole) - len(text) - len(reasoning)
    assert lost in {0, len("<think>"), len("</think>"), len("<think></think>")}


@pytest.mark.parametrize(
    ("whole", "text", "reasoning"),
    [
        ("405", "405", ""),
        ("<think>carry</think>405", "405", "carry"),
        ("\n<think>carry</think>405", "\n405", "carry"),
        ("<think>cut off", "", "cut off"),
        ("<think></think>405", "405", ""),
        ("carry</think>405", "405", "carry"),
        ("<think>a</think>say <think>b</think>", "say <think>b</think>", "a"),
        ("<think>a <think> b</think>c", "c", "a <think> b"),
        ("1 < 2 </thinking>", "1 < 2 </thinking>", ""),
        ("ends in <thin", "ends in <thin", ""),
    ],
)
def test_the_rules(whole: str, text: str, reasoning: str) -> None:
    assert split([whole])[:2] == (text, reasoning)


def test_a_prompt_that_opened_the_reasoning() -> None:
    assert split(["carry</think>405"], opened=True) == ("405", "carry", "405", "carry")


def test_text_is_left_alone_once_the_server_separates() -> None:
    splitter = ReasoningSplitter()
    splitter.feed(Delta(reasoning="carry"))
    splitter.feed(Delta(text="the tag <think> opens</think>"))
    assert (splitter.text, splitter.reasoning) == ("the tag <think> opens</think>", "carry")


def test_held_back_text_is_not_lost_when_the_server_separates() -> None:
    splitter = ReasoningSplitter()
    assert splitter.feed(Delta(text="<th")) is None
    assert splitter.feed(Delta(reasoning="carry")) == Delta(text="<th", reasoning="carry")
