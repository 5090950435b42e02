"""Properties that hold for any text, and texts that were made to break a grader."""

import contextlib
import json
import random
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from k2think.grading.rewards.literal import Unreadable, find_literals, read_literal, same_literal
from k2think.grading.score import score_sync
from k2think.schemas.scores import Score

TABLE = {"header": ["Position", "Job"], "rows": [["1", "plumber"], ["2", "cook"]]}
PROBLEMS: dict[str, tuple[Any, dict[str, Any]]] = {
    "math": ("405", {}),
    "stem__supergpqa": ("C", {"choices": ["a", "b", "c", "d"]}),
    "stem_web": ("8.31", {}),
    "logic__zebra_puzzle": (TABLE, {}),
    "logic__ordering_puzzle": (["owl", "jay"], {}),
    "logic__graph_logical": ("fdebme", {}),
    "logic__arcagi1": ([[1, 2], [3, 4]], {"partial": True}),
    "simulation__codeio": ('"output": {"a": [1, 2]}', {}),
    "simulation__cruxeval-o": ('{"functional": "[1, 2]"}', {}),
    "table__hitab": ("alpha|12.5", {}),
    "mini:words": ("42", {}),
}
"""One problem for each check that runs in this process."""


FEW = settings(max_examples=40, deadline=None)


def scores(text: str) -> dict[str, Score]:
    return {source: score_sync(source, text, truth, meta) for source, (truth, meta) in PROBLEMS.items()}


def hold(text: str) -> None:
    for source, scored in scores(text).items():
        assert 0.0 <= scored.value <= 1.0, source
        assert not scored.correct or scored.value == 1.0, source
        assert (scored.reason == "no_answer") == (scored.answer is None), source
        assert len(scored.detail) <= 500, source


PIECES = st.sampled_from(
    [
        *(
            "<think>",
            "</think>",
            "<answer>",
            "</answer>",
            "\\boxed{",
            "}",
            "{",
            "[",
            "]",
            "(",
            ")",
            ",",
            "|",
            "```json\n",
            "\n```",
        ),
        *(
            "405",
            "owl",
            "'jay'",
            '"output":',
            "8.31",
            "C",
            "\\frac{",
            "\\pi",
            "=",
            "the answer is ",
            "\n",
            " ",
            "[ANSWER]",
            "x",
        ),
    ]
)
TEXTS = st.one_of(st.text(max_size=80), st.lists(PIECES, max_size=14).map("".join))


@settings(max_examples=25, deadline=None)
@given(TEXTS)
def test_no_text_makes_a_check_fail(text: str) -> None:
    hold(text)


@settings(max_examples=12, deadline=None)
@given(
    st.text(max_size=60).filter(lambda text: "<" not in text),
    st.sampled_from(["\\boxed{405}", "no\n\nanswer", "<answer>C</answer>"]),
)
def test_what_was_thought_changes_nothing(thought: str, visible: str) -> None:
    assert scores(f"<think>{thought}</think>{visible}") == scores(visible)
    assert all(scored.reason == "no_answer" for scored in scores(f"<think>{thought}{visible}").values())


