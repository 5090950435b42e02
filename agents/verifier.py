"""The verifier: which of two answers is better. It sees answers only, fenced by a mark that nobody can guess."""

import re
import secrets
from typing import Any

from ..schemas.completion import ChatMessage, CompletionRequest
from ..schemas.messages import ComparePair
from ..schemas.outcomes import Compared, Preference
from .context import AgentContext
from .conversation import PROBLEM_CHARS_MAX, cut_middle, split_problem, transcript, without_role_tokens
from .json_text import find_objects, find_string, looks_like_json
from .templates import TemplateSet, choose_set, load_templates

REASON_CHARS_MAX = 500
MARK_BYTES = 8

PREFERENCE_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "reason": {"type": "string"},
        "preference": {"type": "string", "enum": ["A", "B", "tie"]},
    },
    "required": ["reason", "preference"],
    "additionalProperties": False,
}
"""Our own form of the verdict. The reason comes first: a model that answers at once argues before it decides."""

BETTER_INDEX_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "better_index": {"type": "integer", "enum": [0, 1]},
        "explanation": {"type": "string"},
    },
    "required": ["better_index", "explanation"],
    "additionalProperties": False,
}
"""The published form of the verdict."""

_SCHEMAS = {"preference": PREFERENCE_SCHEMA, "better_index": BETTER_INDEX_SCHEMA}
_PREFERENCE_KEYS = ("preference", "preferred", "verdict", "winner", "better", "choice")
_INDEX_KEYS = ("better_index", "index")
_REASON_KEYS = ("reason", "explanation", "rationale")
_WORDS = {
    "a": Preference.first,
    "b": Preference.second,
    "first": Preference.first,
    "second": Preference.second,
    "tie": Preference.tie,
    "draw": Preference.tie,
    "equal": Preference.tie,
    "both": Preference.tie,
    "neither": Preference.tie,
}
_SAID = re.compile(
    r"""<answer>\s{0,20}(?P<tag>[^<]{1,20})</answer>
      | \[\[(?P<double>[A-Za-z]{1,6})\]\]
      | \\boxed\{(?:\\text\{)?(?P<box>[A-Za-z]{1,6})\}
      | \b(?:preference|verdict|winner)\b["*]{0,3}\s{0,5}[:=][\s"*(]{0,8}(?P<label>(?:(?:answer|response)\ )?[A-Za-z]{1,6})
        (?=["*).,;}]|[ \t]*$)
      | \bbetter_index\b["*]{0,3}\s{0,5}[:=][\s"*]{0,8}(?P<index>[01])\b""",
    re.IGNORECASE | re.MULTILINE | re.VERBOSE,
)


async def compare(body: ComparePair, context: AgentContext) -> Compared:
    """Ask which answer is better. A verdict that cannot be read is a tie with `usable=False`. Raises BackendError."""
    backend, settings = context.bound()
    templates = load_templates(choose_set(backend.templates, body.templates))
    manifest = templates.manifest
    structured = _SCHEMAS[manifest.verdict] if manifest.judge_structured else None
    completion = await context.complete(
        CompletionRequest(
            messages=_messages(body, templates),
            temperature=manifest.judge_temperature,
            top_p=1.0,
            max_tokens=min(manifest.judge_max_tokens, settings.max_tokens),
            seed=body.seed,
            json_schema=structured,
            request_id=context.request_id,
        )
    )
    preference, reason = read_verdict(completion.text)
    return Compared(
        first=body.first,
        second=body.second,
        preference=preference or Preference.tie,
        usable=preference is not None,
        reason=reason,
    )


def _messages(body: ComparePair, templates: TemplateSet) -> tuple[ChatMessage, ...]:
    """Return the judge's prompt: problem and answers without control tokens, bounded, fenced by a fresh mark."""
    manifest = templates.manifest
    system, history, problem = split_problem(body.messages)
    question = templates.prepared(cut_middle(without_role_tokens(problem), PROBLEM_CHARS_MAX))
    earlier = transcript(system, history) if manifest.history and templates.has("conversation") else ""
    if earlier:
        question = templates.render("conversation", history=earlier, problem=question)
    first, second = (
        cut_middle(templates.prepared(without_role_tokens(answer)).strip(), manifest.answer_chars_max)
        for answer in (body.first_answer, body.second_answer)
    )
    mark = new_mark(question, first, second)
    return templates.chat("verifier", problem=question, first=first, second=second, mark=mark)


def new_mark(*texts: str) -> str:
    """Return a random mark that occurs in none of the texts."""
    while True:
        mark = secrets.token_hex(MARK_BYTES)
        if not any(mark in text for text in texts):
            return mark


def read_verdict(text: str) -> tuple[Preference | None, str]:
    """Read a judge's reply: verdict (None = it has none, or contradicts itself) and reason. Never raises."""
    objects = find_objects(text)
    verdicts = [verdict for found in objects for verdict in _in_object(found)]
    if verdicts:
        reason = next(
            (value for found in objects for key in _REASON_KEYS if isinstance(value := found.get(key), str)), ""
        )
        return _unanimous(verdicts), _short(reason)
    bare = _word(text)
    if bare is not None:
        return bare, ""
    reason = text
    if looks_like_json(text):
        reason = next((found for key in _REASON_KEYS if (found := find_string(text, key)) is not None), "")
    return _unanimous([_said(match) for match in _SAID.finditer(text)]), _short(reason)


def _in_object(found: dict[str, Any]) -> list[Preference | None]:
    """Return every verdict that an object states, None for one that is not understood."""
    verdicts = [_word(str(found[key])) for key in _PREFERENCE_KEYS if key in found]
    return verdicts + [_index(found[key]) for key in _INDEX_KEYS if key in found]


def _said(match: re.Match[str]) -> Preference | None:
    index = match.group("index")
    if index is not None:
        return _index(index)
    word = next(value for value in match.groups() if value is not None)
    return None if word == "a" else _word(word)  # "Verdict: a" is as good as the beginning of a sentence


def _unanimous(verdicts: list[Preference | None]) -> Preference | None:
    return verdicts[0] if verdicts and len(set(verdicts)) == 1 else None


def _word(value: str) -> Preference | None:
    """Read `A`, `**B**`, `Answer A.`, `tie`; None for anything else."""
    if len(value) > 40:
        return None
    word = value.strip(" \t\r\n\"'`*.()[]{}:").casefold()
    for prefix in ("answer ", "response ", "candidate ", "option "):
        word = word.removeprefix(prefix)
    return _WORDS.get(word)


def _index(value: object) -> Preference | None:
    if isinstance(value, bool):
        return None
    return {"0": Preference.first, "1": Preference.second}.get(str(value).strip()[:8])


def _short(reason: str) -> str:
    return " ".join(reason.split())[:REASON_CHARS_MAX]
