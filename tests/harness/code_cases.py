"""The hand-made cases of the code domain: programs and their tests in the published forms, and what they are worth."""

from __future__ import annotations

import base64
import json
import pickle
import zlib
from typing import Any, NamedTuple


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