HOSTILE = {
    "nothing": "",
    "zeros": "\0" * 1000,
    "lone surrogates": "<answer>\ud800\udfff\udc00</answer>",
    "bytes": "<answer>" + bytes(range(256)).decode("latin-1") + "</answer>",
    "combining marks": "\\boxed{" + "a" + "\u0301" * 5_000 + "}",
    "directions": "<answer>\u202e504\u202c</answer>",
    "full-width digits": "\\boxed{４０６}",
    "huge number": "\\boxed{" + "9" * 12_000 + "}",
    "huge number in a list": "<answer>[" + "9" * 12_000 + "]</answer>",
    "signs": "<answer>" + "-" * 12_000 + "1</answer>",
    "deep lists": "<answer>" + "[" * 12_000 + "]" * 12_000 + "</answer>",
    "deep objects": "<answer>" + '{"a":' * 6_000 + "1" + "}" * 6_000 + "</answer>",
    "open brackets": "<answer>" + "[{(" * 6_000,
    "deep boxes": "\\boxed{" * 2_000 + "5" + "}" * 2_000,
    "many boxes": "\\boxed{5}" * 2_000,
    "many tags": "<answer>" * 6_000,
    "many thoughts": "<think></think>" * 2_000,
    "long row": "<answer>" + "1 " * 25_000 + "</answer>",
    "long table": "<answer>" + json.dumps({"header": ["a"], "rows": [["x"]] * 2_000}) + "</answer>",
    "many cells": "\\boxed{" + "a|" * 3_000 + "}",
    "quotes": "<answer>[" + "'" * 12_000 + "]</answer>",
    "escapes": '<answer>["' + "\\" * 20_001 + '"]</answer>',
    "fences": "```\n" * 6_000,
    "commas": "<answer>[" + "," * 12_000 + "]</answer>",
    "units": "\\boxed{5 " + "m/" * 2_000 + "s}",
    "percent signs": "\\boxed{5" + "%" * 6_000 + "}",
    "spaces": "<answer>" + " " * 37_000 + "5" + " " * 37_000 + "</answer>",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_text_is_scored(name: str) -> None:
    hold(HOSTILE[name])


def test_random_bytes_are_scored() -> None:
    rng = random.Random(7)
    for _ in range(15):
        noise = rng.randbytes(rng.randrange(200)).decode("utf-8", rng.choice(["replace", "surrogateescape", "ignore"]))
        hold(rng.choice(["{}", "<answer>{}</answer>", "\\boxed{{{}}}", "```\n{}\n```"]).replace("{}", noise))


# ---- The truth itself is right

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
WORDS = st.from_regex(r"[a-z]{1,8}", fullmatch=True)


@FEW
@given(VALUES)
def test_json_and_python_are_read_as_they_were_written(value: Any) -> None:
    assert same_literal(read_literal(json.dumps(value)), value)
    assert same_literal(read_literal(json.dumps(value, ensure_ascii=False, indent=1)), value)
    assert same_literal(read_literal(repr(value)), value)


@FEW
@given(st.text(max_size=60))
def test_a_literal_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(Unreadable):
        read_literal(text)
    find_literals(text)


@FEW
@given(VALUES.filter(lambda value: not isinstance(value, str)))
def test_predicted_data_equal_to_the_truth_is_right(value: Any) -> None:
    written = json.dumps(value)
    assert score_sync("simulation__codeio", f'<answer>{{"output": {written}}}</answer>', f'"output": {written}').correct


@FEW
@given(st.lists(st.lists(st.integers(0, 9), min_size=3, max_size=3), min_size=1, max_size=5), st.data())
def test_a_grid_is_credited_by_its_cells(grid: list[list[int]], data: st.DataObject) -> None:
    assert score_sync("logic__arcagi1", f"<answer>{grid}</answer>", grid).correct
    row, column = data.draw(st.integers(0, len(grid) - 1)), data.draw(st.integers(0, 2))
    other = [list(cells) for cells in grid]
    other[row][column] += 1
    scored = score_sync("logic__arcagi1", f"<answer>{other}</answer>", grid, {"partial": True})
    assert not scored.correct
    assert scored.value == pytest.approx(1 - 1 / (3 * len(grid)))
    assert score_sync("logic__arcagi1", f"<answer>{other}</answer>", grid).value == 0.0


@FEW
@given(st.lists(WORDS, min_size=2, max_size=5, unique=True), st.randoms(use_true_random=False))
def test_a_table_is_the_same_in_any_order_of_rows_and_columns(words: list[str], rng: random.Random) -> None:
    truth = {"header": ["n", "name", "back"], "rows": [[str(i), w, w[::-1]] for i, w in enumerate(words, start=1)]}
    places = rng.sample(range(3), 3)
    rows = rng.sample(truth["rows"], len(words))
    given_table = {"header": [truth["header"][p] for p in places], "rows": [[row[p] for p in places] for row in rows]}
    assert score_sync("logic__zebra_puzzle", f"<answer>{given_table}</answer>", truth).correct


@FEW
@given(st.lists(WORDS, min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_an_ordering_is_right_in_its_order_only(words: list[str], rng: random.Random) -> None:
    shuffled = rng.sample(words, len(words))
    assert score_sync("logic__ordering_puzzle", f"<answer>{shuffled}</answer>", words).correct == (shuffled == words)


@FEW
@given(st.lists(WORDS, min_size=1, max_size=5), st.randoms(use_true_random=False))
def test_cells_have_no_order(words: list[str], rng: random.Random) -> None:
    answer = "|".join(rng.sample(words, len(words)))
    assert score_sync("table__hitab", f"\\boxed{{{answer}}}", "|".join(words)).correct
    assert not score_sync("table__hitab", f"\\boxed{{{answer}|{words[0]}}}", "|".join(words)).correct


@FEW
@given(st.fractions(max_denominator=500), st.fractions(max_denominator=500))
def test_numbers_are_right_when_equal(a: Fraction, b: Fraction) -> None:
    written = rf"\boxed{{\frac{{{a.numerator}}}{{{a.denominator}}}}}"
    assert score_sync("math", written, str(a)).correct
    assert score_sync("math", written, str(b)).correct == (a == b)
    assert score_sync("stem_web", written, str(a)).correct
