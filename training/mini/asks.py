"""What GRPO asks: fresh training problems in the three roles, and texts outside the families, each with its reward."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

from ...grading.score import score_sync
from ...schemas.scores import Domain
from .examples import judge_prompt, judge_verdict, plan_prompt, solve_prompt, wrong_answer
from .families import Problem, Side, draw_problem
from .families.problem import chance, pick
from .outside import draw_outside
from .tokens import EOS_ID, decode, encode_prompt

ROLE_SHARES = {"solve": 0.80, "judge": 0.12, "plan": 0.02, "refuse": 0.06}
"""Share of the asks by role."""
ASK_WEIGHTS = {
    "arithmetic": 3.0,
    "equations": 0.3,
    "words": 0.5,
    "divisors": 0.3,
    "ordering": 2.5,
    "logic": 1.0,
    "table": 1.2,
    "robot": 1.6,
}
"""How often each family is asked: what SFT left weakest most, since groups that are all right teach nothing."""
PLANNED_SHARE = 0.3
"""Share of the solver's asks with the right plan in front."""
TIE_SHARE = 0.1
"""Share of the judge's asks in which neither candidate is right."""
OWN_WRONG_SHARE = 0.8
"""Share of the judge's asks about a wrong answer that the model itself has given, as far as there are some."""
_ANSWER = re.compile(r"<answer>([^<]*)</answer>\Z")


@dataclass(frozen=True)
class Ask:
    """One prompt with the one answer that is worth 1."""

    role: str
    """``solve``, ``judge``, ``plan`` or ``refuse``."""
    family: str
    """Family of the problem; ``""`` = outside."""
    prompt: list[int]
    """Token ids given to the model."""
    truth: str
    """The right content of the answer element: an answer, a letter, a plan, or nothing."""
    problem: Problem | None = None
    """The problem behind the prompt; None = outside the families."""


def reward(ask: Ask, completion: list[int]) -> float:
    """What the completion is worth, 0..1; nothing unless it ends properly. Raises ``GradingError`` when the check fails.

    A solver's answer is scored as evaluation scores it; a verdict, a plan or a refusal must be the one right text.
    """
    answer = answer_of(completion)
    if answer is None or completion[-1] != EOS_ID:
        return 0.0
    if ask.role == "solve":
        return score_sync(Domain.procedural, decode(completion), ask.truth, {"source": f"mini:{ask.family}"}).value
    return float(answer == ask.truth)


def answer_of(completion: list[int]) -> str | None:
    """Content of the answer element at the end; None when there is none."""
    found = _ANSWER.search(decode(completion))
    return found[1] if found else None


def wrong_pairs(ask: Ask, completions: list[list[int]]) -> list[tuple[Problem, str]]:
    """The problem of a solver's ask with each different wrong answer among its samples."""
    if ask.problem is None or ask.role != "solve":
        return []
    answers = {answer_of(completion) for completion in completions} - {None, "", ask.truth}
    return [(ask.problem, str(answer)) for answer in sorted(map(str, answers))]


def draw_ask(rng: random.Random, own_wrong: list[tuple[Problem, str]]) -> Ask:
    """One ask; ``own_wrong`` holds wrong answers that the model gave lately, for the judge to be asked about."""
    role = rng.choices(list(ROLE_SHARES), list(ROLE_SHARES.values()))[0]
    if role == "refuse":
        return refusal_ask(draw_outside(rng))
    family = rng.choices(list(ASK_WEIGHTS), list(ASK_WEIGHTS.values()))[0]
    problem = draw_problem(rng, family, Side.training)
    if role == "plan":
        return Ask("plan", family, encode_prompt(plan_prompt(problem.text)), problem.plan, problem)
    if role == "judge":
        return _judged(rng, problem, own_wrong)
    return solve_ask(problem, problem.plan if chance(rng, PLANNED_SHARE) else None)


def _judged(rng: random.Random, problem: Problem, own_wrong: list[tuple[Problem, str]]) -> Ask:
    if own_wrong and chance(rng, OWN_WRONG_SHARE):
        problem, wrong = pick(rng, own_wrong)
    else:
        wrong = wrong_answer(rng, problem)
    other = problem.answer
    if chance(rng, TIE_SHARE):
        other = wrong_answer(rng, problem)
    return judge_ask(problem, *((other, wrong) if chance(rng, 0.5) else (wrong, other)))


def judge_ask(problem: Problem, first: str, second: str) -> Ask:
    """The judge's ask about two candidates."""
    prompt, truth = judge_prompt(problem.text, first, second), judge_verdict(problem, first, second)
    return Ask("judge", problem.family, encode_prompt(prompt), truth, problem)


def refusal_ask(text: str) -> Ask:
    """The solver's ask for a text outside the families."""
    return Ask("refuse", "", encode_prompt(solve_prompt(text)), "")


def solve_ask(problem: Problem, plan: str | None = None) -> Ask:
    """The solver's ask, with the plan in front when there is one."""
    return Ask("solve", problem.family, encode_prompt(solve_prompt(problem.text, plan)), problem.answer, problem)
