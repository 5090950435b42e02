"""Problems whose truth only the simulated engine knows, and the engine's replies to them.

A candidate is right with probability p; a judge who sees one right and one wrong answer prefers the right one with
probability q. Every draw depends on seed, problem, role and number of the call alone, so that all who run are asked the
same and told the same.
"""

import json
import math
import random
import re
from collections import Counter
from dataclasses import dataclass

from k2think.agents.backends.simulator import ChatRequest, ReasoningField, Reply, detect_role
from k2think.agents.backends.simulator.replies import tokenise

_NUMBER = re.compile(r"\[problem (\d+)\]")
_ANSWERS = re.compile(r"answer A ===\n(.*?)\n=== .*?answer B ===\n(.*?)\n=== ", re.DOTALL)
_RESULT = re.compile(r"result is (\d+)")
_PLAN = json.dumps({"plan": "List what is given, then add it up.", "topics": ["arithmetic"], "difficulty": "easy"})
_WRONG = tuple(offset for offset in range(-6, 7) if offset)
LONG_TAIL_FACTOR = 10


@dataclass(frozen=True)
class Exam:
    """What the engine is like."""

    right: float
    """p: probability that a candidate is right."""
    judged: float
    """q: probability that a judge prefers the right one of a right and a wrong answer."""
    tokens: float
    """Mean length of every output."""
    spread: float
    """Standard deviation of the logarithm of the lengths; 0 = all are equally long."""
    tail: float
    """Share of candidates that are ten times as long."""


def problem_text(number: int) -> str:
    """The problem as it is sent."""
    return f"[problem {number}] Several quantities are given above. What do they add up to?"


def truth_of(seed: int, number: int) -> int:
    """The right answer."""
    return random.Random(f"truth/{seed}/{number}").randrange(100, 1000)


def answer_in(text: str) -> int | None:
    """The answer that a candidate's text states; None = none."""
    found = _RESULT.search(text)
    return int(found[1]) if found else None


class Examiner:
    """The engine's replies."""

    def __init__(self, exam: Exam) -> None:
        self._exam = exam
        self._mean = math.log(exam.tokens) - exam.spread**2 / 2
        self._seed = 0
        self._asked: Counter[tuple[str, int]] = Counter()

    def begin(self, seed: int) -> None:
        """Begin a round with fresh problems."""
        self._seed = seed
        self._asked.clear()

    def __call__(self, request: ChatRequest) -> Reply:
        role = detect_role(request)
        found = _NUMBER.search(request.text)
        number = int(found[1]) if found else 0
        self._asked[role, number] += 1
        chance = random.Random(f"{self._seed}/{number}/{role}/{self._asked[role, number]}")
        length = chance.lognormvariate(self._mean, self._exam.spread)
        truth = truth_of(self._seed, number)
        if role == "planner":
            text = _PLAN
        elif role == "judge":
            text = json.dumps({"reason": "I checked the sum.", "preference": self._preferred(request, truth, chance)})
        else:
            answer = truth if chance.random() < self._exam.right else truth + chance.choice(_WRONG)
            text = f"The result is {answer}.\n<answer>{answer}</answer>"
            length *= LONG_TAIL_FACTOR if chance.random() < self._exam.tail else 1
        thought = " so" * max(1, round(length) - len(tokenise(text)))
        return Reply(text=text, reasoning=thought, reasoning_field=ReasoningField.reasoning)

    def _preferred(self, request: ChatRequest, truth: int, chance: random.Random) -> str:
        found = _ANSWERS.search(request.text)
        right = [answer_in(text) == truth for text in found.groups()] if found else [False, False]
        if right[0] == right[1]:
            return chance.choice("AB")
        return "AB"[right.index(True) if chance.random() < self._exam.judged else right.index(False)]
