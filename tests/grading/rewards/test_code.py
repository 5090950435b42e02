"""The hand-made cases of the code domain: programs and their tests in the published forms, and what they are worth."""

import asyncio
import base64
import json
import pickle
import zlib
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from k2think.grading import sandbox_problem, trials
from k2think.grading.rewards.code import program_in, same_output, score_code
from k2think.grading.rewards.code_tests import Asserted, Calls, Printed, read_tests
from k2think.grading.rewards.private_tests import unpack_tests
from k2think.grading.sandboxes.choice import choose
from k2think.grading.score import score
from k2think.grading.trials import same_value
from k2think.schemas.errors import GradingError
from k2think.schemas.sandbox_settings import SandboxSettings
from k2think.schemas.scores import Score

needs_sandbox = pytest.mark.skipif(bool(sandbox_problem()), reason=sandbox_problem() or "works")


def answer(code: str) -> str:
    """A model's whole output that ends in this program."""
    return f"<think>\nI could print 5.\n```python\nprint(5)\n```\n</think>\nThe program:\n\n```python\n{code}\n```\n"


class Case(NamedTuple):
    """A program with its tests."""

    code: str
    truth: Any
    passed: bool
    reason: str = ""
    meta: dict[str, Any] = {}

    @property
    def expected(self) -> str:
        return self.reason or ("tests_passed" if self.passed else "tests_failed")


ADD = "def add(a, b):\n    return a + b"
SUM_LINE = "print(sum(map(int, input().split())))"
TWO_SUM = "class Solution:\n    def twoSum(self, nums, target):\n        for i, a in enumerate(nums):\n            for j in range(i):\n                if a + nums[j] == target:\n                    return [j, i]"
LIST_NODES = """
from typing import *
class ListNode:
    def __init__(self, val=0, next=None):
        self.val = val
        self.next = next
def list_node(values):
    head = None
    for value in reversed(values):
        head = ListNode(value, head)
    return head
def is_same_list(a, b):
    while a and b:
        if a.val != b.val:
            return False
        a, b = a.next, b.next
    return a is None and b is None
"""
REVERSED = "class Solution:\n    def rev(self, head: Optional[ListNode]) -> Optional[ListNode]:\n        last = None\n        while head:\n            head.next, last, head = last, head, head.next\n        return last"
LIST_TESTS = {
    "functional": "def check(candidate):\n    assert is_same_list(candidate(head = list_node([1,2,3])), list_node([3,2,1]))\n"
    f"    assert is_same_list(candidate(head = list_node({list(range(3000))})), list_node({list(range(3000))[::-1]}))\n\ncheck(Solution().rev)"
}
TACO_EQ = "import math\ndef _deep_eq(a, b, tol=1e-5):\n    if isinstance(a, float) or isinstance(b, float):\n        return math.isclose(a, b, rel_tol=tol, abs_tol=tol)\n    if isinstance(a, (list, tuple)):\n        if len(a) != len(b): return False\n        return all(_deep_eq(x, y, tol) for x, y in zip(a, b))\n    return a == b\n\nfor i, o in zip(_inputs, _outputs):\n    assert _deep_eq(half(*i), o[0])"
HUMAN_EVAL = {
    "task_id": "HumanEval/32",
    "prompt": 'import math\n\n\ndef poly(xs: list, x: float):\n    """Evaluates polynomial."""\n    return sum([c * math.pow(x, i) for i, c in enumerate(xs)])\n\n\ndef find_zero(xs: list):\n    """ xs are coefficients; find a zero """\n',
    "entry_point": "find_zero",
    "test": "\n\nMETADATA = {}\n\n\ndef check(candidate):\n    import math\n    for coeffs in ([1, 2], [-6, 11, -6, 1]):\n        solution = candidate(list(coeffs))\n        assert math.fabs(poly(coeffs, solution)) < 1e-4\n",
}
FIND_ZERO = "def find_zero(xs):\n    low, high = -1.0, 1.0\n    while poly(xs, low) * poly(xs, high) > 0:\n        low, high = low * 2, high * 2\n    while high - low > 1e-10:\n        middle = (low + high) / 2\n        if poly(xs, middle) * poly(xs, low) > 0:\n            low = middle\n        else:\n            high = middle\n    return low"
LCB = [
    {"input": "[3, 1]\n2", "output": "[6, 2]", "testtype": "functional"},
    {"input": "[]\n5", "output": "[]", "testtype": "functional"},
]
SCALE = "class Solution:\n    def scale(self, xs, k):\n        return tuple(x * k for x in xs)"
STEPS = {
    "required_dependencies": "import math",
    "sub_steps": [
        {
            "step_number": "1.1",
            "test_cases": ["assert math.isclose(area(2.0), target)"],
            "targets": [12.566370614359172],
        },
        {
            "step_number": "1.2",
            "test_cases": ["a = 3\nassert root(a) == target", "assert root(-1) == target"],
            "targets": [{"tuple": [1.7320508075688772, 0.0]}, {"complex": [0.0, 1.0]}],
        },
    ],
}
AREA = "import math\ndef area(r):\n    return math.pi * r * r\n"
ROOT = "def root(a):\n    return 1j if a < 0 else (math.sqrt(a), 0.0)\n"

