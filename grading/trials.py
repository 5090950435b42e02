"""One answer against its tests, three kinds of them: what it prints, what its functions return, what assertions say.

In none of them does the answer's interpreter hold what is expected of it. Output and returned values are compared out
here. Assertions run in an interpreter of their own, which asks the answer's for each call and compares what comes back;
an answer can neither read them, nor replace what they compare with, nor say for them that they passed.
"""

from __future__ import annotations

import functools
import json
import math
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from typing import Any, Literal

from ..schemas.errors import GradingError
from .inside.wire import Unreadable, Wire
from .sandbox import DEFAULT_LIMITS, Program, SandboxLimits, SandboxResult, require_sandbox
from .sandboxes.base import script

MAX_DETAIL_CHARS = 500
FLOAT_TOLERANCE = 1e-6
"""Relative, and absolute below one: how far a floating-point number that a function returns may be off."""
CALLS_CPU_S_MAX = 120
"""CPU seconds of all calls of one answer together at most."""
CALLS_OUTPUT_BYTES_MAX = 32 * 1024 * 1024
"""Output of all calls of one answer together at most."""

Reason = Literal["passed", "wrong_output", "failed", "exited_early", "timeout", "output_limit"]


@dataclass(frozen=True, slots=True)
class TestResult:
    """One unit test's outcome."""

    __test__ = False  # not a test class of pytest's

    passed: bool
    reason: Reason
    """failed = exception, other exit status, memory or CPU limit; exited_early = left before the assertions were through."""
    detail: str
    """End of standard error, the exception, or the output that was not expected; at most MAX_DETAIL_CHARS."""
    wall_s: float
    """Seconds that the run took; of tests that share a run, the whole run's."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a function."""

    arguments: tuple[Any, ...]
    """Positional arguments."""
    expected: tuple[Any, ...]
    """What it may return: any of these."""


async def try_output(
    code: str,
    stdin: str,
    expected: str,
    *,
    same: Callable[[str, str], bool],
    limits: SandboxLimits = DEFAULT_LIMITS,
) -> TestResult:
    """Run the answer with `stdin`; `same` (printed, expected) judges its output. Raises :class:`SandboxUnavailable`."""
    run = await require_sandbox().run(script(code), stdin=stdin, limits=limits)
    if run.outcome != "ok":
        return _not_ok(run)
    if same(run.stdout, expected):
        return TestResult(True, "passed", "", run.wall_s)
    return TestResult(False, "wrong_output", run.stdout[:MAX_DETAIL_CHARS], run.wall_s)


async def try_assertions(
    code: str,
    tests: Sequence[str],
    *,
    prefix: str = "",
    setup: str = "",
    limits: SandboxLimits = DEFAULT_LIMITS,
) -> list[TestResult]:
    """Run `tests`, Python statements, one after the other against the answer's functions and classes.

    `prefix` is known to the answer and to the tests, each has its own copy; `setup` runs before the tests.
    Raises :class:`SandboxUnavailable`, and GradingError when the tests themselves cannot be run.
    """
    word = secrets.token_hex(16)
    plan = {"word": word, "prefix": prefix, "setup": setup, "tests": list(tests)}
    run = await require_sandbox().run_pair(
        Program(
            {"tests.py": _inside("tests.py"), "wire.py": _inside("wire.py"), "tests.json": json.dumps(plan)}, "tests.py"
        ),
        _host(code, prefix),
        limits=limits,
    )
    results: list[TestResult] = []
    for line in _reports(run.stderr, word):
        if "broken" in line:
            raise GradingError(
                f"the tests cannot be run here: {line['broken']} (K2THINK_SANDBOX__PACKAGES_DIR can hold packages that tests need)"
            )
        one = TestResult(line["passed"], line["reason"], line["detail"][:MAX_DETAIL_CHARS], run.wall_s)
        results += [one] * (len(tests) - len(results) if line.get("rest") else 1)
    left = len(tests) - len(results)
    return results + [_not_ok(run)] * left


