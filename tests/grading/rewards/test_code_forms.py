"""What code is scored by: tests in the published forms, the program in an answer, outputs and values that are the same."""

from decimal import Decimal
from typing import Any

import pytest
from harness.code_cases import HUMAN_EVAL, LCB, STEPS
from k2think.grading.rewards.code import program_in, same_output
from k2think.grading.rewards.code_tests import Asserted, Calls, Printed, read_tests
from k2think.grading.trials import same_value


def test_forms_are_read_as_they_are_published() -> None:
    assert read_tests({"functional": "assert True"}, {}).trials == (Asserted(("assert True",)),)
    assert read_tests({"inputs": ["1"], "outputs": ["2"]}, {}).trials == (Printed("1", "2"),)
    (calls,) = read_tests(LCB, {"metadata": {"func_name": "scale"}}).trials
    assert isinstance(calls, Calls)
    assert [call.arguments for call in calls.calls] == [([3, 1], 2), ([], 5)]
    assert read_tests(HUMAN_EVAL, {}).prefix == HUMAN_EVAL["prompt"]
    assert read_tests(HUMAN_EVAL, {"prefix": "import re"}).prefix == "import re"
    assert [trial.name for trial in read_tests(STEPS, {}).trials if isinstance(trial, Asserted)] == ["1.1", "1.2"]
    assert read_tests(None, {"unit_tests": [{"code": "pass"}]}).trials == (Asserted(("pass",)),)
    assert len(read_tests({"test_cases": ["pass"], "targets": [{"array": [1.0, float("inf")]}]}, {}).trials) == 1


@pytest.mark.parametrize(
    ("text", "program"),
    [
        ("```python\na\n```", "a"),
        ("```python\na\n```\n```python\nb\n```", "b"),
        ("```python\na\n```\nIt prints\n```\n5\n```", "a"),
        ("```python\na\n```\nIt prints\n```text\n5\n```", "a"),
        ("```\na\n```", "a"),
        ("```py\na\n```\nor\n```cpp\nb\n```", "a"),
        ("~~~python\na\n~~~", "a"),
        ("````python\nprint('''\n```\n''')\n````", "print('''\n```\n''')"),
        ("<think>```python\na\n```</think>```python\nb\n```", "b"),
        ("<think>```python\na\n```</think>\n```python\nb\n```", "b"),
        ("<think>```python\na\n```", None),
        ("<answer>\n```python\na\n```\n</answer>", "a"),
        ("```python\nold\n```\n<answer>\n```python\na\n```", "a"),
        ("<answer>print(1)</answer>", "print(1)"),
        ("```python\nnever closed", None),
        ("  ```python\n  a\n  ```", "  a"),
    ],
    ids=range(16),
)
def test_the_program_is_the_last_complete_block_after_the_reasoning(text: str, program: str | None) -> None:
    assert program_in(text) == program


@pytest.mark.parametrize(
    ("printed", "expected", "same"),
    [
        ("1\n", "1", True),
        ("1", "1.0", True),
        ("1.0000001", "1", False),
        ("1.0000001", "1.0", True),
        ("1.00001", "1.0", False),
        ("1000000.5", "1000000.0", True),
        ("1000002.5", "1000000.0", False),
        ("1e3", "1000", True),
        ("nan", "nan", True),
        ("inf", "1.0", False),
        ("1e999999999", "1.5", False),
        ("0x10", "16", False),
        ("a", "a\n\n", True),
        ("\na", "a", True),
        ("a\n\nb", "a\nb", False),
        ("a b", "a  b", True),
        ("ab", "a b", False),
        ("", "", True),
        ("", "0", False),
        ("100000000000000000000000001", "100000000000000000000000000", False),
        ("True", "true", False),
        ("a\r\nb", "a\nb", True),
    ],
    ids=range(22),
)
def test_outputs_are_compared_by_words_and_numbers(printed: str, expected: str, same: bool) -> None:
    assert same_output(printed, expected) is same


@pytest.mark.parametrize(
    ("value", "expected", "same"),
    [
        ((1, 2), [1, 2], True),
        ([1, [2, (3,)]], [1, [2, [3]]], True),
        ([1], [1, 1], False),
        (0.1 + 0.2, 0.3, True),
        (0.3001, 0.3, False),
        (3, 3.0, True),
        (10**400, 1.0, False),
        ("3", 3, False),
        (None, 0, False),
        ({1: [0.5]}, {1: [0.5]}, True),
        ({1: 2}, {"1": 2}, False),
        (float("nan"), float("nan"), False),
        ({1, 2}, [1, 2], False),
        (10**20 + 1, 10**20, False),
        (Decimal("sNaN"), 1, False),
        ([1, Decimal("sNaN")], [1, 1], False),
        ([Decimal(1)], [1], True),
    ],
    ids=range(17),
)
def test_values_are_compared_by_what_they_are(value: Any, expected: Any, same: bool) -> None:
    assert same_value(value, expected) is same


def test_an_array_counts_as_the_list_of_its_items() -> None:
    numpy = pytest.importorskip("numpy")
    assert same_value(numpy.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]])
    assert same_value([numpy.array([0.1 + 0.2])], [[0.3]])
    assert same_value(numpy.float32(0.5), 0.5)
    assert not same_value(numpy.array([1, 2]), [1, 3])
    assert not same_value(numpy.array([1, 2]), 1)
