"""The reward of GRPO: grading's scores, and errors that are counted instead of zeros."""

from __future__ import annotations

import pytest
from k2think.schemas.errors import GradingError
from k2think.schemas.scores import Domain, Task
from k2think.training.rewards import Rewards

RIGHT, WRONG = "<think>3+4=7</think><answer>7</answer>", "<think></think><answer>8</answer>"


def task(name: str, truth: str | None = "7") -> Task:
    return Task(id=name, domain=Domain.procedural, source="mini:arithmetic", prompt="3+4", truth=truth)


def test_each_answer_is_graded_by_its_own_task() -> None:
    rewards = Rewards([task("a"), task("b", "8")], held_out_from=1, at_once=2)
    conversational = [[{"role": "assistant", "content": RIGHT}], [{"role": "assistant", "content": WRONG}]]
    assert rewards(completions=conversational, index=[0, 0]) == [1.0, 0.0]
    assert rewards(completions=[RIGHT, WRONG], index=[1, 1]) == [0.0, 1.0]
    # Training and held-out problems are told apart, and counted once.
    assert rewards.figures(False)["answers"] == 2
    assert rewards.figures(False) == {}
    assert rewards.figures(True)["correct_share"] == 0.5


def test_an_answer_that_the_prompt_began_is_read_from_there() -> None:
    # Given an output that was cut off while it thought, after a prompt that ends with <think>
    cut = "3+4 is <answer>7</answer>, or is it"
    assert Rewards([task("a")], held_out_from=1, at_once=1)(completions=[cut], index=[0]) == [1.0]
    assert Rewards([task("a")], held_out_from=1, at_once=1, opening="<think>")(completions=[cut], index=[0]) == [0.0]


def test_a_check_that_fails_is_no_zero() -> None:
    rewards = Rewards([task("a"), task("b", None)], held_out_from=2, at_once=1)
    assert rewards(completions=[RIGHT, RIGHT, WRONG], index=[0, 1, 0]) == [1.0, None, 0.0]
    figures = rewards.figures(False)
    assert (figures["answers"], figures["grading_errors"], figures["errors_by_code"]) == (3, 1, {"grading_error": 1})
    assert figures["correct_share"] == 0.5
    assert figures["reasons"] == {"equal": 1, "different": 1}
    assert figures["reward_by_domain"] == {"procedural": 0.5}


def test_what_takes_a_judge_is_no_zero_either() -> None:
    free = Task(
        id="s", domain=Domain.science, source="stem_web", prompt="Why is the sky blue?", truth="Rayleigh scattering"
    )
    rewards = Rewards([free], held_out_from=1, at_once=1)
    said = ["<answer>scattering of short waves by air</answer>", "<answer>Rayleigh scattering</answer>"]
    assert rewards(completions=said, index=[0, 0]) == [None, 1.0]
    figures = rewards.figures(False)
    assert (figures["answers"], figures["unjudged"], figures["grading_errors"], figures["correct_share"]) == (
        2,
        1,
        0,
        1.0,
    )


def test_where_nothing_can_be_checked_training_ends() -> None:
    rewards = Rewards([task("a", None)], held_out_from=1, at_once=4)
    with pytest.raises(GradingError, match=r"not one of 2 answers could be checked.*--resume"):
        rewards(completions=[RIGHT, WRONG], index=[0, 0])
