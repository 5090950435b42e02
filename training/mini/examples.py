"""Training examples: one model, three roles told apart by a tag, and honest refusals."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

from .families import FAMILIES, Problem, Side, draw_problem
from .families.problem import NAMES, chance, pick
from .outside import draw_outside
from .tokens import (
    ANSWER,
    CANDIDATE_A,
    CANDIDATE_B,
    END_ANSWER,
    END_PLAN,
    END_THINK,
    EOS,
    JUDGE,
    PLAN,
    SOLVE,
    THINK,
    UNKNOWN,
    encode_completion,
    encode_prompt,
)

ROLE_SHARES = {"solve": 0.70, "judge": 0.12, "plan": 0.05, "refuse": 0.13}
"""Share of the examples (not of the tokens) by role."""
SECOND_ROLES = {"solve": 0.58, "judge": 0.29, "plan": 0.03, "refuse": 0.10}
"""The same for the second phase of SFT: a judge's example teaches the solver's trace, too."""
FAMILY_WEIGHTS = {
    "arithmetic": 2.0,
    "equations": 1.0,
    "words": 1.0,
    "divisors": 0.9,
    "ordering": 1.4,
    "logic": 1.3,
    "table": 1.4,
    "robot": 1.0,
}
"""How often each family is drawn."""
SECOND_WEIGHTS = {**dict.fromkeys(FAMILY_WEIGHTS, 0.8), "arithmetic": 1.2, "ordering": 1.5, "logic": 1.5, "table": 2.4}
"""The same for the second phase of SFT: finding a thing by its name is learnt last."""
PLANNED_SHARE = 0.5
"""Share of the solve examples with a plan in front."""
STRESS = 6.0
"""Weight in the loss of the tokens of a verdict; the others weigh 1."""
VERDICT_TOKENS = 7
"""From the mark of the right candidate to the end: ``=b</think><answer>B</answer><eos>``; a tie's mark stands before them."""
TIE_SHARE = 0.1
"""Share of the judge's examples in which neither candidate is right."""
WRONG_PLAN_SHARE = 0.06
"""Share of those plans that belong to another problem, so that the model keeps reading the problem."""
BASE_OUTSIDE_SHARE = 0.2
"""Share of the base stage's texts that belong to no family."""
PLAN_LINES = tuple(line for family in FAMILIES.values() for line in family.plans)
"""Every plan that the planner may write."""
REFUSAL = f"{THINK}outside my kinds{END_THINK}{ANSWER}{END_ANSWER}"
"""What the model writes when a problem belongs to no family."""


@dataclass(frozen=True)
class Example:
    """One training sequence."""

    prompt: list[int]
    """Token ids given to the model."""
    completion: list[int]
    """Token ids that the model is to write, the end mark included."""
    stressed: int = 0
    """How many of the last tokens weigh ``STRESS`` in the loss: a judge's example is one decision after a long trace."""


def solve_prompt(text: str, plan: str | None = None) -> str:
    """The solver's prompt, with the plan in front when there is one."""
    return f"{SOLVE}{PLAN}{plan}{END_PLAN}{text}" if plan else f"{SOLVE}{text}"


def plan_prompt(text: str) -> str:
    """The planner's prompt."""
    return f"{PLAN}{text}"


def judge_prompt(text: str, first: str, second: str) -> str:
    """The judge's prompt: the problem and two candidate answers."""
    return f"{JUDGE}{text}{CANDIDATE_A}{first}{CANDIDATE_B}{second}"


def solve_completion(problem: Problem) -> str:
    """Reasoning and answer of a problem."""
    return f"{THINK}{problem.trace}{END_THINK}{ANSWER}{problem.answer}{END_ANSWER}"


def judge_verdict(problem: Problem, first: str, second: str) -> str:
    """The right verdict: the letter of the right candidate, ``tie`` when neither is right."""
    return "A" if first == problem.answer else "B" if second == problem.answer else "tie"


def judge_completion(problem: Problem, first: str, second: str) -> str:
    """The judge lists the candidates as a table, solves the problem itself, then looks its own answer up in the table."""
    verdict = judge_verdict(problem, first, second)
    found = {"A": "a", "B": "b", "tie": "n"}[verdict]
    thought = f"{first}=a,{second}=b;{problem.trace};{problem.answer}={found}"
    return f"{THINK}{thought}{END_THINK}{ANSWER}{verdict}{END_ANSWER}"


