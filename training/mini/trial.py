"""Single-sample accuracy at temperature 1 while GRPO runs: the same development problems and noise every time."""

# pyright: reportMissingImports=false
# (torch belongs to the extra `train`; where it is missing, only its names go unchecked)

from __future__ import annotations

import random

import torch

from .asks import Ask, answer_of, judge_ask, refusal_ask, solve_ask
from .examples import wrong_answer
from .families import FAMILIES, Side, draw_problem
from .families.problem import chance
from .model import MiniModel
from .outside import draw_outside
from .sample import sample

PROBLEMS = 75
"""Problems of each family."""
JUDGED = 16
"""Pairs of each family, one of the two candidates right."""
OUTSIDE = 32
SEED = 4711
LIMIT = 256


def trial_asks() -> list[Ask]:
    """What a trial asks: development problems to solve and to judge, and texts outside the families."""
    rng = random.Random(SEED)
    asks = [solve_ask(draw_problem(rng, family, Side.development)) for family in FAMILIES for _ in range(PROBLEMS)]
    for family in FAMILIES:
        for _ in range(JUDGED):
            problem = draw_problem(rng, family, Side.development)
            wrong = wrong_answer(rng, problem)
            pair = (problem.answer, wrong) if chance(rng, 0.5) else (wrong, problem.answer)
            asks.append(judge_ask(problem, *pair))
    return asks + [refusal_ask(draw_outside(rng)) for _ in range(OUTSIDE)]


def run_trial(model: MiniModel, asks: list[Ask]) -> dict[str, float]:
    """Share of right answers by role (``solve``, ``judge``, ``refuse``), and of the solver by family."""
    generator = torch.Generator()
    generator.manual_seed(SEED)
    texts = sample(model, [ask.prompt for ask in asks], limit=LIMIT, temperature=1.0, generator=generator)
    hits: dict[str, list[bool]] = {}
    for ask, text in zip(asks, texts, strict=True):
        for name in (ask.role, ask.family) if ask.role == "solve" else (ask.role,):
            hits.setdefault(name, []).append(answer_of(text) == ask.truth)
    return {name: round(sum(row) / len(row), 4) for name, row in hits.items()}
