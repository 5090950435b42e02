"""Code answers run in a sandbox or not at all."""

import asyncio
import os
import subprocess
import sys

import pytest
from k2think.grading import SandboxLimits, run_code, run_unit_tests, sandbox_problem
from k2think.schemas.checks import UnitTest
from k2think.schemas.errors import SandboxUnavailable

needs_sandbox = pytest.mark.skipif(bool(sandbox_problem()), reason=sandbox_problem() or "works")


def test_without_bubblewrap_nothing_runs(tmp_path: object) -> None:
    # Given a PATH without bwrap, in a process of its own because the probe is remembered
    script = (
        "import asyncio\n"
        "from k2think.grading import run_code, run_unit_tests\n"
        "from k2think.schemas.checks import UnitTest\n"
        "from k2think.schemas.errors import SandboxUnavailable\n"
        f"harm = \"open('{tmp_path}/ran', 'w')\"\n"
        "for call in (run_code(harm), run_unit_tests(harm, [UnitTest(code='pass')])):\n"
        "    try:\n"
        "        asyncio.run(call)\n"
        "    except SandboxUnavailable as exc:\n"
        "        print(exc)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env={"PATH": str(tmp_path)},
    )
    # Then both calls refuse, say what to do, and nothing was written
    assert done.stdout.count("bwrap (bubblewrap) is not installed; install it") == 2
    assert not os.path.exists(f"{tmp_path}/ran")


@needs_sandbox
async def test_runs_a_program_with_input() -> None:
    result = await run_code("print(input()[::-1])", stdin="abc\n")
    assert (result.outcome, result.exit_code, result.stdout) == ("ok", 0, "cba\n")


@needs_sandbox
@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("import socket; socket.create_connection(('127.0.0.1', 9), timeout=1)", "Error"),
        ("import os; os.fork()", "PermissionError"),
        ("import subprocess; subprocess.run(['id'])", "PermissionError"),
        ("open('/usr/written', 'w')", "Read-only"),
        ("open('/tmp/big', 'wb').write(b'a' * 10**8)", "OSError"),
        ("x = 'a' * 10**9", "MemoryError"),
        ("open('/etc/passwd')", "FileNotFoundError"),
        ("raise SystemExit(3)", ""),
    ],
)
async def test_harm_fails_inside(source: str, says: str) -> None:
    result = await run_code(source)
    assert result.outcome == "failed"
    assert says in result.stderr


@needs_sandbox
async def test_environment_is_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CEREBRAS_API_KEY", "secret-value")
    result = await run_code("import os, pathlib; print(dict(os.environ)); print(os.listdir('/proc'))")
    assert result.outcome == "ok"
    assert "secret-value" not in result.stdout
    assert str(os.getpid()) not in result.stdout.split("\n")[1].replace("'", "").strip("[]").split(", ")


@needs_sandbox
async def test_time_and_output_are_bounded() -> None:
    slept = await run_code("import time\nwhile True: time.sleep(1)", limits=SandboxLimits(wall_s=1.0))
    spammed = await run_code("while True: print('x' * 1000)", limits=SandboxLimits(wall_s=60.0, output_bytes=1000))
    assert (slept.outcome, spammed.outcome) == ("timeout", "output_limit")
    assert len(spammed.stdout) == 1000


@needs_sandbox
async def test_cancelling_ends_the_program() -> None:
    task = asyncio.create_task(run_code("import time; time.sleep(60)", limits=SandboxLimits(wall_s=60)))
    await asyncio.sleep(0.3)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@needs_sandbox
async def test_unit_tests_of_both_kinds() -> None:
    io = [UnitTest(stdin="2 3\n", expected_stdout="5\n"), UnitTest(stdin="1 1\n", expected_stdout="3")]
    report = await run_unit_tests("a, b = map(int, input().split())\nprint(a + b, '')", io)
    assert [(r.passed, r.reason) for r in report.results] == [(True, "passed"), (False, "wrong_output")]
    assert not report.all_passed

    asserts = [UnitTest(code="assert add(2, 3) == 5"), UnitTest(code="assert add(1, 1) == 3")]
    report = await run_unit_tests("def add(a, b):\n    return a + b", asserts)
    assert [r.reason for r in report.results] == ["passed", "failed"]
    assert "AssertionError" in report.results[1].detail

    good = await run_unit_tests("def add(a, b):\n    return a + b", asserts[:1])
    assert good.all_passed
    stopped = await run_unit_tests("def add(a, b):\n    return 0", asserts, stop_at_failure=True)
    assert (len(stopped.results), stopped.total, stopped.all_passed) == (1, 2, False)


@needs_sandbox
@pytest.mark.parametrize("escape", ["import sys; sys.exit(0)", "import os; os._exit(0)", "raise SystemExit"])
async def test_leaving_before_the_assertions_does_not_pass(escape: str) -> None:
    report = await run_unit_tests(escape, [UnitTest(code="assert False")])
    assert [r.reason for r in report.results] == ["exited_early"]


async def test_no_tests_are_not_a_pass() -> None:
    if sandbox_problem():
        with pytest.raises(SandboxUnavailable):
            await run_unit_tests("pass", [])
        return
    assert not (await run_unit_tests("pass", [])).all_passed
