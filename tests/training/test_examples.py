"""Training examples: lengths, roles, and no trace of the hand-written evaluation prompts."""

from __future__ import annotations

import random

from k2think.training.mini.examples import ROLE_SHARES, draw_example, wrong_answer
from k2think.training.mini.families import FAMILIES, Side, draw_problem
from k2think.training.mini.outside import draw_outside
from k2think.training.mini.refusals import OUTSIDE_PROMPTS
from k2think.training.mini.tokens import EOS_ID, decode, normalise


def test_every_example_fits_and_ends() -> None:
    rng = random.Random(2)
    for role in ROLE_SHARES:
        for _ in range(500):
            example = draw_example(rng, role=role)
            assert len(example.prompt) + len(example.completion) <= 512
            assert example.completion[-1] == EOS_ID
            assert decode(example.completion).endswith("</answer>")


def test_the_judge_is_taught_to_name_the_right_candidate() -> None:
    rng = random.Random(2)
    letters: list[str] = []
    for _ in range(300):
        example = draw_example(rng, role="judge")
        first, second = decode(example.prompt).split("<a>")[1].split("<b>")
        thought, letter = decode(example.completion).removesuffix("</answer>").split("</think><answer>")
        right = normalise(thought.rsplit("so ", 1)[1])
        assert first != second
        assert (first if letter == "A" else second) == right
        letters.append(letter)
    assert 0.4 < letters.count("A") / len(letters) < 0.6


def test_wrong_answers_are_wrong() -> None:
    rng = random.Random(4)
    for family in FAMILIES:
        for _ in range(200):
            problem = draw_problem(rng, family, Side.training)
            assert wrong_answer(rng, problem) != problem.answer


def test_refusal_prompts_are_no_training_texts() -> None:
    # Given the hand-written prompts and a long draw of training texts
    rng = random.Random(9)
    drawn = {normalise(draw_outside(rng)) for _ in range(20_000)}
    # Then they do not meet (foreign scripts aside, which all become "~"), and there are enough of them
    assert not {normalise(prompt) for prompt in OUTSIDE_PROMPTS if prompt.isascii()} & drawn
    assert len(set(OUTSIDE_PROMPTS)) >= 60
