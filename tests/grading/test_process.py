"""The worker process: limits that kill, use from threads and asyncio, failures told apart."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from k2think.grading import SymbolicPool, cluster, compare_answers, equivalent, grading_counts, quick
from k2think.schemas.errors import GradingError

MINUTES = r"7^{7^{7^{7}}}"  # exact evaluation does not end in any useful time


@pytest.fixture(scope="module")
def pool() -> Iterator[SymbolicPool]:
    pool = SymbolicPool()
    yield pool
    pool.close()


def same(a: str, b: str, pool: SymbolicPool, limit_s: float = 20) -> bool:
    return asyncio.run(equivalent(a, b, limit_s=limit_s, pool=pool))


def _alive(pid: int) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


def test_time_limit_kills_and_the_next_comparison_works(pool: SymbolicPool) -> None:
    assert same(r"\sqrt{8}", r"2\sqrt{2}", pool)
    (old,) = pool.pids()
    before = grading_counts().get("timeout", 0)

    assert quick(MINUTES, "x+1") is None
    assert not same(MINUTES, "x+1", pool, limit_s=1)

    assert grading_counts()["timeout"] == before + 1
    assert not _alive(old)
    assert same(r"\sqrt{8}", r"2\sqrt{2}", pool)
    assert pool.pids() != [old]


def test_a_process_that_was_kept_from_running_is_waited_for(pool: SymbolicPool) -> None:
    assert same(r"\sqrt{8}", r"2\sqrt{2}", pool)
    (pid,) = pool.pids()
    before = grading_counts().get("timeout", 0)
    os.kill(pid, signal.SIGSTOP)
    asked = pool.submit(r"\sqrt{18}", r"3\sqrt{2}", limit_s=0.5)
    time.sleep(0.8)  # the limit passes, while the process has not run at all
    os.kill(pid, signal.SIGCONT)
    assert asked.result().equal is True
    assert grading_counts().get("timeout", 0) == before
    assert pool.pids() == [pid]


async def test_the_event_loop_goes_on_while_a_comparison_runs(pool: SymbolicPool) -> None:
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.01)
            ticks += 1

    ticking = asyncio.create_task(tick())
    outcome = await compare_answers(MINUTES, "x+1", limit_s=1, pool=pool)
    ticking.cancel()
    assert (outcome.equal, outcome.method, outcome.reason) == (False, "symbolic", "timeout")
    assert ticks >= 5


def test_many_threads_share_one_process(pool: SymbolicPool) -> None:
    with ThreadPoolExecutor(8) as threads:
        verdicts = list(
            threads.map(
                lambda k: same(rf"\sqrt{{{k * k * 2}}}", rf"{k}\sqrt{{2}}", pool),
                range(2, 26),
            )
        )
    assert verdicts == [True] * 24
    assert len(pool.pids()) == 1


def test_memory_of_the_worker_is_bounded(pool: SymbolicPool) -> None:
    outcome = pool.submit(r"9^{9^{10}} x", "x+1", limit_s=10).result()
    assert outcome.equal is not True


def test_python_in_an_answer_is_never_evaluated(pool: SymbolicPool, tmp_path: object) -> None:
    target = f"{tmp_path}/written"
    for attack in (
        f"__import__('os').system('touch {target}')",
        f"$open('{target}','w')$",
        f"\\sqrt{{open('{target}','w')}}",
    ):
        pool.submit(attack, "x+1", limit_s=10).result()
    assert not os.path.exists(target)


def test_a_pair_that_kills_two_workers_is_an_error() -> None:
    pool = SymbolicPool()
    killed: set[int] = set()
    try:
        future = pool.submit(MINUTES, "x+1", limit_s=60)
        while not future.done():
            for pid in set(pool.pids()) - killed:
                os.kill(pid, signal.SIGKILL)
                killed.add(pid)
            time.sleep(0.05)
        with pytest.raises(GradingError, match="died 2 times"):
            future.result()
    finally:
        pool.close()
    assert len(killed) == 2
    assert not any(map(_alive, killed))


async def test_a_worker_that_cannot_start_is_an_error_for_rewards_and_a_separation_for_selection() -> None:
    pool = SymbolicPool(memory_bytes=1 << 20)  # too small for the grammar to warm up
    try:
        with pytest.raises(GradingError, match="did not start"):
            await equivalent(r"\sqrt{8}", r"2\sqrt{2}", pool=pool)
        assert await cluster([r"\sqrt{8}", r"2\sqrt{2}", r"\sqrt{8}"], pool=pool) == [[0, 2], [1]]
    finally:
        pool.close()


def test_a_closed_pool_refuses() -> None:
    pool = SymbolicPool()
    pool.close()
    with pytest.raises(GradingError, match="closed"):
        pool.submit("x", "y")


async def test_cluster_keeps_contradictions_apart(pool: SymbolicPool) -> None:
    assert await cluster(["5", "5 m", "5 s"], pool=pool) == [[0, 1], [2]]
    assert await cluster(["5 m", "5 s", "500 cm"], pool=pool) == [[0, 2], [1]]
    assert await cluster(["1/2", "0.5", r"\frac{\sqrt{4}}{4}", "2"], limit_s=20, pool=pool) == [[0, 1, 2], [3]]
    assert await cluster([], pool=pool) == []


def test_the_worker_ends_with_its_parent() -> None:
    script = (
        "from k2think.grading.symbolic_pool import default_pool\n"
        "import os, sys\n"
        "default_pool().submit('x+y', 'y+x', limit_s=30).result()\n"
        "print(default_pool().pids()[0], flush=True)\n"
        "os._exit(0)\n"  # no atexit: as if killed
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    pid = int(done.stdout)
    for _ in range(500):
        if not _alive(pid) or "Z" in _state(pid):
            return
        time.sleep(0.02)
    pytest.fail("the worker outlived its parent")


def _state(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0]
    except OSError:
        return "Z"


def test_importing_the_package_loads_no_symbolic_library() -> None:
    script = (
        "import asyncio, sys, k2think.grading as g\n"
        "g.quick('1/2', '0.5'); g.extract_answer('5'); asyncio.run(g.equivalent('1', '2'))\n"
        "print([m for m in ('sympy', 'math_verify', 'mpmath', 'latex2sympy2_extended') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