async def try_calls(
    code: str, name: str, calls: Sequence[Call], *, prefix: str = "", limits: SandboxLimits = DEFAULT_LIMITS
) -> list[TestResult]:
    """Call the function `name`, or the method of a fresh `Solution`, and compare what it returns.

    The limits are those of one call. Raises :class:`SandboxUnavailable`.
    """
    requests = "".join(
        json.dumps(
            {"do": "function", "number": number, "name": name, "given": _WIRE.encode((list(call.arguments), {}))}
        )
        + "\n"
        for number, call in enumerate(calls)
    )
    whole = replace(
        limits,
        cpu_s=min(limits.cpu_s * len(calls), max(CALLS_CPU_S_MAX, limits.cpu_s)),
        output_bytes=min(limits.output_bytes * len(calls), max(CALLS_OUTPUT_BYTES_MAX, limits.output_bytes)),
    )
    run = await require_sandbox().run(_host(code, prefix), stdin=requests, limits=whole, renewals=len(calls))
    replies: dict[int, dict[str, Any]] = {}
    failed_to_load: dict[str, Any] | None = None
    for reply in _json_lines(run.stdout):
        if isinstance(reply.get("number"), int):
            replies.setdefault(reply["number"], reply)
        elif "error" in reply:
            failed_to_load = reply
    results: list[TestResult] = []
    for number, call in enumerate(calls):
        if (reply := replies.get(number, failed_to_load)) is not None:
            results.append(_of_reply(reply, call, run.wall_s))
        elif run.outcome == "ok":
            results.append(TestResult(False, "exited_early", "the answer ended before the call did", run.wall_s))
        else:
            results.append(_not_ok(run))
    return results


def _of_reply(reply: dict[str, Any], call: Call, wall_s: float) -> TestResult:
    if "error" in reply:
        error = reply["error"] if isinstance(reply["error"], dict) else {}
        reason: Reason = "exited_early" if error.get("type") == "SystemExit" else "failed"
        return TestResult(False, reason, f"{error.get('type')}: {error.get('text')}"[:MAX_DETAIL_CHARS], wall_s)
    try:
        value = _WIRE.decode(reply.get("ok"))
    except Unreadable as exc:
        return TestResult(False, "failed", f"the value returned cannot be read: {exc}"[:MAX_DETAIL_CHARS], wall_s)
    if any(same_value(value, expected) for expected in call.expected):
        return TestResult(True, "passed", "", wall_s)
    return TestResult(False, "wrong_output", f"returned {_shown(value)}", wall_s)


def same_value(value: Any, expected: Any) -> bool:
    """Whether a returned value is the expected one: tuples and arrays count as lists, floating-point numbers within FLOAT_TOLERANCE.

    What refuses to be compared, as a signalling NaN does, is equal to nothing.
    """
    if type(value).__module__ == "numpy":
        value = value.tolist()
    if isinstance(value, list | tuple) and isinstance(expected, list | tuple):
        return len(value) == len(expected) and all(map(same_value, value, expected))  # pyright: ignore[reportUnknownArgumentType]
    if isinstance(value, dict) and isinstance(expected, dict):
        return value.keys() == expected.keys() and all(same_value(value[key], expected[key]) for key in expected)  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    if isinstance(value, int | float) and isinstance(expected, int | float) and float in (type(value), type(expected)):
        try:
            return value == expected or math.isclose(value, expected, rel_tol=FLOAT_TOLERANCE, abs_tol=FLOAT_TOLERANCE)
        except OverflowError:  # a whole number beyond all floats
            return False
    try:
        return bool(value == expected)
    except (ArithmeticError, TypeError, ValueError):
        return False


def _shown(value: Any) -> str:
    try:
        return repr(value)[:MAX_DETAIL_CHARS]
    except ValueError:  # whole numbers with thousands of digits
        return f"a {type(value).__name__} too long to show"


def _host(code: str, prefix: str) -> Program:
    given = f"{prefix}\n{code}" if prefix else code
    return Program({"answer.py": _inside("answer.py"), "wire.py": _inside("wire.py"), "given.py": given}, "answer.py")


@functools.cache
def _inside(name: str) -> str:
    return resources.files("k2think.grading.inside").joinpath(name).read_text(encoding="utf-8")


def _reports(text: str, word: str) -> Iterator[dict[str, Any]]:
    for line in text.splitlines():
        if line.startswith(word):
            yield json.loads(line.removeprefix(word))


def _json_lines(text: str) -> Iterator[dict[str, Any]]:
    """Yield the lines that are JSON objects; the answer may have written anything between them."""
    for line in text.split("\n"):
        try:
            reply = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(reply, dict):
            yield reply


def _not_ok(run: SandboxResult) -> TestResult:
    reason: Reason = run.outcome if run.outcome in ("timeout", "output_limit") else "failed"
    return TestResult(False, reason, run.stderr[-MAX_DETAIL_CHARS:], run.wall_s)


class _Elsewhere:
    """Something that the answer returned and that cannot leave its interpreter: equal to nothing."""


def _keep(value: object) -> list[Any]:
    raise GradingError(f"a {type(value).__name__} cannot be an argument of a test")


_WIRE = Wire(classes=lambda name: None, known=lambda kind: False, other=_keep, fetch=lambda coded: _Elsewhere())
