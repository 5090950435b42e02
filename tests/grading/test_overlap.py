"""Texts of one set in another: what counts as the same words, which runs are found, and what is near enough."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from harness.planted_overlaps import FORMS, PLANTED, counts
from hypothesis import given, settings
from hypothesis import strategies as st
from k2think.grading import overlap
from k2think.grading.overlap import OverlapIndex, is_sign, kinds_from, normal_words, text_key
from k2think.schemas.errors import InvalidRequest
from k2think.schemas.evaluation import OverlapKind

WORDS = [f"w{number}" for number in range(40)]
LONG = " ".join(f"alpha{number}" for number in range(30))


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("Find $m+n$.", "find M + N"),
        (r"\dfrac{1}{2} \text{ km}", r"\frac 1 2 km"),
        (r"\left( x \right)", "(x)"),
        ("1,234,567 boats", "1234567 Boats"),
        ("ﬁve  ½\n\tmiles", "five 1⁄2 miles"),
        ("長方形の面積", "長方形 の 面積"),
    ],
    ids=["case", "latex_looks", "brackets", "thousands", "compatibility", "east_asian"],
)
def test_the_same_words_in_other_looks(text: str, same: str) -> None:
    assert normal_words(text) == normal_words(same)
    assert text_key(text) == text_key(same)


@pytest.mark.parametrize(
    ("text", "other"),
    [("x + 12", "x + 13"), ("ab c", "a bc"), (r"\sin x", r"\sinh x"), ("1,23", "123")],
    ids=["number", "border", "function", "list"],
)
def test_other_words_are_other_texts(text: str, other: str) -> None:
    assert text_key(text) != text_key(other)


def only(index: OverlapIndex, text: str) -> overlap.Match:
    (match,) = index.search(text)
    return match


@pytest.mark.parametrize(
    ("words", "kind"),
    [(30, OverlapKind.exact), (29, OverlapKind.ngram13), (13, OverlapKind.ngram13), (12, OverlapKind.ngram8), (8, OverlapKind.ngram8)],
    ids=["whole", "all_but_one", "thirteen", "twelve", "eight"],
)  # fmt: skip
def test_a_run_is_found_from_eight_words_on(words: int, kind: OverlapKind) -> None:
    index = OverlapIndex([("p", LONG)])
    match = only(index, f"something before {' '.join(LONG.split()[:words])} something after it")
    assert (match.kind, match.words, match.coverage) == (kind, words, words / 30)
    assert match.text == " ".join(LONG.split()[:words])
    assert not OverlapIndex([("p", LONG)]).search(f"before {' '.join(LONG.split()[:7])} after")


def test_a_short_problem_is_found_as_a_whole_only() -> None:
    index = OverlapIndex([("p", "What is 7 times 8?")])
    assert only(index, "what is 7 TIMES 8").kind is OverlapKind.exact
    assert not index.search("What is 7 times 9?")
    assert not index.search("Tell me: what is 7 times 8?")


def test_runs_that_many_problems_share_are_no_sign() -> None:
    # Given three problems that begin with the same ten words
    phrase = " ".join(f"common{number}" for number in range(10))
    problems = [(str(n), f"{phrase} {' '.join(f'own{n}x{k}' for k in range(12))}") for n in range(3)]
    index = OverlapIndex(problems)
    # When a text has the phrase alone, or with one of them
    # Then the first says nothing, the second names that one only
    assert not index.search(f"{phrase} and something else")
    match = only(index, problems[1][1])
    assert (match.item, match.kind, match.words) == ("1", OverlapKind.exact, 12)


def test_what_a_suite_puts_around_its_problems_is_no_part_of_them() -> None:
    # Given problems between the same instructions
    before = "Solve the following problem with care and show every step that you take before the end."
    after = "Put nothing but the final answer into a box at the end of your reply, please."
    index = OverlapIndex((str(number), f"{before} {one.problem} {after}") for number, one in enumerate(PLANTED))
    # Then they are found bare and between other words
    for number, one in enumerate(PLANTED):
        for text in (one.problem, f"What about this? {one.problem} Tell me."):
            match = only(index, text)
            assert (match.item, match.kind, match.coverage) == (str(number), OverlapKind.exact, 1.0)
        # And another problem between the same instructions is not taken for one of them.
        assert not index.search(f"{before} {one.other} {after}")


def test_problems_with_the_same_words_are_found_together() -> None:
    index = OverlapIndex([("a", LONG), ("b", LONG.upper()), ("c", "another")])
    assert len(index) == 2
    assert [match.item for match in index.search(LONG)] == ["a", "b"]


def test_a_text_similar_to_many_problems_is_their_phrasing() -> None:
    template = "A train with {} wagons leaves the station at {} and arrives at {} after stopping {} times on its way."
    index = OverlapIndex((str(n), template.format(n, n + 1, n + 2, n + 3)) for n in range(0, 40, 4))
    assert not [found for found in index.search(template.format(90, 91, 95, 97)) if found.similarity is not None]


def test_eight_words_in_a_row_count_from_half_of_the_problem_on() -> None:
    every = kinds_from(OverlapKind.fuzzy)
    assert every == tuple(OverlapKind)
    assert is_sign(OverlapKind.ngram8, 0.5, every)
    assert not is_sign(OverlapKind.ngram8, 0.49, every)
    assert is_sign(OverlapKind.ngram13, 0.1, every)
    assert not is_sign(OverlapKind.fuzzy, 1.0, kinds_from(OverlapKind.ngram8))


def test_a_set_that_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overlap, "INDEX_WORDS_MAX", 50)
    with pytest.raises(InvalidRequest, match="the smaller set that is indexed"):
        OverlapIndex([("a", LONG), ("b", LONG.replace("alpha", "beta"))])


def longest_common_run(first: list[str], second: list[str]) -> int:
    best, row = 0, [0] * (len(second) + 1)
    for word in first:
        row = [0] + [row[place] + 1 if word == other else 0 for place, other in enumerate(second)]
        best = max(best, *row)
    return best


@settings(max_examples=80, deadline=None)
@given(st.randoms(use_true_random=False))
def test_runs_are_those_of_the_plain_search(chance: random.Random) -> None:
    # Given texts that share pieces of every length
    pool = chance.sample(WORDS, 12)
    problem = [chance.choice(pool) for _ in range(chance.randint(1, 40))]
    text = [chance.choice(pool) for _ in range(chance.randint(0, 20))]
    start = chance.randrange(len(problem))
    text += problem[start : start + chance.randint(0, 25)] + [chance.choice(pool) for _ in range(chance.randint(0, 20))]
    # Then the index tells of the longest common run, exactly if it has eight words, or is all of the problem
    longest = longest_common_run(problem, text)
    matches = OverlapIndex([("p", " ".join(problem))], common_in=2).search(" ".join(text))
    told = max((match.words for match in matches), default=0)
    whole_and_short = longest == len(problem) == len(text) and problem == text
    assert told == (longest if longest >= 8 or whole_and_short else 0)


@settings(max_examples=40, deadline=None)
@given(st.randoms(use_true_random=False))
def test_no_similar_text_is_missed(chance: random.Random) -> None:
    problems = [[chance.choice(WORDS) for _ in range(chance.randint(12, 40))] for _ in range(6)]
    text = list(chance.choice(problems))
    for _ in range(chance.randint(0, 6)):
        text[chance.randrange(len(text))] = chance.choice(WORDS)
    index = OverlapIndex(((str(n), " ".join(words)) for n, words in enumerate(problems)), common_in=99)
    found = {match.item: match.similarity for match in index.search(" ".join(text)) if match.similarity is not None}
    pairs = set(pairwise(text))
    expected = {}
    for number, words in enumerate(problems):
        theirs = set(pairwise(words))
        similarity = len(pairs & theirs) / len(pairs | theirs)
        if similarity >= overlap.FUZZY_MIN and min(len(pairs), len(theirs)) >= overlap.FUZZY_PAIRS_MIN:
            expected[str(number)] = similarity
    assert found == pytest.approx(expected)


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=300))
def test_any_text_can_be_searched_and_indexed(text: str) -> None:
    index = OverlapIndex([("p", text)])
    found = index.search(text)
    assert [match.kind for match in found] == ([OverlapKind.exact] if normal_words(text) else [])


def test_what_is_found_of_planted_problems_and_what_is_not() -> None:
    table = counts()
    all_five, none = len(PLANTED), 0
    for form in ("a copy", "other case, punctuation and LaTeX", "between instructions"):
        assert set(table[form].values()) == {all_five}, form
    assert table["in the middle of a long text"] == {**dict.fromkeys(OverlapKind, all_five), OverlapKind.fuzzy: none}
    assert table["with other numbers"][OverlapKind.fuzzy] == all_five
    assert table["with other numbers"][OverlapKind.exact] == none
    # Rewording and translation escape all of them: that is what the documentation says.
    for form in ("told anew", "translated", "another problem (must not be found)"):
        assert set(table[form].values()) == {none}, form
    assert len(table) == len(FORMS)