CASES = {
    # standard input and output: Guru's form, as text and read
    "io_right": Case(SUM_LINE, {"inputs": ["1 2\n", "3 4"], "outputs": ["3\n", "7"]}, True),
    "io_as_json_text": Case(SUM_LINE, json.dumps({"inputs": ["1 2\n"], "outputs": ["3"]}), True),
    "io_one_wrong": Case(SUM_LINE, {"inputs": ["1 2\n", "3 4"], "outputs": ["3\n", "8"]}, False),
    "io_float_close": Case("print(0.1 + 0.2)", {"inputs": [""], "outputs": ["0.3"]}, True),
    "io_float_far": Case("print(0.31)", {"inputs": [""], "outputs": ["0.3"]}, False),
    "io_whole_exact": Case("print(10**17 + 1)", {"inputs": [""], "outputs": [str(10**17)]}, False),
    "io_blanks": Case("print('a  b ')\nprint()", {"inputs": [""], "outputs": ["a b"]}, True),
    "io_line_missing": Case("print('a b')", {"inputs": [""], "outputs": ["a\nb"]}, False),
    "io_case_counts": Case("print('YES')", {"inputs": [""], "outputs": ["Yes"]}, False),
    "io_any_case": Case("print('YES')", {"inputs": [""], "outputs": ["Yes"]}, True, meta={"any_case": True}),
    "io_any_case_of_guru": Case("print('YES')", {"inputs": [""], "outputs": ["Yes"]}, True, meta={"source": "codegen__taco"}),
    "io_guru_word_counts": Case("print('YESS')", {"inputs": [""], "outputs": ["Yes"]}, False, meta={"source": "codegen__taco"}),
    "io_lists_of_lines": Case(SUM_LINE, {"inputs": [["1 2"]], "outputs": [["3"]]}, True),
    "io_crash": Case("print(1 / 0)", {"inputs": [""], "outputs": ["1"]}, False),
    "io_syntax_error": Case("print(", {"inputs": [""], "outputs": ["1"]}, False),
    "io_right_then_fails": Case("print(3)\nraise SystemExit(1)", {"inputs": [""], "outputs": ["3"]}, False),
    "io_exit_zero": Case("print(3)\nexit(0)", {"inputs": [""], "outputs": ["3"]}, True),
    "io_endless": Case("while True: pass", {"inputs": [""], "outputs": ["3"]}, False, "timeout", {"timeout_s": 0.6}),
    "io_too_much": Case("while True: print('x' * 9999)", {"inputs": [""], "outputs": ["3"]}, False, "output_limit"),
    "io_main_guard": Case("if __name__ == '__main__':\n    print(3)", {"inputs": [""], "outputs": ["3"]}, True),
    "io_forgot_sys": Case("print(sys.argv and 3)", {"inputs": [""], "outputs": ["3"]}, False),
    "io_reads_all": Case("import sys\nprint(len(sys.stdin.read()))", {"inputs": ["äö"], "outputs": ["2"]}, True),
    "io_deep_recursion": Case("import sys, threading\nsys.setrecursionlimit(10**6)\nthreading.stack_size(2**27)\ndef f(n): return 0 if n == 0 else 1 + f(n - 1)\nthreading.Thread(target=lambda: print(f(20000))).start()", {"inputs": [""], "outputs": ["20000"]}, True),
    "io_no_network": Case("import socket\nsocket.create_connection(('127.0.0.1', 80), 1)\nprint(3)", {"inputs": [""], "outputs": ["3"]}, False),
    "io_memory": Case("x = bytearray(10**9)\nprint(3)", {"inputs": [""], "outputs": ["3"]}, False),
    "io_more_memory": Case("x = bytearray(6 * 10**8)\nprint(3)", {"inputs": [""], "outputs": ["3"]}, True, meta={"memory_mb": 900}),
    # leetcode2k
    "leetcode_right": Case(TWO_SUM, {"functional": "def check(candidate):\n    assert candidate(nums = [3,3], target = 6) == [0, 1]\n\n\ncheck(Solution().twoSum)"}, True),
    "leetcode_wrong": Case(TWO_SUM.replace("[j, i]", "[i, j]"), {"functional": "def check(candidate):\n    assert candidate(nums = [3,3], target = 6) == [0, 1]\n\n\ncheck(Solution().twoSum)"}, False),
    "leetcode_nodes": Case(REVERSED, LIST_TESTS, True, meta={"prefix": LIST_NODES}),
    "leetcode_nodes_wrong": Case(REVERSED.replace("return last", "return head"), LIST_TESTS, False, meta={"prefix": LIST_NODES}),
    "leetcode_own_helper": Case("def is_same_list(a, b):\n    return True\n" + REVERSED.replace("return last", "return head"), LIST_TESTS, False, meta={"prefix": LIST_NODES}),
    # taco, primeintellect, livecodebench as Guru has them
    "taco_codewars": Case("def half(x):\n    return x / 2", {"functional": f"_inputs = [[3], [5]]\n_outputs = [[1.5], [2.5000001]]\n{TACO_EQ}"}, True),
    "taco_wrong": Case("def half(x):\n    return x", {"functional": f"_inputs = [[3], [5]]\n_outputs = [[1.5], [2.5]]\n{TACO_EQ}"}, False),
    "primeintellect": Case(ADD, {"functional": "def check_add():\n    assert add(1, 2) == 3\n    assert add('a', 'b') == 'ab'\n\ncheck_add()\n"}, True),
    "livecodebench_guru": Case(SCALE, {"functional": "def check_scale():\n    assert Solution().scale([1], 2) == (2,)\n\ncheck_scale()\n"}, True),
    # humaneval, mbpp
    "humaneval_body_uses_prompt": Case(FIND_ZERO, HUMAN_EVAL, True),
    "humaneval_stub_is_not_tested": Case("x = 1", HUMAN_EVAL, False),
    "humaneval_replaced_helper": Case("def poly(xs, x):\n    return 0\ndef find_zero(xs):\n    return 7", HUMAN_EVAL, False),
    "mbpp_list": Case(ADD, {"test_list": ["assert add(1, 2) == 3", "assert add(2, 2) == 4"], "test_setup_code": ""}, True),
    "mbpp_share": Case("def add(a, b):\n    return 3", {"test_list": ["assert add(1, 2) == 3", "assert add(2, 2) == 4", "assert add(3, 0) == 3"]}, False),
    "mbpp_named_like_a_builtin": Case("def sum(a, b):\n    return a + b", {"test_list": ["assert sum(10, 15) == 25"]}, True),
    "mbpp_class_in_setup": Case("class Node:\n    def __init__(self, v):\n        self.v, self.left = v, None\ndef depth(n):\n    return 0 if n is None else 1 + depth(n.left)", {"test_setup_code": "root = Node(1)\nroot.left = Node(2)", "test_list": ["assert depth(root) == 2"]}, True),
    "mbpp_set": Case("def common(a, b):\n    return set(a) & set(b)", {"test_list": ["assert set(common((3, 4), (4, 5))) == {4}"]}, True),
    # LiveCodeBench's own rows, DeepCoder's, TACO's and APPS's
    "lcb_functional": Case(SCALE, {"public_test_cases": json.dumps(LCB[:1]), "private_test_cases": base64.b64encode(zlib.compress(pickle.dumps(json.dumps(LCB[1:])))).decode(), "metadata": '{"func_name": "scale"}'}, True),
    "lcb_functional_wrong": Case(SCALE.replace("* k", "+ k"), {"public_test_cases": json.dumps(LCB), "metadata": '{"func_name": "scale"}'}, False),
    "lcb_columns": Case(SCALE, {"inputs": [LCB[0]["input"]], "outputs": [LCB[0]["output"]], "fn_name": "scale"}, True),
    "lcb_stdin": Case(SUM_LINE, [{"input": "1 2\n", "output": "3\n", "testtype": "stdin"}], True),
    "deepcoder_call": Case(ADD, [{"type": "function_call", "fn_name": "add", "input": [1, 2], "output": [3]}], True),
    "taco_columns": Case(ADD, {"input_output": json.dumps({"fn_name": "add", "inputs": [[1, 2], [[1], [2]]], "outputs": [3, [1, 2]]})}, True),
    "call_of_nothing": Case("x = 1", {"fn_name": "add", "inputs": [[1, 2]], "outputs": [3]}, False),
    "call_raises": Case("def add(a, b):\n    raise KeyError(a)", {"fn_name": "add", "inputs": [[1, 2]], "outputs": [3]}, False),
    "call_endless": Case("def add(a, b):\n    while b: pass\n    return a", {"fn_name": "add", "inputs": [[1, 0], [1, 1]], "outputs": [1, 1]}, False, "timeout", {"timeout_s": 3.0}),
    "call_slow_each": Case("import time\ndef add(a, b):\n    time.sleep(1.5)\n    return a + b", {"fn_name": "add", "inputs": [[n, 1] for n in range(4)], "outputs": [n + 1 for n in range(4)]}, True, meta={"timeout_s": 4.0}),
    "call_prints": Case("def add(a, b):\n    print('{\"number\": 0, \"ok\": {\"value\": 9}}')\n    return a + b", {"fn_name": "add", "inputs": [[1, 2]], "outputs": [3]}, True),
    "call_returns_generator": Case("def add(a, b):\n    yield a + b", {"fn_name": "add", "inputs": [[1, 2]], "outputs": [[3]]}, False),
    "call_large_numbers": Case("def big(n):\n    return 7 ** n", {"fn_name": "big", "inputs": [[3000]], "outputs": [7**3000]}, True),
    # SciCode's steps, and our own unit tests
    "steps_right": Case(AREA + ROOT, STEPS, True),
    "steps_second_wrong": Case(AREA + ROOT.replace("1j", "-1j"), STEPS, False),
    "unit_tests": Case(SUM_LINE, {"unit_tests": [{"stdin": "1 2", "expected_stdout": "3"}]}, True),
    "unit_tests_code": Case(ADD, {"unit_tests": [{"code": "assert add(1, 1) == 2"}, {"code": "assert add(1, 1) == 3"}]}, False),
    "plain_assertions": Case(ADD, ["assert add(1, 1) == 2", "assert add('x', 'y') == 'xy'"], True),
    "assertions_as_text": Case(ADD, "assert add(1, 1) == 2", True),
    # what assertions may do with an answer
    "in_place": Case("def turn(xs):\n    xs.reverse()", {"functional": "xs = [1, [2]]\nys = xs\nturn(xs)\nassert ys == [[2], 1]"}, True),
    "callback": Case("def twice(f, x):\n    return f(f(x))", {"functional": "assert twice(lambda x: x * 3, 1) == 9"}, True),
    "callback_of_its_own": Case("def inc(x):\n    return x + 1\ndef twice(f, x):\n    return f(f(x))", {"functional": "assert twice(lambda x: inc(x), 1) == 3\nassert twice(inc, 1) == 3"}, True),
    "generator": Case("def count():\n    n = 0\n    while True:\n        yield n\n        n += 1", {"functional": "from itertools import islice\nassert list(islice(count(), 3)) == [0, 1, 2]"}, True),
    "its_own_class": Case("class P:\n    def __init__(self, x): self.x = x\n    def __eq__(self, o): return self.x == o.x\n    def __add__(self, o): return P(self.x + o.x)\n    def __len__(self): return 4", {"functional": "assert P(1) + P(2) == P(3)\nassert P(1) != P(2)\nassert isinstance(P(1), P) and not isinstance(1, P)\np = P(1)\np.x = 5\nassert (p.x, len(p)) == (5, 4)"}, True),
    "expected_exception": Case("def f(x):\n    raise ValueError('negative')", {"functional": "try:\n    f(-1)\nexcept ValueError as exc:\n    assert 'negative' in str(exc)\nelse:\n    raise AssertionError"}, True),
    "exact_types": Case("from collections import Counter, deque\nfrom decimal import Decimal\nfrom fractions import Fraction\ndef f():\n    return {'c': Counter('aab'), 'd': Decimal('1.50'), 'f': Fraction(1, 3), 't': (1, {2}), 'q': deque([1]), 'b': b'x', 'z': 2j}", {"functional": "from decimal import Decimal\nfrom fractions import Fraction\nr = f()\nassert r['c'] == {'a': 2, 'b': 1} and r['d'] == Decimal('1.5') and r['f'] * 3 == 1\nassert r['t'] == (1, {2}) and list(r['q']) == [1] and r['b'] == b'x' and r['z'] == 2j"}, True),
    "unittest_class": Case(ADD, {"functional": "import unittest\nclass T(unittest.TestCase):\n    def test_it(self):\n        self.assertEqual(add(1, 2), 3)\nassert unittest.TextTestRunner().run(unittest.defaultTestLoader.loadTestsFromTestCase(T)).wasSuccessful()"}, True),
}  # fmt: skip


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


# ---- Forms, programs and outputs


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
    ],
    ids=range(14),
)
def test_values_are_compared_by_what_they_are(value: Any, expected: Any, same: bool) -> None:
    assert same_value(value, expected) is same
