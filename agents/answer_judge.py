"""A judge of free answers out of any backend: what :func:`..grading.score.score` asks where no rule can decide.

It is shown question, reference and final answer, fenced by a mark that nobody can guess, and never any reasoning.
"""

import re
from collections.abc import Callable
from typing import Any

from ..grading.rewards.judge import says_nothing
from ..schemas.backend_settings import BackendSettings
from ..schemas.completion import CompletionRequest
from ..schemas.errors import ConfigurationError
from ..schemas.trace import CallTrace
from .backends.base import Backend
from .context import AgentContext
from .conversation import PROBLEM_CHARS_MAX, cut_middle, without_role_tokens
from .json_text import find_objects
from .routing import Route
from .templates import DEFAULT_SET, load_templates
from .verifier import new_mark

TRIES = 2
"""Calls for one verdict: a reply that cannot be read is asked for once more, with another seed."""

ANSWER_VERDICT_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "final_answer": {"type": "string"},
        "reason": {"type": "string"},
        "verdict": {"type": "string", "enum": ["correct", "incorrect"]},
    },
    "required": ["final_answer", "reason", "verdict"],
    "additionalProperties": False,
}
"""The answer is repeated first: a judge that finds none to repeat has shown that there is none."""

_KEYS = ("verdict", "grade", "final_grade", "judgement", "judgment", "correct", "is_correct", "equivalent", "same")
_WORDS = {
    **dict.fromkeys(("correct", "right", "true", "yes", "equivalent", "same", "equal"), True),
    **dict.fromkeys(("incorrect", "wrong", "false", "no", "not correct", "different", "not equivalent", "not equal"), False),
}  # fmt: skip
_SAID = re.compile(
    r"""<answer>\s{0,20}(?P<tag>[^<]{1,40})</answer>
      | \[\[(?P<double>[A-Za-z ]{2,20})\]\]
      | \\boxed\{(?:\\text\{)?(?P<box>[A-Za-z ]{2,20})\}
      | \b(?:verdict|grade|judge?ment)\b[>"*]{0,4}\s{0,5}[:=][\s"*(]{0,8}(?P<label>(?:not\ )?[A-Za-z]{2,12})
        (?=["*).,;}]|[ \t]*$)""",
    re.IGNORECASE | re.MULTILINE | re.VERBOSE,
)


class AnswerJudge:
    """Judges free answers with one model. Belongs to the event loop on which its backend was first used.

    Handed to `score_sync` it belongs to the loop that all blocking scores share.
    """

    def __init__(
        self, backend: Backend, settings: BackendSettings, *, on_call: Callable[[CallTrace], None] | None = None
    ) -> None:
        """`on_call` is given the record of each call, failed ones included: tokens and seconds belong in a ledger.

        Raises ConfigurationError when the backend's model cannot judge.
        """
        name = backend.templates or DEFAULT_SET
        self._templates = load_templates(name)
        if not self._templates.has("answer_judge"):
            raise ConfigurationError(
                f"the model {backend.model} was trained for the template set {name!r}, which cannot judge free answers: "
                "name another model as the judge"
            )
        self._settings = settings
        self._route = Route.to(backend, settings)
        self._on_call = on_call

    async def __call__(self, question: str, truth: str, answer: str) -> bool | None:
        """Return whether `answer` says the same as `truth`; None after TRIES unreadable verdicts. Raises BackendError."""
        if says_nothing(answer):
            return False
        for attempt in range(1, TRIES + 1):
            verdict = read_answer_verdict(await self._ask(question, truth, answer, attempt))
            if verdict is not None:
                return verdict
        return None

    async def _ask(self, question: str, truth: str, answer: str, attempt: int) -> str:
        manifest = self._templates.manifest
        problem = cut_middle(without_role_tokens(question), PROBLEM_CHARS_MAX)
        reference, given = (
            cut_middle(without_role_tokens(text), manifest.answer_chars_max) for text in (truth, answer)
        )
        mark = new_mark(problem, reference, given)
        record = CallTrace()
        context = AgentContext("judge", "answer_judge", attempt, self._route, record)
        request = CompletionRequest(
            messages=self._templates.chat("answer_judge", problem=problem, truth=reference, answer=given, mark=mark),
            temperature=manifest.judge_temperature if attempt == 1 else 0.7,
            top_p=1.0,
            max_tokens=min(manifest.judge_max_tokens, self._settings.max_tokens),
            seed=attempt,
            json_schema=ANSWER_VERDICT_SCHEMA if manifest.judge_structured else None,
            request_id=context.request_id,
        )
        try:
            return (await context.complete(request)).text
        finally:
            if self._on_call is not None:
                self._on_call(record)


def read_answer_verdict(text: str) -> bool | None:
    """Read a judge's reply; None = it has no verdict, or contradicts itself. Never raises.

    A verdict of "correct" on an answer that the judge itself could not repeat is none.
    """
    objects = find_objects(text)
    verdicts = [_word(found[key]) for found in objects for key in _KEYS if key in found]
    if verdicts:
        repeated = [found["final_answer"] for found in objects if isinstance(found.get("final_answer"), str)]
        if repeated and says_nothing(repeated[-1]) and verdicts[0]:
            return None
        return _unanimous(verdicts)
    bare = _word(text)
    if bare is not None:
        return bare
    return _unanimous([_word(next(said for said in match.groups() if said)) for match in _SAID.finditer(text)])


def _unanimous(verdicts: list[bool | None]) -> bool | None:
    return verdicts[0] if verdicts and len(set(verdicts)) == 1 else None


def _word(value: object) -> bool | None:
    if isinstance(value, bool):
        return value
    if not isinstance(value, str) or len(value) > 40:
        return None
    return _WORDS.get(" ".join(value.strip(" \t\r\n\"'`*.()[]{}:<>!").casefold().split()))
