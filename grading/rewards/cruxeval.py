"""CRUXEval (arXiv 2401.03065): what a function returns, or what makes it return that.

A predicted output is compared as a Python literal. A predicted input is tried: the function runs in the sandbox on
arguments that were read as literals, so nothing of the answer is ever run as code.
"""

from __future__ import annotations

import re
from typing import Any, cast

from pydantic import JsonValue

from ...schemas.checks import UnitTest
from ...schemas.errors import GradingError
from ...schemas.scores import Score
from ..extract import visible_text
from .final import Meta, no_answer, right, stated_answer, text_option, text_truth, wrong
from .literal import Literal, Unreadable, read_literal, same_literal

MAX_SHOWN_CHARS = 1_000

_MARKED = re.compile(r"\[ANSWER\](.*?)\[/ANSWER\]", re.DOTALL)
_ASSERTION = re.compile(r"\s*assert\s+f\((?P<arguments>.*)\)\s*==\s*(?P<result>.*?)\s*", re.DOTALL)
_ASKED = re.compile(r"^assert f\(\?\?\) == (.+)$", re.MULTILINE)
_CALL = re.compile(r"\s*f\((.*)\)\s*", re.DOTALL)


async def score_cruxeval(text: str, truth: JsonValue, meta: Meta) -> Score:
    """Score an assertion, a result or arguments. `truth` is ``{"functional": …}``, also as JSON text.

    It holds the result (CRUXEval-O), or the function; the result is then in `meta["reference"]`, or read off the last
    assertion of `meta["question"]` (CRUXEval-I).
    """
    functional = _functional(truth)
    answer = _marked(text)
    if answer is None:
        return no_answer()
    if re.search(r"^\s*def f\(", functional, re.MULTILINE):
        asked = _ASKED.findall(text_option(meta, "question"))
        return await _score_input(answer, functional, text_option(meta, "reference") or (asked[-1] if asked else ""))
    return _score_output(answer, functional)


def _score_output(answer: str, result: str) -> Score:
    assertion = _ASSERTION.fullmatch(answer)
    given = assertion["result"] if assertion else answer
    shown = given.strip()[:MAX_SHOWN_CHARS]
    try:
        expected = read_literal(result)
    except Unreadable:  # bytes, ranges and their like are compared as they are written
        same = "".join(given.split()) == "".join(result.split())
        return right("equal", shown) if same else wrong("different", shown, f"the truth is {result}")
    try:
        value = read_literal(given)
    except Unreadable as exc:
        return wrong("wrong_form", shown, f"the result is no literal: {exc}")
    return (
        right("equal", shown) if same_literal(value, expected) else wrong("different", shown, f"the truth is {result}")
    )


async def _score_input(answer: str, function: str, result: str) -> Score:
    from ..code import run_unit_tests

    if not result.strip():
        raise GradingError(
            "a CRUXEval-I problem needs the function's result in meta['reference'], or its question in meta['question']"
        )
    assertion = _ASSERTION.fullmatch(answer)
    call = _CALL.fullmatch(answer)
    arguments = assertion["arguments"] if assertion else call[1] if call else answer
    written = arguments.strip().rstrip(",")
    shown = written[:MAX_SHOWN_CHARS]
    try:
        values = cast(tuple[Any, ...], read_literal(f"({written},)" if written else "()"))
    except Unreadable as exc:
        return wrong("wrong_form", shown, f"the arguments are no literals: {exc}")
    call_again = f"f({', '.join(_python(value) for value in values)})"
    report = await run_unit_tests(function, [UnitTest(code=f"assert {call_again} == ({result})")])
    if report.all_passed:
        return right("tests_passed", shown)
    outcome = report.results[0]
    return wrong("timeout" if outcome.reason == "timeout" else "tests_failed", shown, outcome.detail)


def _functional(truth: JsonValue) -> str:
    value: Any = truth
    if isinstance(truth, str):
        try:
            value = read_literal(truth)
        except Unreadable:
            value = {"functional": truth}
    inner = cast(dict[str, Any], value).get("functional") if isinstance(value, dict) else None
    return text_truth(inner, "CRUXEval")


def _marked(text: str) -> str | None:
    visible = visible_text(text)
    if visible is None:
        return None
    marked = _MARKED.findall(visible)
    return str(marked[-1]) if marked else stated_answer(text)


def _python(value: Literal) -> str:
    """Write a literal as Python reads it; a set is one that can be changed."""
    if isinstance(value, frozenset):
        return "{" + ", ".join(_python(item) for item in cast(frozenset[Any], value)) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_python(item) for item in cast(list[Any], value)) + "]"
    if isinstance(value, tuple):
        return "(" + "".join(_python(item) + ", " for item in cast(tuple[Any, ...], value)) + ")"
    if isinstance(value, dict):
        pairs = cast(dict[Any, Any], value).items()
        return "{" + ", ".join(f"{_python(key)}: {_python(item)}" for key, item in pairs) + "}"
    return f"float({str(value)!r})" if isinstance(value, float) else repr(value)
