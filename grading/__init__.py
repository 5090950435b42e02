"""Final answers: finding them, comparing them, scoring them by domain, running code answers against unit tests.

The names below load on first use; importing this package loads neither sympy nor math-verify (only the worker
process of :mod:`.symbolic` ever does). Rewards by domain: :func:`k2think.grading.score.score`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .code import TestReport, TestResult, run_unit_tests
    from .counts import grading_counts
    from .equivalence import (
        Comparison,
        canonical,
        cluster,
        compare_answers,
        equivalent,
        quick,
    )
    from .extract import Extracted, extract_answer
    from .form import matches_form
    from .sandbox import SandboxLimits, SandboxResult, run_code, sandbox_problem
    from .symbolic_pool import SymbolicPool, close_default_pool

__all__ = [
    "Comparison",
    "Extracted",
    "SandboxLimits",
    "SandboxResult",
    "SymbolicPool",
    "TestReport",
    "TestResult",
    "canonical",
    "close_default_pool",
    "cluster",
    "compare_answers",
    "equivalent",
    "extract_answer",
    "grading_counts",
    "matches_form",
    "quick",
    "run_code",
    "run_unit_tests",
    "sandbox_problem",
]

_HOMES = {
    "code": ("TestReport", "TestResult", "run_unit_tests"),
    "counts": ("grading_counts",),
    "equivalence": (
        "Comparison", "canonical", "cluster", "compare_answers", "equivalent", "quick",
    ),
    "extract": ("Extracted", "extract_answer"),
    "form": ("matches_form",),
    "symbolic_pool": ("SymbolicPool", "close_default_pool"),
    "sandbox": ("SandboxLimits", "SandboxResult", "run_code", "sandbox_problem"),
}  # fmt: skip
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME_OF[name]}", __name__), name)
