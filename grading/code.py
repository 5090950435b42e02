"""Unit tests of a code answer, in the sandbox."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ..schemas.checks import UnitTest
from .sandbox import DEFAULT_LIMITS, SandboxLimits, SandboxResult, require_sandbox, run_code

MAX_DETAIL_CHARS = 500


@dataclass(frozen=True, slots=True)
class TestResult:
    """One unit test's outcome."""

    __test__ = False  # not a test class of pytest's

    passed: bool
    reason: Literal["passed", "wrong_output", "failed", "exited_early", "timeout", "output_limit"]
    """failed = exception, other exit status, memory or CPU limit; exited_early = left before the assertions were through."""
    detail: str
    """End of standard error, or the output that was not expected; at most MAX_DETAIL_CHARS."""
    wall_s: float
    """Seconds that the run took."""


@dataclass(frozen=True, slots=True)
class TestReport:
    """The outcomes in the order of the tests; shorter than the tests after stopping at a failure."""

    __test__ = False

    results: tuple[TestResult, ...]
    total: int
    """Number of tests that were to be run."""

    @property
    def passed(self) -> int:
        """Tests that passed."""
        return sum(result.passed for result in self.results)

    @property
    def all_passed(self) -> bool:
        """Whether every test passed; False when there were none."""
        return self.total > 0 and self.passed == self.total


async def run_unit_tests(
    code: str, tests: Sequence[UnitTest], *, limits: SandboxLimits = DEFAULT_LIMITS, stop_at_failure: bool = False
) -> TestReport:
    """Run `code` against each test, one sandbox each, one after another.

    A test with `expected_stdout` compares lines; blanks at line ends and blank lines at the end do not count. A test
    with `code` passes when that code, appended to the answer, runs to its end: a program that exits before the
    assertions does not pass. (An answer that forges the end mark on purpose, by reading its own file, is not stopped:
    it shares an interpreter with the assertions.)

    Raises :class:`SandboxUnavailable` when no sandbox works here; nothing has run then.
    """
    require_sandbox()
    results: list[TestResult] = []
    for test in tests:
        results.append(await (_run_io_test if test.code is None else _run_assertions)(code, test, limits))
        if stop_at_failure and not results[-1].passed:
            break
    return TestReport(tuple(results), len(tests))


async def _run_io_test(code: str, test: UnitTest, limits: SandboxLimits) -> TestResult:
    run = await run_code(code, stdin=test.stdin or "", limits=limits)
    if run.outcome != "ok":
        return _not_ok(run)
    if _lines(run.stdout) == _lines(test.expected_stdout or ""):
        return TestResult(True, "passed", "", run.wall_s)
    return TestResult(False, "wrong_output", run.stdout[:MAX_DETAIL_CHARS], run.wall_s)


async def _run_assertions(code: str, test: UnitTest, limits: SandboxLimits) -> TestResult:
    mark = f"passed-{secrets.token_hex(16)}"
    # written to the descriptor: the answer may have replaced print or sys.stdout
    source = f"{code}\n\n{test.code}\n\n__import__('os').write(1, b'\\n{mark}\\n')\n"
    run = await run_code(source, stdin=test.stdin or "", limits=limits)
    if run.outcome != "ok":
        return _not_ok(run)
    if mark in run.stdout.splitlines():
        return TestResult(True, "passed", "", run.wall_s)
    return TestResult(False, "exited_early", run.stdout[-MAX_DETAIL_CHARS:], run.wall_s)


def _not_ok(run: SandboxResult) -> TestResult:
    reason = run.outcome if run.outcome in ("timeout", "output_limit") else "failed"
    return TestResult(False, reason, run.stderr[-MAX_DETAIL_CHARS:], run.wall_s)


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.rstrip().splitlines()]
