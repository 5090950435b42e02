"""Every generated problem is right, and the sides of the split never meet."""

from __future__ import annotations

import itertools
import operator
import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from k2think.training.mini.digits import add, multiply, subtract, tail_number
from k2think.training.mini.families import FAMILIES, Problem, Side, draw_problem, side_of, verify
from k2think.training.mini.tokens import encode_completion, normalise

OPERATIONS = {"+": operator.add, "-": operator.sub, "*": operator.mul}


@given(st.integers(0, 2**32), st.sampled_from(sorted(FAMILIES)), st.sampled_from(Side))
def test_trace_answer_and_independent_computation_agree(seed: int, family: str, side: Side) -> None:
    # When a problem is drawn from any side of the split
    problem = draw_problem(random.Random(seed), family, side)
    # Then the recomputed answer, the end of the trace and the answer are one
    verify(problem)
    assert side_of(problem) is side
    # And every character can be written by the model, and the prompt is in the form that the tokenizer makes of it
    encode_completion(problem.trace + problem.answer + problem.plan)
    assert normalise(normalise(problem.text)) == normalise(problem.text)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_every_line_of_column_arithmetic_in_a_trace_is_true(family: str) -> None:
    rng = random.Random(3)
    for _ in range(300):
        problem = draw_problem(rng, family, Side.training)
        for left, sign, right, result in re.findall(r"(\d+)([+*-])(\d+):[^>;]*>(\d+)", problem.trace):
            if family != "robot":
                assert OPERATIONS[sign](int(left), int(right)) == int(result), problem.trace


@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_column_traces_end_in_the_result(a: int, b: int) -> None:
    assert tail_number(add(a, b)) == str(a + b)
    assert tail_number(subtract(a, b)) == str(a - b)


@given(st.integers(0, 99), st.integers(0, 9))
def test_multiplication_trace_ends_in_the_product(a: int, b: int) -> None:
    assert tail_number(multiply(a, b)) == str(a * b)


def test_the_sides_share_no_underlying_problem() -> None:
    # Given many problems of all three
    rng = random.Random(11)
    for family in FAMILIES:
        train = {repr(draw_problem(rng, family, Side.training).key) for _ in range(1500)}
        tune = {repr(draw_problem(rng, family, Side.development).key) for _ in range(200)}
        report = {repr(draw_problem(rng, family, Side.report).key) for _ in range(200)}
        # Then no key is in two of them
        assert len(train | tune | report) == len(train) + len(tune) + len(report)


def test_nothing_that_can_be_worded_as_a_training_problem_is_held_out() -> None:
    # Given the pairs of keys that one text can stand for: 6*5 and 5*6, 5 boxes of 6 and 6 of 5, 3x+0=33 and 3x-0=33
    digits = list(itertools.combinations(range(2, 10), 2))
    pairs = [("arithmetic", ("*", a, b), ("*", b, a)) for a, b in digits]
    pairs += [("words", ("groups", a, b), ("groups", b, a)) for a, b in digits]
    pairs += [("equations", (a, "+", 0, a * x), (a, "-", 0, a * x)) for a in range(2, 10) for x in range(1, 13)]
    # When the side of both is asked
    sides = [{side_of(Problem(family, key, "", "", "", "")) for key in (one, other)} for family, one, other in pairs]
    # Then it is the same, or one of them is asked nowhere
    assert max(len(both - {None}) for both in sides) == 1
    assert {Side.training, None} in sides


def test_the_split_looks_at_the_problem_and_not_at_its_wording() -> None:
    # Given all wordings of one sum that a long draw yields
    rng = random.Random(5)
    sides: dict[str, set[Side]] = {}
    texts: dict[str, set[str]] = {}
    for _ in range(40_000):
        problem = FAMILIES["arithmetic"].draw(rng)
        sides.setdefault(repr(problem.key), set()).add(side_of(problem))
        texts.setdefault(repr(problem.key), set()).add(problem.text)
    # Then wordings differ, the side does not
    assert max(len(wordings) for wordings in texts.values()) > 5
    assert all(len(side) == 1 for side in sides.values())


def test_plans_reveal_nothing() -> None:
    for family in FAMILIES.values():
        for plan in family.plans:
            assert not re.search(r"\d|true|false", plan)
            assert len(plan) < 60


def test_a_wrong_trace_is_refused() -> None:
    problem = draw_problem(random.Random(1), "arithmetic", Side.training)
    spoiled = type(problem)(**{**vars(problem), "answer": problem.answer + "1"})
    with pytest.raises(ValueError, match="recomputed"):
        verify(spoiled)
