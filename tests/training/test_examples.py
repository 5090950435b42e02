"""Training examples: lengths, roles, and no trace of the hand-written evaluation prompts."""

from __future__ import annotations

import random

from k2think.training.mini.examples import ROLE_SHARES, draw_base_example, draw_example, wrong_answer
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
        # The candidates as a table in front, the judge's own answer with what it finds there at the end
        assert thought.startswith(f"<think>{first}=a,{second}=b;")
        own, found = thought.rsplit(";", 1)[1].rsplit("=", 1)
        assert {"a": "A", "b": "B", "n": "tie"}[found] == letter
        assert {first: "A", second: "B"}.get(normalise(own), "tie") == letter
        if letter != "tie":
            assert decode(example.completion[-example.stressed :]) == f"={found}</think><answer>{letter}</answer>"
        letters.append(letter)
    assert 0.35 < letters.count("A") / len(letters) < 0.55
    assert 0.35 < letters.count("B") / len(letters) < 0.55
    assert letters.count("tie") > 0


def test_the_base_stage_sees_whole_texts_and_no_reasoning() -> None:
    rng = random.Random(3)
    texts = [draw_base_example(rng) for _ in range(200)]
    assert all(len(example.prompt) == 1 for example in texts)
    written = [decode(example.completion) for example in texts]
    assert not any("<think>" in text for text in written)
    empty = sum(text.endswith("<answer></answer>") for text in written)
    assert 0.1 < empty / len(written) < 0.3


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
