"""Code: the last program of the answer passes all tests, in a sandbox, or it does not."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Coroutine
from dataclasses import replace
from decimal import Decimal, InvalidOperation
from typing import Any

from pydantic import JsonValue

from ...schemas.checks import AnswerForm
from ...schemas.scores import Score
from ..extract import extract_answer, visible_text
from ..sandbox import DEFAULT_LIMITS, SandboxLimits, require_sandbox
from ..trials import TestResult, try_assertions, try_calls, try_output
from .code_tests import Asserted, Calls, CodeTests, Printed, Trial, read_tests
from .final import Meta, no_answer, option, right, text_option, wrong

GURU = "codegen__"
"""How the names of Guru's sources of programs begin."""
NUMBER_TOLERANCE = Decimal("1e-6")
"""How far a printed number may be off, absolute or relative, where the expected one is not whole."""

_PYTHON = re.compile(
    r"^[ \t]*(```+|~~~+)[ \t]*(?:python|py|python3)\b[^\n`]*\n(.*?)^[ \t]*\1[ \t]*$",
    re.DOTALL | re.MULTILINE | re.IGNORECASE,
)
_ANSWER = re.compile(r"<\s*answer\s*>(.*?)(?:<\s*/\s*answer\s*>|\Z)", re.DOTALL | re.IGNORECASE)


async def score_code(text: str, truth: JsonValue, meta: Meta) -> Score:
    """Return full credit when all tests pass, else none; the share that passed is in `detail`.

    `meta`: `prefix` (code that the problem gives), `timeout_s` and `memory_mb` (of one run), `any_case` (yes and no
    in any case; by default for Guru's sources, whose tests were chosen with a comparison that takes them so). Raises :class:`SandboxUnavailable` when no sandbox works, GradingError when the tests cannot be read or run.
    """
    tests, limits = read_tests(truth, meta), _limits(meta)
    code = program_in(text)
    if code is None:
        return no_answer()
    require_sandbox()
    any_case = meta.get("any_case", text_option(meta, "source").startswith(GURU)) is True
    work = [asyncio.ensure_future(_try(code, trial, tests, limits, any_case=any_case)) for trial in tests.trials]
    try:
        groups = await asyncio.gather(*work)
    finally:
        for one in work:
            one.cancel()
        await asyncio.gather(*work, return_exceptions=True)
    return _score(code, tests, groups)


def program_in(text: str) -> str | None:
    """Return the last complete block of Python after the reasoning, else the last block of no named language; None = none.

    A block that shows what the program prints often follows the program: it does not replace it.
    """
    body = visible_text(text)
    if body is None:
        return None
    tagged = [match[1] for match in _ANSWER.finditer(body) if match[1].strip()]
    blocks = [match[2] for match in _PYTHON.finditer((tagged[-1] if tagged else body) + "\n") if match[2].strip()]
    if blocks:
        return blocks[-1].rstrip()
    found = extract_answer(text, form=AnswerForm.code)
    return found.answer if found is not None and found.answer.strip() else None


def _limits(meta: Meta) -> SandboxLimits:
    seconds = max(0.1, option(meta, "timeout_s", DEFAULT_LIMITS.wall_s))
    memory = max(64.0, option(meta, "memory_mb", DEFAULT_LIMITS.memory_bytes / 2**20))
    return replace(DEFAULT_LIMITS, wall_s=seconds, cpu_s=max(1, round(seconds)), memory_bytes=int(memory * 2**20))


def _try(
    code: str, trial: Trial, tests: CodeTests, limits: SandboxLimits, *, any_case: bool
) -> Coroutine[Any, Any, list[TestResult]]:
    match trial:
        case Printed():
            return _try_printed(f"{tests.prefix}\n{code}" if tests.prefix else code, trial, limits, any_case=any_case)
        case Calls():
            return try_calls(code, trial.name, trial.calls, prefix=tests.prefix, limits=limits)
        case Asserted():
            return try_assertions(code, trial.tests, prefix=tests.prefix, setup=trial.setup, limits=limits)


async def _try_printed(code: str, trial: Printed, limits: SandboxLimits, *, any_case: bool) -> list[TestResult]:
    def same(printed: str, expected: str) -> bool:
        return same_output(printed, expected, any_case=any_case)

    return [await try_output(code, trial.stdin, trial.expected, same=same, limits=limits)]


def _score(code: str, tests: CodeTests, groups: list[list[TestResult]]) -> Score:
    results = [result for group in groups for result in group]
    names = [
        trial.name if isinstance(trial, Asserted) else ""
        for trial, group in zip(tests.trials, groups, strict=True)
        for _ in group
    ]
    passed, total = sum(result.passed for result in results), len(results)
    if passed == total:
        return right("tests_passed", code, f"{total} of {total} tests passed")
    number, failure = next((number, result) for number, result in enumerate(results, 1) if not result.passed)
    step = f" (step {names[number - 1]})" if names[number - 1] else ""
    said = f"{passed} of {total} tests passed; test {number}{step}: {failure.reason}: {failure.detail}"
    reason = failure.reason if failure.reason in ("timeout", "output_limit") else "tests_failed"
    return wrong(reason, code, said)


def same_output(printed: str, expected: str, *, any_case: bool = False) -> bool:
    """Whether a program printed what is expected: line by line and word by word, whatever blanks are between the words.

    Where the expected word is a number that is not whole, one within NUMBER_TOLERANCE will do; whole numbers are
    exact at any length. `any_case`: yes and no are the same in any case.
    """
    lines, wanted = printed.strip().splitlines(), expected.strip().splitlines()
    if len(lines) != len(wanted):
        return False
    for line, right_line in zip(lines, wanted, strict=True):
        words, right_words = line.split(), right_line.split()
        if len(words) != len(right_words):
            return False
        if not all(_same_word(*pair, any_case=any_case) for pair in zip(words, right_words, strict=True)):
            return False
    return True


def _same_word(word: str, expected: str, *, any_case: bool) -> bool:
    if word == expected:
        return True
    if any_case and expected.casefold() in ("yes", "no"):
        return word.casefold() == expected.casefold()
    number, wanted = _number(word), _number(expected)
    if number is None or wanted is None:
        return False
    if number == wanted:
        return True
    off = abs(number - wanted)
    return not _is_whole(expected) and off <= NUMBER_TOLERANCE * max(1, abs(wanted))


def _number(word: str) -> Decimal | None:
    try:
        number = Decimal(word)
    except InvalidOperation:
        return None
    # An exponent beyond those of floats would cost as many digits in a comparison.
    return number if number.is_finite() and -400 < number.adjusted() < 10_000 else None


def _is_whole(word: str) -> bool:
    return not set(word) & set(".eE")
