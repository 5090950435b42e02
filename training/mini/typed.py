"""The problems of k2think-mini as typed sets, so that the general path (`k2think train sft|grpo`) can be run on them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

from ...schemas.scores import Domain, Task
from ..records import SftExample, Turn, write_records
from ..writing import writing
from .examples import FAMILY_WEIGHTS, REFUSAL, ROLE_SHARES, solve_completion
from .families import Problem, Side, draw_problem
from .outside import draw_outside

OUTSIDE_SHARE = ROLE_SHARES["refuse"] / (ROLE_SHARES["solve"] + ROLE_SHARES["refuse"])
"""Share of the conversations that belong to no family: judge and planner have no place in plain conversations."""


def draw_problems(seed: int, side: Side) -> Iterator[Problem]:
    """Yield problems without end, families by their weights."""
    rng = random.Random(f"typed/{seed}/{side}")
    while True:
        (family,) = rng.choices(list(FAMILY_WEIGHTS), list(FAMILY_WEIGHTS.values()))
        yield draw_problem(rng, family, side)


def draw_examples(seed: int, side: Side, count: int) -> Iterator[SftExample]:
    """Yield conversations: problems with trace and answer, and texts that are turned away."""
    problems = draw_problems(seed, side)
    rng = random.Random(f"typed/{seed}/{side}/outside")
    for number in range(count):
        name = f"mini-{side}-{seed}-{number}"
        if rng.random() < OUTSIDE_SHARE:
            yield SftExample(id=name, messages=_turns(draw_outside(rng), REFUSAL), source="mini:outside")
            continue
        problem = next(problems)
        yield SftExample(
            id=name,
            messages=_turns(problem.text, solve_completion(problem)),
            source=f"mini:{problem.family}",
            domain=Domain.procedural,
        )


def draw_tasks(seed: int, side: Side, count: int) -> Iterator[Task]:
    """Yield problems with their truth."""
    problems = draw_problems(seed, side)
    for number in range(count):
        problem = next(problems)
        yield Task(
            id=f"mini-{side}-{seed}-{number}",
            domain=Domain.procedural,
            source=f"mini:{problem.family}",
            prompt=problem.text,
            truth=problem.answer,
        )


def write_sets(out: Path, *, examples: int, tasks: int, held_out: int, seed: int) -> dict[Path, int]:
    """Write `examples.jsonl` and `tasks.jsonl`, and the same held out; return how many each holds."""
    with writing(out):
        sets = {
            "examples.jsonl": draw_examples(seed, Side.training, examples),
            "examples-held-out.jsonl": draw_examples(seed, Side.development, held_out),
            # Other problems than those that were imitated.
            "tasks.jsonl": draw_tasks(seed + 1, Side.training, tasks),
            "tasks-held-out.jsonl": draw_tasks(seed + 1, Side.development, held_out),
        }
        return {out / name: write_records(out / name, records) for name, records in sets.items()}


def _turns(asked: str, replied: str) -> tuple[Turn, Turn]:
    return Turn(role="user", content=asked), Turn(role="assistant", content=replied)
