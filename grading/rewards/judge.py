"""The judge that a free answer goes to when no rule can decide, and what is kept from it.

A judge is a model, and a model can be talked round. So it is asked last, it is shown the final answer alone, and
answers without content never reach it: a colon, "Thought process:" and their like are called correct by many judges
(Zhao et al., arXiv 2507.08794).
"""

from __future__ import annotations

import re
from typing import Protocol

from ..normal import fold


class Judge(Protocol):
    """Tells whether `answer` says the same as `truth` in reply to `question`."""

    async def __call__(self, question: str, truth: str, answer: str) -> bool | None:
        """Return the verdict; None when there is no usable one. Errors of the model are raised."""
        ...


_OPENINGS = frozenset(
    fold(opening)
    for opening in (
        *("thought process", "thinking process", "thinking", "thoughts", "reasoning", "explanation", "analysis"),
        *("solution", "the solution", "answer", "the answer", "final answer", "the final answer", "final grade", "correct"),
        *("let's solve this problem step by step", "let's think step by step", "let us think step by step"),
        *("let's solve this step by step", "step by step", "step 1", "first", "okay", "ok", "sure", "certainly"),
        *("the answer is", "the final answer is", "the answer is correct", "the student answer is correct"),
        *("same as the reference", "same as the reference answer", "see above", "as above", "as shown above"),
        *("解", "答", "答案", "解答", "思考过程", "かいせつ", "解説", "respuesta", "solución", "lösung", "antwort", "réponse", "solution :"),
    )
)  # fmt: skip
_EDGES = re.compile(r"^[\W_]+|[\W_]+$")


def says_nothing(answer: str) -> bool:
    """Whether `answer` is a master key: signs alone, or the opening of an answer that does not follow."""
    bare = fold(_EDGES.sub("", answer.replace("\\boxed", "").replace("\\text", "")))
    return not bare or bare in _OPENINGS
