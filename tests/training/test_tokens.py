"""The tokenizer of training, and its equality with the one in the shipped folder."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from k2think.training.mini.engine import FolderEngine
from k2think.training.mini.tokens import (
    CHARACTERS,
    EOS_ID,
    PAD_ID,
    TAGS,
    decode,
    encode_completion,
    encode_prompt,
    normalise,
)

PIECES = st.sampled_from(
    [
        *CHARACTERS,
        *TAGS,
        "<eos>",
        "<pad>",
        "<SOLVE>",
        "\n",
        "\t",
        "  ",
        " = ",
        "?",
        " x ",
        "é",
        "×",
        "−",
        "中",
        "🙂",
        "\u00a0",
        "\x00",
    ]
)
TEXTS = st.one_of(st.text(max_size=40), st.lists(PIECES, max_size=40).map("".join))


@pytest.mark.parametrize(
    ("typed", "seen"),
    [
        ("What is 347 + 58?", "what is 347+58"),
        ("347+58", "347+58"),
        ("347 + 58 = ?", "347+58"),
        ("  347 +58 =\n", "347+58"),
        ("WHAT'S 347 PLUS 58??", "what's 347 plus 58"),
        ("What’s 12 × 7", "what's 12*7"),
        ("12 x 7", "12*7"),
        ("3x + 5 = 20", "3x+5=20"),
        ("9 − 4 ÷ 2", "9-4/2"),
        ("Sort [3, 1, 2].", "sort 3,1,2"),
        ("a\tb\r\nc", "a b c"),
        ("日本 ok", "~ ok"),
        ("", ""),
    ],
)
def test_normalisation(typed: str, seen: str) -> None:
    assert normalise(typed) == seen


def test_literal_text_survives_a_round_trip() -> None:
    text = "".join(CHARACTERS) + "".join(TAGS) + "  A B "
    assert decode(encode_completion(text)) == text


@given(TEXTS)
def test_any_text_can_be_encoded(text: str) -> None:
    ids = encode_prompt(text)
    assert encode_prompt(decode(ids)) == [i for i in ids if i not in (EOS_ID, PAD_ID)] or "<" in text


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=TEXTS)
def test_the_shipped_tokenizer_gives_the_ids_of_training(shipped: FolderEngine, text: str) -> None:
    assert shipped.token_ids(text) == encode_prompt(text)


def test_the_shipped_detokenizer_keeps_tags_and_drops_end_marks(shipped: FolderEngine) -> None:
    text = "".join(CHARACTERS) + "".join(TAGS) + "  5 , 7 ."
    assert shipped.text([PAD_ID, *encode_completion(text), EOS_ID]) == text