def wrong_answer(rng: random.Random, problem: Problem) -> str:
    """A plausible wrong answer to ``problem``."""
    right = problem.answer
    while True:
        wrong = _distort(rng, problem)
        if wrong != right:
            return wrong


def _distort(rng: random.Random, problem: Problem) -> str:
    right = problem.answer
    if right in ("true", "false"):
        return "false" if right == "true" else "true"
    if "," in right and not right.startswith("("):
        parts = right.split(",")
        rng.shuffle(parts)
        return ",".join(parts)
    if right.startswith("("):
        x, y = (int(part) for part in right[1:-1].split(","))
        return pick(
            rng,
            (
                f"({x},{-y})",
                f"({-x},{y})",
                f"({y},{x})",
                f"({x + rng.randint(-2, 2)},{y})",
                f"({x},{y + rng.randint(-9, 9)})",
            ),
        )
    if right.lstrip("-").isdigit():
        value = int(right)
        if chance(rng, 0.3) and len(right) > 1 and right.isdigit():
            digits = list(right)
            digits[rng.randrange(len(digits))] = str(rng.randint(1, 9))
            return "".join(digits)
        return str(
            pick(
                rng,
                (value + 1, value - 1, value + 10, value - 10, -value, value + rng.randint(-20, 20), abs(value) * 10),
            )
        )
    # A name: another person of the story, or another row of the table (the trace lists every row as name=value).
    people = [name for name in NAMES if name in problem.trace]
    return pick(rng, re.findall(r"([a-z]+)=[0-9]", problem.trace) or people)


def draw_base_example(rng: random.Random) -> Example:
    """One text of the base stage: a problem with its bare answer, or a text outside with none; loss on all of it."""
    if chance(rng, BASE_OUTSIDE_SHARE):
        text, answer = draw_outside(rng), ""
    else:
        problem = draw_problem(rng, pick(rng, list(FAMILIES)), Side.training)
        text, answer = problem.text, problem.answer
    tokens = encode_prompt(solve_prompt(text)) + encode_completion(f"{ANSWER}{answer}{END_ANSWER}{EOS}")
    return Example(tokens[:1], tokens[1:])


def _roughen(rng: random.Random, text: str) -> str:
    """Stray unknown characters now and then; the tokenizer has already ironed out case, spaces and closing signs."""
    return text + " " + UNKNOWN if chance(rng, 0.01) else text


def draw_example(
    rng: random.Random,
    *,
    side: Side = Side.training,
    role: str | None = None,
    family: str | None = None,
    weights: dict[str, float] = FAMILY_WEIGHTS,
    roles: dict[str, float] = ROLE_SHARES,
) -> Example:
    """One example; ``role`` and ``family`` are drawn by their shares unless given."""
    role = role or rng.choices(list(roles), list(roles.values()))[0]
    if role == "refuse":
        text = draw_outside(rng)
        if chance(rng, 0.08):
            return Example(encode_prompt(plan_prompt(text)), encode_completion(f"{ANSWER}{END_ANSWER}{EOS}"))
        plan = pick(rng, PLAN_LINES) if chance(rng, 0.05) else None
        return Example(encode_prompt(solve_prompt(text, plan)), encode_completion(REFUSAL + EOS))
    family = family or rng.choices(list(weights), list(weights.values()))[0]
    problem = draw_problem(rng, family, side)
    text = _roughen(rng, problem.text)
    if role == "plan":
        return Example(encode_prompt(plan_prompt(text)), encode_completion(f"{ANSWER}{problem.plan}{END_ANSWER}{EOS}"))
    if role == "judge":
        wrong, first = wrong_answer(rng, problem), chance(rng, 0.5)
        other = wrong_answer(rng, problem) if chance(rng, TIE_SHARE) else problem.answer
        pair = (other, wrong) if first else (wrong, other)
        completion = judge_completion(problem, *pair)
        return Example(encode_prompt(judge_prompt(text, *pair)), encode_completion(completion + EOS), VERDICT_TOKENS)
    plan = problem.plan if chance(rng, PLANNED_SHARE) else None
    if plan and chance(rng, WRONG_PLAN_SHARE):
        plan = pick(rng, PLAN_LINES)
    return Example(encode_prompt(solve_prompt(text, plan)), encode_completion(solve_completion(problem) + EOS))
