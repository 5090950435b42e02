"""Programs are worth what their tests say: the hand-made cases; and what is no verdict."""

import asyncio
import base64
import json
import pickle
import zlib
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest
from harness.code_cases import CASES, LCB
from k2think.grading import sandbox_problem, trials
from k2think.grading.rewards.code import score_code
from k2think.grading.rewards.private_tests import unpack_tests
from k2think.grading.sandboxes.base import MAX_PROGRAM_BYTES
from k2think.grading.sandboxes.choice import choose
from k2think.grading.score import score
from k2think.schemas.errors import GradingError
from k2think.schemas.sandbox_settings import SandboxSettings
from k2think.schemas.scores import Score

needs_sandbox = pytest.mark.skipif(bool(sandbox_problem()), reason=sandbox_problem() or "works")


def answer(code: str) -> str:
    """A model's whole output that ends in this program."""
    return f"<think>\nI could print 5.\n```python\nprint(5)\n```\n</think>\nThe program:\n\n```python\n{code}\n```\n"


def gathered(work: dict[str, Coroutine[Any, Any, Score]]) -> dict[str, Score]:
    async def all_of_them() -> list[Score]:
        return await asyncio.gather(*work.values())

    return dict(zip(work, asyncio.run(all_of_them()), strict=True))


@pytest.fixture(scope="module")
def scores() -> dict[str, Score]:
    """All cases, scored at once, as training does it."""
    return gathered({name: score("code", answer(c.code), c.truth, c.meta) for name, c in CASES.items()})


@needs_sandbox
@pytest.mark.parametrize("name", CASES)
def test_a_case(name: str, scores: dict[str, Score]) -> None:
    case, found = CASES[name], scores[name]
    assert (found.correct, found.reason) == (case.passed, case.expected), found.detail
    assert found.value == float(case.passed)
    assert found.answer == case.code.rstrip()


@needs_sandbox
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("io_one_wrong", "1 of 2 tests passed; test 2: wrong_output: 7"),
        ("mbpp_share", "2 of 3 tests passed; test 2: failed: AssertionError in `assert add(2, 2) == 4`"),
        ("steps_second_wrong", "2 of 3 tests passed; test 3 (step 1.2): failed: AssertionError in `assert root(-1) == target`"),
        ("call_endless", "1 of 2 tests passed; test 2: timeout"),
        ("call_raises", "0 of 1 tests passed; test 1: failed: KeyError: 1 (line 2)"),
        ("io_crash", "ZeroDivisionError"),
        ("io_right", "2 of 2 tests passed"),
    ],
)  # fmt: skip
def test_the_detail_tells_the_share_and_the_first_failure(name: str, said: str, scores: dict[str, Score]) -> None:
    assert said in scores[name].detail


def test_there_are_enough_cases() -> None:
    assert len(CASES) >= 60


# ---- What is no verdict


@pytest.mark.parametrize(
    "truth",
    [
        None,
        {},
        [],
        7,
        {"functional": 3},
        {"inputs": ["1"], "outputs": []},
        {"inputs": [], "outputs": []},
        {"inputs": [3], "outputs": ["3"]},
        {"test_list": []},
        {"pytest": "def test(): pass"},
        {"steps": [{"targets": []}]},
        {"steps": [{"test_cases": ["pass"], "targets": []}]},
        [{"input": "1", "output": "2", "testtype": "functional"}],
        {"fn_name": "f", "inputs": ["[1"], "outputs": ["2"]},
        {"private_test_cases": "%%%"},
        [{"stdin": "1"}],
        {"private_test_cases": "[" * 100_000},
        {"fn_name": "f", "inputs": ["[" * 100_000], "outputs": ["2"]},
    ],
    ids=range(18),
)
async def test_tests_that_cannot_be_read_are_an_error_never_a_zero(truth: Any) -> None:
    with pytest.raises(GradingError):
        await score_code(answer("print(1)"), truth, {})


@needs_sandbox
@pytest.mark.parametrize(
    "functional", ["assert f( == 1", "import no_such_package\nassert f() == 1", "def g():\n    import none_such\n\ng()"]
)
async def test_tests_that_cannot_be_run_are_an_error_never_a_zero(functional: str) -> None:
    with pytest.raises(GradingError, match="the tests cannot be run here"):
        await score_code(answer("def f():\n    return 1"), {"functional": functional}, {})


