"""Unit tests of a code answer, in the sandbox."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from ..schemas.checks import UnitTest
from .sandbox import DEFAULT_LIMITS, SandboxLimits, require_sandbox
from .trials import TestResult, try_assertions, try_output

__all__ = ["TestReport", "TestResult", "run_unit_tests", "same_lines"]


@dataclass(frozen=True, slots=True)
class TestReport:
    """The outcomes in the order of the tests; shorter than the tests after stopping at a failure."""

    __test__ = False  # not a test class of pytest's

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
    """Run `code` against each test, each in a sandbox of its own, as many at once as the settings allow.

    A test with `expected_stdout` compares lines; blanks at line ends and blank lines at the end do not count. A test
    with `code` passes when that code runs to its end against the answer's functions and classes: a program that exits
    before does not pass. `stop_at_failure` ends the tests behind the first that fails.

    Raises :class:`SandboxUnavailable` when no sandbox works here; nothing has run then.
    """
    require_sandbox()
    results = await in_order([_one(code, test, limits) for test in tests], stop_at_failure=stop_at_failure)
    return TestReport(tuple(results), len(tests))


async def in_order(
    trials: Sequence[Coroutine[Any, Any, TestResult]], *, stop_at_failure: bool = False
) -> list[TestResult]:
    """Run all at once and return what came of them in their order; up to the first failure where that ends it."""
    running = [asyncio.ensure_future(trial) for trial in trials]
    results: list[TestResult] = []
    try:
        for trial in running:
            results.append(await trial)
            if stop_at_failure and not results[-1].passed:
                break
    finally:
        for trial in running:
            trial.cancel()
        await asyncio.gather(*running, return_exceptions=True)
    return results


async def _one(code: str, test: UnitTest, limits: SandboxLimits) -> TestResult:
    if test.code is None:
        return await try_output(code, test.stdin or "", test.expected_stdout or "", same=same_lines, limits=limits)
    (result,) = await try_assertions(code, [test.code], limits=limits)
    return result


def same_lines(printed: str, expected: str) -> bool:
    """Whether the lines are the same; blanks at line ends and blank lines at the end do not count."""
    return _lines(printed) == _lines(expected)


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.rstrip().splitlines()]
