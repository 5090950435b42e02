"""AM-Thinking-v1-Distilled (a-m-team; arXiv 2505.14464) into conversations, and into problems where there is a truth.

Six files of JSON lines: code, if, math, multiturn, other, science. A line is `{"system", "conversations": [{"from":
"human" | "assistant", "value", "info": {...}}]}`, and `info` differs from file to file: `ground_truth` is text, a list or
nothing, `test_case` an object, a list, text or nothing. (The sister set AM-Qwen3-Distilled has the same form.)
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, cast

from pydantic import JsonValue, ValidationError

from ...schemas.errors import explain
from ...schemas.scores import Domain, Task
from ..records import SftExample, Turn
from .converted import Converted, Rejected, stable_id
from .reading import Read, Row

SOURCE = "am_thinking_v1_distilled"
SUBSETS = ("code", "if", "math", "multiturn", "other", "science")
DOMAINS = {"math": Domain.math, "code": Domain.code, "science": Domain.science}
"""Subsets whose answers can be checked; nothing checks the others."""
_ROLES = {"human": "user", "user": "user", "assistant": "assistant", "gpt": "assistant", "system": "system"}
Info = Mapping[str, Any]


def convert_am(read: Read) -> Converted:
    """Convert one line. Raises Rejected.

    The set's own system prompt is left out, as its makers did in training: the template's is used.
    """
    row = read.row or {}
    turns, info = _turns(row)
    subset = _subset(read, info)
    last = turns[-1].content
    problem = "\n\n".join(turn.content for turn in turns if turn.role == "user")
    record = stable_id(subset, problem, last)
    domain = DOMAINS.get(subset)
    task = None if domain is None else _task(record, subset, domain, turns[-2].content, info)
    try:
        example = SftExample(
            id=record,
            messages=turns,
            source=f"{SOURCE}/{subset}",
            domain=domain,
            task_id=None if task is None else task.id,
        )
    except ValidationError as exc:
        raise Rejected("not_in_turns", explain(exc)) from exc
    return Converted(problem, example, task)


def _turns(row: Row) -> tuple[tuple[Turn, ...], Info]:
    conversations = row.get("conversations")
    if not isinstance(conversations, list) or len(cast(list[Any], conversations)) < 2:
        raise Rejected("no_conversation")
    turns: list[Turn] = []
    info: dict[str, Any] = {}
    for number, said in enumerate(cast(list[Any], conversations), start=1):
        turn = cast(Row, said) if isinstance(said, dict) else {}
        role = _ROLES.get(str(turn.get("from")))
        if role is None:
            raise Rejected("unknown_speaker", f"turn {number}")
        own = turn.get("info")
        told: Info = cast(Info, own) if isinstance(own, dict) else {}
        info |= {name: value for name, value in told.items() if value not in (None, "", [], {})}
        if role == "system":
            continue
        text = turn.get("value")
        if role == "assistant":
            text = _answer(text, told, last=number == len(cast(list[Any], conversations)))
        if not isinstance(text, str) or not text.strip():
            raise Rejected("empty_turn", f"turn {number}")
        turns.append(Turn(role=cast(Any, role), content=text))
    if len(turns) < 2:
        raise Rejected("no_conversation")
    return tuple(turns), info


def _answer(value: object, info: Info, *, last: bool) -> object:
    """Return an assistant's text; the last one's must have its reasoning and its answer."""
    text = value if isinstance(value, str) else ""
    if not text.strip():
        thought, said = info.get("think_content"), info.get("answer_content")
        if isinstance(thought, str) and isinstance(said, str) and thought.strip() and said.strip():
            text = f"<think>{thought}</think>\n<answer>{said}</answer>"
    if last:
        before, closed, after = text.partition("</think>")
        if not closed or "<think>" not in before:
            raise Rejected("no_reasoning")
        if "<answer>" in after and "</answer>" not in after:
            raise Rejected("answer_cut_off")
        if not after.replace("<answer>", "").replace("</answer>", "").strip():
            raise Rejected("no_answer")
    return text


def _subset(read: Read, info: Info) -> str:
    """Return which of the six a line is of: by its file, else by its category."""
    name = read.file.name.partition(".")[0].casefold()
    if name in SUBSETS:
        return name
    category = str(info.get("category") or "").casefold()
    return category if category in SUBSETS else "other"


def _task(record: str, subset: str, domain: Domain, prompt: str, info: Info) -> Task | None:
    if domain is Domain.code:
        tests = info.get("test_case")
        # Some lines have their tests in place of the truth.
        truth = _tests(tests if tests is not None else info.get("ground_truth"))
    else:
        truth = _truth(info.get("ground_truth"))
    if truth is None:
        return None
    meta: dict[str, JsonValue] = {}
    origin = info.get("source")
    if isinstance(origin, str):
        meta["origin"] = origin
    try:
        return Task(
            id=f"task-{record}",
            domain=domain,
            source=f"{SOURCE}/{subset}",
            prompt=prompt,
            truth=truth,
            meta=meta,
        )
    except ValidationError as exc:
        raise Rejected("no_task", explain(exc)) from exc


def _truth(value: object) -> JsonValue:
    """Return a truth as text; of a list with one element that one."""
    if isinstance(value, list):
        items = cast(list[object], value)
        return _truth(items[0]) if len(items) == 1 else None
    if isinstance(value, bool) or value is None:
        return None
    return str(value).strip() or None if isinstance(value, str | int | float) else None


def _tests(value: object) -> JsonValue:
    """Return unit tests in Guru's form, `{"functional": …}` or `{"inputs": […], "outputs": […]}`; None = in no known form."""
    if isinstance(value, str):
        try:
            inner: object = json.loads(value)
        except (ValueError, RecursionError):
            return {"functional": value} if "assert" in value else None
        return None if isinstance(inner, str) else _tests(inner)
    if isinstance(value, list):
        items = cast(list[object], value)
        if items and all(isinstance(item, str) and "assert" in item for item in items):
            return {"functional": "\n".join(cast(list[str], items))}
        cases = [cast(Row, item) for item in items if isinstance(item, dict)]
        if cases and len(cases) == len(items) and all({"input", "output"} <= case.keys() for case in cases):
            return {"inputs": [case["input"] for case in cases], "outputs": [case["output"] for case in cases]}
        return None
    if isinstance(value, dict):
        tests = cast(Row, value)
        if isinstance(tests.get("functional"), str):
            return {"functional": tests["functional"]}
        inputs, outputs = tests.get("inputs"), tests.get("outputs")
        if isinstance(inputs, list) and isinstance(outputs, list) and inputs:
            kept: dict[str, Any] = {"inputs": inputs, "outputs": outputs}
            return kept | ({"fn_name": tests["fn_name"]} if isinstance(tests.get("fn_name"), str) else {})
    return None
