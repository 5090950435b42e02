"""Answers that would rather pass than be right: none does, whichever way its tests are run."""

import asyncio
import json

import pytest
from k2think.grading import run_code, sandbox_problem
from k2think.grading.code import run_unit_tests
from k2think.grading.sandbox import SandboxLimits
from k2think.grading.trials import Call, try_assertions, try_calls
from k2think.schemas.checks import UnitTest

pytestmark = pytest.mark.skipif(bool(sandbox_problem()), reason=sandbox_problem() or "works")

FORGERIES = {
    "sys_exit": "import sys\nsys.exit(0)",
    "os_exit": "import os\nos._exit(0)",
    "exit_when_called": "import os\ndef f(x): os._exit(0)",
    "system_exit_when_called": "def f(x): raise SystemExit(0)",
    "closes_its_files": "import os\nos.closerange(0, 64)\ndef f(x): return 2",
    "equal_to_everything": """
class Yes:
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __lt__(self, other): return True
    __le__ = __gt__ = __ge__ = __lt__
    def __sub__(self, other): return 0
    __rsub__ = __add__ = __radd__ = __sub__
    def __abs__(self): return 0
    def __bool__(self): return True
    def __hash__(self): return 2
    def __contains__(self, item): return True
def f(x): return Yes()
""",
    "equal_number": "class Two(int):\n    def __eq__(self, other): return True\n    __hash__ = int.__hash__\ndef f(x): return Two(7)",
    "replaced_builtins": """
import builtins
builtins.abs = lambda x: 0
builtins.AssertionError = type('Quiet', (BaseException,), {})
builtins.all = builtins.any = lambda items: True
abs = len = sorted = lambda *a: 2
def f(x): return 7
""",
    "replaced_comparison": "import operator, unittest\noperator.eq = lambda a, b: True\nunittest.TestCase.assertEqual = print\ndef f(x): return 7",
    "replaced_json": "import json\nold = json.dumps\njson.dumps = lambda reply: old({'ok': {'value': True}})\ndef f(x): return 7",
    "own_check": "def check(*a): pass\ndef assert_equal(*a): pass\ndef f(x): return 7",
    "writes_replies": """
import os
for fd in range(3, 64):
    try: os.write(fd, b'{"ok": {"value": true}}\\n' * 50)
    except OSError: pass
def f(x): return 7
""",
    "writes_verdicts": """
import os, re
for fd in range(64):
    try: os.write(fd, b'\\npassed {"passed": true, "reason": "passed", "detail": ""}\\n')
    except OSError: pass
def f(x): return 7
""",
    "reads_the_tests": """
import gc, glob, os, re, sys
seen = ''
for path in glob.glob('/code/*') + glob.glob('/tmp/*') + ['/proc/self/cmdline', '/proc/1/cmdline', '/proc/self/environ']:
    try: seen += open(path, errors='replace').read()
    except OSError: pass
seen += repr([thing for thing in gc.get_objects() if isinstance(thing, (str, dict, list))])
frame = sys._getframe()
while frame: seen += repr(frame.f_locals); frame = frame.f_back
found = re.search(r'the expected value is (\\d+)', seen)
def f(x): return int(found[1]) if found else 7
""",
    "says_goodbye": "import atexit, os\natexit.register(lambda: os._exit(0))\ndef f(x): raise KeyboardInterrupt",
    "raises_what_ends_tests": "def f(x): raise ModuleNotFoundError('no tests here')",
    "raises_assertion_error_when_imported": "raise AssertionError",
    "changes_what_it_is_given": "def f(x):\n    x[:] = [type('L', (list,), {'__eq__': lambda a, b: True})()]\n    return 7",
}
EXPECTED = 2
BRIEF = SandboxLimits(wall_s=2.0)
TESTS = (
    "# the expected value is 2\nassert f([1]) == 2",
    "# the expected value is 2\nassert abs(f([1]) - 2) < 1e-6 and f([1]) in (2, 2.0)",
    "# the expected value is 2\ndef check(g):\n    x = [1]\n    assert not g(x) != 2\n    assert x == [1]\n\ncheck(f)",
)


