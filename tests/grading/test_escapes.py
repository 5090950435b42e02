"""A hostile program in the bubblewrap sandbox: what it gets hold of, and that these tests would notice if it got more."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness.sandboxes import LeakySandbox, Machine, machine, seen_by
from k2think.grading.sandboxes.base import Program, SandboxLimits, SandboxResult, script
from k2think.grading.sandboxes.bubblewrap import BubblewrapSandbox

SANDBOX = BubblewrapSandbox()
pytestmark = pytest.mark.skipif(bool(SANDBOX.problem()), reason=SANDBOX.problem() or "works")
PATIENT = SandboxLimits(wall_s=60.0, cpu_s=60)

# Each attempt of tests/harness/escape_attempts.py; those that come through where the walls are torn down are marked.
THROUGH_A_LEAK = [
    "tcp", "udp", "dns", "unix_socket", "abstract_socket", "other_families", "others_environment", "others_processes",
    "own_environment", "secret_file", "dots", "symlink_out", "roots_of_others", "writes_outside", "open_files", "fork",
    "spawn", "subprocess", "user_namespace", "ptrace", "others_memory", "system_v_memory", "memory_file",
    "signal_outside",
]  # fmt: skip
OTHERS = [
    "accounts", "hard_link", "devices", "capabilities", "set_user", "bubblewrap_inside", "mount_namespace",
    "clone_namespace", "clone3_namespace", "join_namespace", "mount", "chroot", "ptrace_first", "keyring", "bpf",
    "perf_events", "user_faults", "io_uring", "higher_limits",
]  # fmt: skip

Seen = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def goal() -> Iterator[Machine]:
    with machine() as goal:
        yield goal


@pytest.fixture(scope="module")
def seen(goal: Machine) -> Seen:
    """What the attempts saw in the sandbox, in one run."""
    seen = asyncio.run(seen_by(SANDBOX, goal, PATIENT))
    assert goal.victim.poll() is None, "the process outside lives"
    return seen


@pytest.fixture(scope="module")
def leaked() -> Iterator[Seen]:
    """What they saw with the walls torn down."""
    with machine() as goal:
        yield asyncio.run(seen_by(LeakySandbox(mark=goal.mark), goal, PATIENT))
        assert goal.victim.wait(10) == -9


def test_every_attempt_is_in_the_lists(seen: Seen) -> None:
    assert sorted(seen) == sorted(THROUGH_A_LEAK + OTHERS)


@pytest.mark.parametrize("attempt", THROUGH_A_LEAK + OTHERS)
def test_an_attempt_gets_hold_of_nothing(attempt: str, seen: Seen) -> None:
    assert not seen[attempt]["escaped"], seen[attempt]["saw"]


@pytest.mark.parametrize("attempt", THROUGH_A_LEAK)
def test_the_same_attempt_is_seen_to_succeed_where_the_walls_are_down(attempt: str, leaked: Seen) -> None:
    assert leaked[attempt]["escaped"], leaked[attempt]["saw"]


# ---- What would use the machine up


async def run(source: str, **limits: Any) -> SandboxResult:
    return await SANDBOX.run(script(source), stdin="", limits=SandboxLimits(**limits))


def running_with(mark: str) -> list[str]:
    """Processes of the machine whose command line has this word."""
    found: list[str] = []
    for place in Path("/proc").iterdir():
        if place.name.isdigit():
            try:
                words = (place / "cmdline").read_bytes()
            except OSError:
                continue
            if mark.encode() in words:
                found.append(place.name)
    return found


async def test_a_fork_bomb_makes_no_process() -> None:
    bomb = """
import os
made = 0
for _ in range(50):
    try:
        if os.fork() == 0:
            os._exit(0)
        made += 1
    except PermissionError:
        pass
print(made)
"""
    result = await run(bomb)
    assert (result.outcome, result.stdout) == ("ok", "0\n")


async def test_threads_end_at_the_limit_of_the_address_space() -> None:
    bomb = """
import threading
stop = threading.Event()
made = 0
try:
    while made < 5000:
        threading.Thread(target=stop.wait, daemon=True).start()
        made += 1
except RuntimeError:
    pass
print(made)
"""
    result = await run(bomb, memory_bytes=200 * 2**20)
    assert result.outcome == "ok", result.stderr
    assert 0 < int(result.stdout) < 100


async def test_memory_ends_at_the_limit() -> None:
    eater = """
import mmap
held = []
try:
    while True:
        held.append(mmap.mmap(-1, 10_000_000))
except (OSError, MemoryError) as exc:
    print(len(held), type(exc).__name__)
"""
    result = await run(eater, memory_bytes=256 * 2**20)
    assert result.outcome == "ok", result.stderr
    assert 0 < int(result.stdout.split()[0]) * 10_000_000 < 256 * 2**20


async def test_the_scratch_folder_fills_up_and_nothing_else_can_be_filled() -> None:
    filler = """
import os
def fill(folder):
    written = 0
    try:
        for number in range(1000):
            with open(f"{folder}/{number}", "wb") as file:
                written += file.write(b"x" * 1_000_000)
                file.flush()
    except OSError:
        pass
    return written
print(*[fill(folder) for folder in ("/tmp", "/dev", "/dev/shm", "/", "/code", "/var/tmp")])
"""
    result = await run(filler, disk_bytes=4 * 2**20)
    scratch, *rest = map(int, result.stdout.split())
    assert 2_000_000 < scratch <= 5_000_000
    assert rest == [0] * 5


@pytest.mark.parametrize(
    "source",
    [
        "while True: pass",
        "import threading\ndef work():\n    while True: pass\nthreading.Thread(target=work).start()",
        "import signal, time\nfor n in {*range(1, 65)} - {9, 19, 32, 33}: signal.signal(n, signal.SIG_IGN)\ntime.sleep(99)",
    ],
    ids=["endless_loop", "thread_that_outlives_the_program", "deaf_to_signals"],
)
async def test_what_does_not_end_is_ended_with_all_that_it_started(source: str, goal: Machine) -> None:
    name = f"name-{goal.mark}"
    program = Program({"main.py": source}, "main.py", (name,))
    running = asyncio.create_task(SANDBOX.run(program, stdin="", limits=SandboxLimits(wall_s=0.7)))
    while not running_with(name):  # it can be found while it runs
        assert not running.done()
        await asyncio.sleep(0.02)
    result = await running
    assert (result.outcome, result.exit_code) == ("timeout", -1)
    assert running_with(name) == []


async def test_processor_time_is_bounded_by_the_kernel() -> None:
    result = await run("while True: pass", wall_s=60.0, cpu_s=0)
    assert result.outcome == "failed"
    assert result.exit_code in (128 + 9, 128 + 24)


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
async def test_endless_output_is_cut(stream: str) -> None:
    result = await run(f"import sys\nwhile True: sys.{stream}.write('x' * 1000)", output_bytes=5_000, wall_s=60.0)
    assert result.outcome == "output_limit"
    assert len(getattr(result, stream)) == 5_000


async def test_closing_its_files_ends_a_program_no_later() -> None:
    result = await run("import os\nos.closerange(0, 64)\nos._exit(7)", wall_s=60.0)
    assert (result.outcome, result.exit_code, result.stdout) == ("failed", 7, "")


async def test_input_that_is_never_read_holds_nothing_up() -> None:
    result = await SANDBOX.run(script("print(1)"), stdin="x" * 5_000_000, limits=PATIENT)
    assert (result.outcome, result.stdout) == ("ok", "1\n")
