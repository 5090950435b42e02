"""What GRPO asks and what it pays: the reward counts for the right text at the end, and for nothing else."""

from __future__ import annotations

import random

import pytest
from k2think.training.mini.asks import ROLE_SHARES, draw_ask, judge_ask, reward, solve_ask, wrong_pairs
from k2think.training.mini.examples import judge_completion, solve_completion
from k2think.training.mini.families import FAMILIES, Problem, Side, draw_problem, side_of
from k2think.training.mini.tokens import EOS, encode_completion


def problem_of(family: str) -> Problem:
    return draw_problem(random.Random(6), family, Side.training)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_solver_is_paid_for_the_right_answer_at_the_end(family: str) -> None:
    problem = problem_of(family)
    ask = solve_ask(problem)
    right = encode_completion(solve_completion(problem) + EOS)
    assert reward(ask, right) == 1.0
    assert reward(ask, right[:-1]) == 0.0, "unfinished"
    assert reward(ask, []) == 0.0
    for text in (
        f"<answer>{problem.answer}1</answer>",
        "<answer></answer>",
        problem.answer,
        f"<answer>{problem.answer}",
    ):
        assert reward(ask, encode_completion(text + EOS)) == 0.0, text


def test_a_judge_is_paid_for_its_verdict() -> None:
    problem = problem_of("arithmetic")
    wrong = problem.answer + "1"
    for pair in ((problem.answer, wrong), (wrong, problem.answer), (wrong, wrong + "1")):
        ask = judge_ask(problem, *pair)
        assert reward(ask, encode_completion(judge_completion(problem, *pair) + EOS)) == 1.0
        other = "B" if ask.truth == "A" else "A"
        assert reward(ask, encode_completion(f"<answer>{other}</answer>{EOS}")) == 0.0


def test_wrong_answers_of_the_model_are_put_before_the_judge() -> None:
    problem = problem_of("words")
    texts = [encode_completion(f"<answer>{answer}</answer>{EOS}") for answer in (problem.answer, "7x", "", "7x")]
    assert wrong_pairs(solve_ask(problem), texts) == [(problem, "7x")]


def test_asks_are_training_problems_in_all_roles() -> None:
    rng = random.Random(8)
    asks = [draw_ask(rng, []) for _ in range(400)]
    assert {ask.role for ask in asks} == set(ROLE_SHARES)
    assert all(side_of(ask.problem) is Side.training for ask in asks if ask.problem)
    assert all(ask.truth == "" for ask in asks if ask.problem is None)