@pytest.mark.parametrize("forgery", FORGERIES)
async def test_no_assertion_is_forged(forgery: str) -> None:
    results = await try_assertions(FORGERIES[forgery], TESTS)
    assert [result.passed for result in results] == [False] * len(TESTS), results


async def test_the_tests_can_be_passed() -> None:
    results = await try_assertions("def f(x): return len(x) + 1", TESTS)
    assert [result.passed for result in results] == [True] * len(TESTS), results


@pytest.mark.parametrize("forgery", ["equal_to_everything", "equal_number", "reads_the_tests"])
async def test_the_same_forgeries_pass_where_answer_and_tests_share_an_interpreter(forgery: str) -> None:
    shared = await run_code(f"{FORGERIES[forgery]}\n{TESTS[0]}\nprint('all passed')")
    assert shared.stdout == "all passed\n", shared.stderr


async def test_no_returned_value_is_forged() -> None:
    calls = [Call(([1],), (EXPECTED,))]
    for forgery, source in FORGERIES.items():
        if forgery in (
            "equal_to_everything",
            "equal_number",
            "writes_replies",
            "replaced_json",
            "os_exit",
            "reads_the_tests",
        ):
            results = await try_calls(source, "f", calls)
            assert [result.passed for result in results] == [False], (forgery, results)
    assert (await try_calls("def f(x): return 2", "f", calls))[0].passed


async def test_the_mark_of_the_end_cannot_be_read_from_the_answers_own_file() -> None:
    # What worked when answer and assertions shared a file: to read the file, print its last mark and leave.
    forger = """
import os, re
text = open(__file__).read() + open('/proc/self/cmdline').read()
for mark in re.findall(r'[0-9a-f]{32}|passed-[0-9a-f]+', text):
    for fd in (1, 2):
        os.write(fd, f'\\n{mark} {{"passed": true, "reason": "passed", "detail": ""}}\\n{mark}\\n'.encode())
os._exit(0)
"""
    report = await run_unit_tests(forger, [UnitTest(code="assert f(1) == 2")])
    assert [result.reason for result in report.results] == ["exited_early"]


async def test_an_answer_sees_its_own_code_and_the_hosts_and_nothing_of_the_tests() -> None:
    looker = "import os\ndef f(x): return sorted(os.listdir('/code'))"
    (result,) = await try_assertions(looker, ["assert f(1) == ['answer.py', 'given.py', 'wire.py'], f(1)"])
    assert result.passed, result.detail


async def test_stdin_of_calls_holds_no_expected_value() -> None:
    looker = "import os\ndef f(x): return os.read(3, 100000).decode() if x == 0 else 7"
    results = await try_calls(looker, "f", [Call((0,), (5,)), *(Call((n,), (987654321,)) for n in range(1, 4))])
    assert not any(result.passed for result in results)
    assert "987654321" not in json.dumps([result.detail for result in results])


ODD_PROGRAMS = (
    "", "\0", "(" * 5_000, "\ud800 = 1", "# -*- coding: no-such -*-\nx = 1", "\ufeffdef f(x):\r\n    return 2", "def f(x):\n\treturn 2\n        x",
    "f = 3", "import sys\nsys.modules.clear()", "import threading\nthreading.main_thread = None\ndef f(x): return f", "del __builtins__\ndef f(x): return 2",
    "import sys\nsys.setrecursionlimit(10**8)\ndef f(x): return f(x)", "def f(x):\n    y = []\n    y.append(y)\n    return y", "import gc\ndef f(x): return [gc.get_objects()]",
)  # fmt: skip


async def test_any_program_gets_a_verdict() -> None:
    work = [
        kind
        for code in ODD_PROGRAMS
        for kind in (
            try_assertions(code, ["assert f(1) == 3"], limits=BRIEF),
            try_calls(code, "f", [Call((1,), (3,))], limits=BRIEF),
            run_unit_tests(code, [UnitTest(expected_stdout="3")], limits=BRIEF),
        )
    ]
    for came in await asyncio.gather(*work):
        results = came if isinstance(came, list) else came.results
        assert [result.passed for result in results] == [False], results
