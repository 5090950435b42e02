"""The same hostile program in gVisor, and that it bounds what bubblewrap bounds. Needs `runsc`."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from harness.sandboxes import machine, seen_by
from k2think.grading import trials
from k2think.grading.sandboxes.base import SandboxLimits, SandboxResult, script
from k2think.grading.sandboxes.gvisor import GVisorSandbox

SANDBOX = GVisorSandbox()
pytestmark = pytest.mark.skipif(bool(SANDBOX.problem()), reason=SANDBOX.problem() or "works")
PATIENT = SandboxLimits(wall_s=100.0, cpu_s=60)

OF_ITS_OWN_KERNEL = {"other_families": "NETLINK", "devices": "['fuse', 'net/tun']"}
"""What it emulates itself: the program gets it, and nothing of the machine's kernel with it."""


@pytest.fixture(scope="module")
def seen() -> Iterator[dict[str, dict[str, Any]]]:
    with machine() as goal:
        yield asyncio.run(seen_by(SANDBOX, goal, PATIENT))
        assert goal.victim.poll() is None


def test_no_attempt_gets_hold_of_anything(seen: dict[str, dict[str, Any]]) -> None:
    assert len(seen) > 40
    for name, attempt in seen.items():
        if attempt["escaped"]:
            assert OF_ITS_OWN_KERNEL.get(name, "nothing") in attempt["saw"], (name, attempt["saw"])


async def run(source: str, **limits: Any) -> SandboxResult:
    return await SANDBOX.run(script(source), stdin="", limits=SandboxLimits(**{"wall_s": 60.0, **limits}))


async def test_memory_and_scratch_are_bounded() -> None:
    eater = """
import mmap
held = []
try:
    while True:
        held.append(mmap.mmap(-1, 10_000_000))
except (OSError, MemoryError):
    print(len(held))
written = 0
try:
    for number in range(100):
        with open(f"/tmp/{number}", "wb") as file:
            written += file.write(b"x" * 1_000_000)
except OSError:
    pass
print(written)
"""
    result = await run(eater, memory_bytes=256 * 2**20, disk_bytes=4 * 2**20)
    assert result.outcome == "ok", result.stderr
    blocks, written = map(int, result.stdout.split())
    assert 0 < blocks * 10_000_000 < 256 * 2**20
    assert 2_000_000 < written <= 5_000_000


async def test_time_and_output_are_bounded() -> None:
    looping = await run("while True: pass", wall_s=2.0)
    printing = await run("while True: print('x' * 1000)", output_bytes=5_000)
    assert (looping.outcome, printing.outcome) == ("timeout", "output_limit")


async def test_assertions_run_apart_from_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trials, "require_sandbox", lambda: SANDBOX)
    good = await trials.try_assertions(
        "def f(x):\n    return x + 1", ["assert f(1) == 2", "assert f(1) == 3"], limits=PATIENT
    )
    left = await trials.try_assertions("import os\nos._exit(0)", ["assert True"], limits=PATIENT)
    assert [result.reason for result in good + left] == ["passed", "failed", "exited_early"]


async def test_it_is_left_without_a_trace() -> None:
    result = await run("import sys; print(input()); sys.exit(3)")
    assert (result.outcome, result.exit_code) == ("failed", 1)  # no input: EOFError
    assert "EOFError" in result.stderr