@needs_sandbox
async def test_tests_may_be_longer_than_an_answer_and_too_long_ones_are_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    program = answer("def f():\n    return 1")
    long = {"functional": f"table = '{'a' * MAX_PROGRAM_BYTES}'\nassert f() == len(table) // {MAX_PROGRAM_BYTES}"}
    assert (await score_code(program, long, {})).correct
    assert (await score_code(answer(f"'{'a' * MAX_PROGRAM_BYTES}'"), long, {})).reason == "tests_failed"
    monkeypatch.setattr("k2think.grading.sandboxes.base.MAX_TESTS_BYTES", MAX_PROGRAM_BYTES)
    with pytest.raises(GradingError, match="they are longer than"):
        await score_code(program, long, {})
    with pytest.raises(GradingError, match="gives is longer than"):
        await score_code(program, {"functional": "pass"}, {"prefix": "#" * MAX_PROGRAM_BYTES})


@needs_sandbox
async def test_the_output_limit_is_that_of_one_call() -> None:
    numbers = list(range(100_000))
    truth = {"fn_name": "f", "inputs": [[100_000]] * 3, "outputs": [numbers] * 3}
    assert (await score_code(answer("def f(n):\n    return list(range(n))"), truth, {})).correct
    given = numbers[::-1]
    truth = {"fn_name": "f", "inputs": [[given]] * 3, "outputs": [0] * 3}
    changing = answer("def f(xs):\n    xs.sort()\n    return xs[0]")
    assert (await score_code(changing, truth, {})).correct
    for code in ("return 'x' * n ** 2", "while True: __import__('os').write(2, b'x' * n)"):
        truth = {"fn_name": "f", "inputs": [[10_000]] * 3, "outputs": ["x"] * 3}
        assert (await score_code(answer(f"def f(n):\n    {code}"), truth, {})).reason == "output_limit"


@needs_sandbox
async def test_a_value_that_refuses_to_be_compared_is_a_wrong_one() -> None:
    truth = {"fn_name": "f", "inputs": [[1]], "outputs": [1]}
    found = await score_code(answer("from decimal import Decimal\ndef f(n):\n    return Decimal('sNaN')"), truth, {})
    assert (found.reason, found.detail) == (
        "tests_failed", "0 of 1 tests passed; test 1: wrong_output: returned Decimal('sNaN')",
    )  # fmt: skip


async def test_no_program_is_no_answer() -> None:
    truth = {"functional": "assert f() == 1"}
    for text in ("", "I do not know.", "<think>```python\nprint(1)\n```", "```python\ndef f(): return 1", "```\n\n```"):
        found = await score_code(text, truth, {})
        assert (found.value, found.reason) == (0.0, "no_answer"), text


class Harm:
    """Unpickled, it would write a file."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (self._path, "w"))


def test_private_tests_are_text_and_nothing_that_runs(tmp_path: Any) -> None:
    def packed(value: object) -> str:
        return base64.b64encode(zlib.compress(pickle.dumps(value))).decode()

    assert unpack_tests(packed(json.dumps(LCB))) == LCB
    assert unpack_tests(json.dumps(LCB)) == LCB
    with pytest.raises(GradingError, match="it asks for"):
        unpack_tests(packed(Harm(str(tmp_path / "ran"))))
    assert not (tmp_path / "ran").exists()
    for other in (packed(LCB), packed(3), "AAAA", base64.b64encode(zlib.compress(b"\x80")).decode(), "é"):
        with pytest.raises(GradingError):
            unpack_tests(other)


@needs_sandbox
async def test_steps_with_arrays_run_where_numpy_is_in_the_folder_of_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    numpy = pytest.importorskip("numpy")
    sandbox = choose(SandboxSettings(packages_dir=Path(numpy.__file__).parents[1]))
    monkeypatch.setattr(trials, "require_sandbox", lambda: sandbox)
    code = """
import numpy as np
def wave(n):
    return np.exp(1j * np.linspace(0, np.pi, n))
def grow(a, k):
    a *= k
    return a.sum()
"""
    row = [{"complex": [1.0, 0.0]}, {"complex": [0.0, 1.0]}, {"complex": [-1.0, 0.0]}]
    cases = [
        "assert np.allclose(wave(3), target) and wave(3).dtype == complex",
        "a = np.ones((2, 2))\nassert grow(a, 3.0) == target\nassert (a == 3.0).all()",
        "assert wave(3)[0] == target",
    ]
    truth = {"required_dependencies": "import numpy as np", "test_cases": cases, "targets": [{"array": row}, 12.0, 2.0]}
    found = await score_code(answer(code), truth, {})
    assert (found.correct, found.reason) == (False, "tests_failed")
    assert found.detail.startswith(
        "2 of 3 tests passed; test 3: failed: AssertionError in `assert wave(3)[0] == target`"
    )
