"""How many tests of programs this machine runs a second in the sandbox, and what a run takes.

    python benchmarks/sandbox.py
    python benchmarks/sandbox.py --seconds 10 --concurrency 1 2 4
    K2THINK_SANDBOX__KIND=gvisor python benchmarks/sandbox.py

Three kinds of tests, for --seconds each at each --concurrency: `output` (a program with input and output, a sandbox for each
test), `assertions` (four assertions in one session: two sandboxes), `calls` (--calls calls of one function in one sandbox).
For comparison `interpreter`: starting Python alone, with a program of ours that does nothing. Told are tests a second (of calls:
calls), and the median seconds of a run. Processor time is not told: bubblewrap does not hand on that of what it ran. Prints one
JSON object.
"""

import argparse
import asyncio
import json
import os
import statistics
import sys
import time
from collections.abc import Awaitable, Callable

from k2think.grading import trials
from k2think.grading.rewards.code import same_output
from k2think.grading.sandboxes.choice import choose
from k2think.grading.trials import Call, try_assertions, try_calls, try_output
from k2think.schemas.sandbox_settings import SandboxSettings
from k2think.schemas.settings import read_settings

ADD = "def add(a, b):\n    return a + b"
Work = Callable[[], Awaitable[int]]
"""One run; returns how many tests it was."""


async def output() -> int:
    """One test of a program that reads and prints."""
    result = await try_output("print(sum(map(int, input().split())))", "1 2\n", "3\n", same=same_output)
    return _passed([result.passed])


async def assertions() -> int:
    """Four assertions, counted as one test: that is how data sets hold them."""
    results = await try_assertions(ADD, [f"assert add({n}, 1) == {n + 1}" for n in range(4)])
    return min(1, _passed([result.passed for result in results]))


def calls(number: int) -> Work:
    """Return a run of this many calls."""

    async def run() -> int:
        results = await try_calls(ADD, "add", [Call((n, 1), (n + 1,)) for n in range(number)])
        return _passed([result.passed for result in results])

    return run


async def interpreter() -> int:
    """Start Python and end it."""
    process = await asyncio.create_subprocess_exec(os.path.realpath(sys.executable), "-I", "-S", "-B", "-c", "pass")
    return 1 if await process.wait() == 0 else 0


def _passed(results: list[bool]) -> int:
    if not all(results):
        raise SystemExit("a test failed that cannot fail: the figures would mean nothing")
    return len(results)


async def measure(work: Work, seconds: float, at_once: int) -> dict[str, float]:
    """Run it again and again, this many at once."""
    ends, took, tests = time.monotonic() + seconds, list[float](), 0
    began = time.monotonic()

    async def one_after_another() -> None:
        nonlocal tests
        while time.monotonic() < ends:
            start = time.monotonic()
            done = await work()
            tests += done
            took.append(time.monotonic() - start)

    await asyncio.gather(*(one_after_another() for _ in range(at_once)))
    wall = time.monotonic() - began
    return {
        "tests_per_s": round(tests / wall, 1),
        "runs": len(took),
        "median_run_s": round(statistics.median(took), 4),
    }


async def run(arguments: argparse.Namespace) -> dict[str, object]:
    """Measure all."""
    settings = read_settings().sandbox
    kinds: dict[str, Work] = {
        "interpreter": interpreter, "output": output, "assertions": assertions, "calls": calls(arguments.calls),
    }  # fmt: skip
    figures: dict[str, dict[str, dict[str, float]]] = {name: {} for name in kinds}
    chosen = choose(settings)
    for at_once in arguments.concurrency:
        bounded = choose(SandboxSettings(**{**settings.model_dump(), "concurrency": at_once}))
        trials.require_sandbox = lambda bounded=bounded: bounded
        for name, work in kinds.items():
            figures[name][f"{at_once}_at_once"] = await measure(work, arguments.seconds, at_once)
    return {
        "sandbox": str(chosen.kind),
        "cores": os.cpu_count(),
        "load_average_before": arguments.load,
        "calls_per_run": arguments.calls,
        "figures": figures,
    }


def main() -> None:
    """Read the command line and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--calls", type=int, default=50)
    arguments = parser.parse_args()
    arguments.load = [round(load, 2) for load in os.getloadavg()]
    print(json.dumps(asyncio.run(run(arguments)), indent=2))


if __name__ == "__main__":
    main()
