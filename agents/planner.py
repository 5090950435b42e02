"""The planner: key concepts and a short plan that does not give the answer away, with topics and difficulty."""

import re
from typing import Any, cast

from ..schemas.completion import CompletionRequest
from ..schemas.messages import MakePlan
from ..schemas.outcomes import Planned
from .context import AgentContext
from .conversation import PROBLEM_CHARS_MAX, cut_middle, split_problem, transcript, without_role_tokens
from .json_text import find_objects, find_string, looks_like_json
from .templates import PlannerMode, TemplateSet, choose_set, load_templates

PLAN_CHARS_MAX = 4_000
TOPICS_MAX = 8
TOPIC_CHARS_MAX = 80

PLAN_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "plan": {"type": "string"},
        "topics": {"type": "array", "items": {"type": "string"}},
        "difficulty": {"type": "string"},
    },
    "required": ["plan", "topics", "difficulty"],
    "additionalProperties": False,
}
"""Structured form of the planner's reply."""

_ANSWER = re.compile(r"<\s{0,5}answer\s{0,5}>.*?(?:<\s{0,5}/\s{0,5}answer\s{0,5}>|\Z)", re.IGNORECASE | re.DOTALL)
_ANSWER_LINE = re.compile(
    r"^[ \t>*#_-]{0,20}(?:the[ ])?(?:final[ ])?answer[ ]?(?:\*\*)?[ ]?(?::|=).*$", re.IGNORECASE | re.MULTILINE
)
_FINAL_IS = re.compile(r"[^.\n]{0,200}\bfinal answer (?:is|equals)\b[^\n]*", re.IGNORECASE)
_BOX = re.compile(r"\\f?box(?:ed)?\s{0,5}\{")
_FRAME_TAGS = re.compile(r"</?(?:plan|ideas|question|topics|answer)>", re.IGNORECASE)


async def make_plan(body: MakePlan, context: AgentContext) -> Planned:
    """Ask for a plan; `plan=None` when the reply holds none. Raises BackendError; bad model text is never an error."""
    templates = load_templates(choose_set(context.backend.templates if context.backend else None, body.templates))
    manifest = templates.manifest
    if manifest.planner is PlannerMode.none:
        return Planned(plan=None)
    question = _question(body, templates)
    if manifest.planner is PlannerMode.rules:
        return plan_by_rules(question, templates)
    _backend, settings = context.bound()
    completion = await context.complete(
        CompletionRequest(
            messages=templates.chat("planner", problem=question),
            temperature=manifest.planner_temperature,
            max_tokens=min(manifest.planner_max_tokens, settings.max_tokens),
            seed=body.seed,
            json_schema=PLAN_SCHEMA if manifest.planner_structured else None,
            request_id=context.request_id,
        )
    )
    return read_plan(completion.text, reply_tag=manifest.reply_tag)


def plan_by_rules(question: str, templates: TemplateSet) -> Planned:
    """Return the plan of the set's first rule that fits; no model is asked."""
    lowered = question.lower()
    for rule in templates.manifest.plan_rules:
        if not rule.words or any(word in lowered for word in rule.words):
            return Planned(plan=rule.plan, topics=(rule.topic,))
    return Planned(plan=None)


def read_plan(text: str, *, reply_tag: str | None = None) -> Planned:
    """Read a planner's reply: JSON (also fenced, broken or cut off), the content of `reply_tag`, or plain text.

    What would give the answer away (`<answer>`, `\\boxed{}`, a line `Answer: …`) is taken out. Never raises.
    """
    tagged = _in_tag(text, reply_tag) if reply_tag else None
    if tagged is not None:
        return Planned(plan=_clean(tagged))
    for found in find_objects(text):
        if "plan" in found:
            return Planned(
                plan=_clean(_as_text(found["plan"])),
                topics=_topics(found.get("topics")),
                difficulty=_word(found.get("difficulty")),
            )
    if looks_like_json(text):
        return Planned(plan=_clean(find_string(text, "plan") or ""))
    return Planned(plan=_clean(text))


def without_answer(plan: str) -> str:
    """Return a plan without what states a final answer outright."""
    plan = _without_boxes(_ANSWER.sub("", plan))
    return _FINAL_IS.sub("", _ANSWER_LINE.sub("", plan))


def _question(body: MakePlan, templates: TemplateSet) -> str:
    system, history, problem = split_problem(body.messages)
    problem = templates.prepared(cut_middle(problem, PROBLEM_CHARS_MAX))
    earlier = transcript(system, history) if templates.manifest.history and templates.has("conversation") else ""
    return templates.render("conversation", history=earlier, problem=problem) if earlier else problem


def _clean(plan: str) -> str | None:
    plan = _FRAME_TAGS.sub("", without_role_tokens(without_answer(plan)))
    plan = re.sub(r"\n{3,}", "\n\n", plan).strip()[:PLAN_CHARS_MAX].rstrip()
    return plan if any(character.isalnum() for character in plan) else None


def _in_tag(text: str, tag: str) -> str | None:
    """Return the last content of `<tag>…</tag>`, closed or not; None when the tag does not occur."""
    opening, closing = f"<{tag}>", f"</{tag}>"
    if closing in text:
        text = text.rsplit(closing, 1)[0]
        return text.rsplit(opening, 1)[-1]
    return text.rsplit(opening, 1)[1] if opening in text else None


def _without_boxes(text: str) -> str:
    """Return `text` without `\\boxed{…}`, nested braces included; an unclosed one is cut to the end."""
    kept: list[str] = []
    position = 0
    while found := _BOX.search(text, position):
        kept.append(text[position : found.start()])
        depth, position = 1, found.end()
        while depth and position < len(text):
            depth += {"{": 1, "}": -1}.get(text[position], 0)
            position += 1
    return "".join([*kept, text[position:]])


def _as_text(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "\n".join(_as_text(item) for item in cast(list[object], value)[:50])
    if isinstance(value, dict):
        return "\n".join(_as_text(item) for item in list(cast(dict[str, object], value).values())[:50])
    return "" if value is None else str(value)


def _topics(value: object) -> tuple[str, ...]:
    items = cast(list[object], value) if isinstance(value, list) else [value]
    words = (_word(item) for item in items[:TOPICS_MAX])
    return tuple(word for word in words if word)


def _word(value: object) -> str | None:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    return " ".join(str(value).split())[:TOPIC_CHARS_MAX] or None
