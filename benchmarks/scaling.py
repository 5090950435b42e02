"""What more worker processes bring: jobs per second and p95 over 1, 2 and 4 processes of each role, on the simulated engine.

    python benchmarks/scaling.py                                     # limited, PostgreSQL
    python benchmarks/scaling.py --profile free --database sqlite

In profile `limited` a process runs eight calls at once, as one bound to a small engine or a quota does, and a call takes
about a second: throughput should grow with the processes until this machine's cores are busy. In profile `free` calls
cost nothing and a process runs a hundred at once: all that is left is our own CPU, which more processes do not make less.
The stack is that of throughput.py (`k2think up`, one process of each role) with further workers beside it; sweeper and
gateway stay one. `cores_busy` are the CPU seconds of all our processes, of the engine and of the client by wall time: where it is
near the machine's cores, the machine is the limit. Prints one JSON object on standard output and a table on standard error.
"""

import argparse
import json
import os
import platform
import signal
import sys
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from harness.processes import STOP_TIMEOUT_S, RunningCommand
from k2think.workers.redis_server import broker_url_of, socket_path
from race.figures import Tally, rounded
from race.stack import Stack, running_stack
from throughput import EXAM, PROFILES, WARM_UP_JOBS, Profile, commit, run_round, running_engine

ROLES = ("planner", "generator", "verifier", "safety")
COUNTS = (1, 2, 4)
SCALED = {
    "limited": Profile(
        "eight calls at once in a process, about a second each",
        (64,), 96, 1_000, 20.0, replace(EXAM, tokens=50.0, spread=0.2),
        settings={"K2THINK_GENERATOR__CONCURRENCY": "8"},
    ),
    "free": PROFILES["fast"],
}  # fmt: skip


@contextmanager
def with_workers(stack: Stack, count: int) -> Generator[Stack]:
    """Yield the stack with `count` processes of each role that works on steps."""
    environment = {**stack.up.environment, "K2THINK_BROKER_URL": broker_url_of(socket_path(stack.up.folder))}
    more = [
        RunningCommand(stack.up.folder, f"{role}-{number}", ("worker", role), environment)
        for number in range(2, count + 1)
        for role in ROLES
    ]
    try:
        for command in more:
            command.wait_for("worker_started")
        yield replace(stack, servers={**stack.servers, **{one.name: one.process.pid for one in more}})
    finally:
        for command in more:
            command.process.send_signal(signal.SIGTERM)
        for command in more:
            command.process.wait(STOP_TIMEOUT_S)


def scale(profile: Profile, *, database: str, rounds: int, jobs: int, at_once: int, seed: int) -> dict[str, Any]:
    """Measure each count of processes, one after the other; return the rows by count."""
    rows: dict[str, Any] = {}
    with running_engine(profile, chunk=10) as (url, ledger_url):
        for count in COUNTS:
            with ExitStack() as resources:
                stack = resources.enter_context(running_stack(database, url, profile.settings))
                stack = resources.enter_context(with_workers(stack, count))
                tally = Tally()

                def one(jobs: int, at_once: int, seed: int, *, stack: Stack = stack) -> Any:
                    return run_round(
                        "", stack, url, ledger_url, policy=profile.policy, jobs=jobs, at_once=at_once, seed=seed
                    )

                one(WARM_UP_JOBS, WARM_UP_JOBS, seed - 1)
                load = os.getloadavg()
                for number in range(rounds):
                    tally.add(*one(jobs, at_once, seed + number))
            figures = tally.figures()
            wanted = ("jobs", "failed", "refused", "jobs_per_s", "p50_s", "p95_s", "calls_per_job", "cpu_ms_per_job")
            cpu_s = sum(tally.cpu_s.values()) + tally.engine_cpu_s + tally.client_cpu_s
            rows[str(count)] = {name: figures[name] for name in wanted} | {
                "cores_busy": cpu_s / tally.wall_s,
                "load_average_before": load,
            }
    return rows


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    about = "; ".join(f"{name}: {profile.about}" for name, profile in SCALED.items())
    parser.add_argument("--profile", choices=SCALED, default="limited", help=about)
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="postgresql")
    parser.add_argument("--rounds", type=int, default=2, help="rounds of each count (default: 2)")
    parser.add_argument("--jobs", type=int, help="jobs of a round (default: the profile's)")
    parser.add_argument("--at-once", type=int, default=64, help="jobs in flight (default: 64)")
    parser.add_argument("--seed", type=int, default=1, help="of lengths and truths")
    options = parser.parse_args()
    profile = SCALED[options.profile]
    rows = scale(
        profile,
        database=options.database,
        rounds=options.rounds,
        jobs=options.jobs or profile.jobs,
        at_once=options.at_once,
        seed=options.seed,
    )
    report = {
        "profile": options.profile,
        "about": profile.about,
        "database": options.database,
        "at_once": options.at_once,
        "commit": commit(),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
        "load_average_after": os.getloadavg(),
        "processes_per_role": rows,
    }
    print(json.dumps(rounded(report), indent=2))
    print(f"{'processes':>9} {'jobs/s':>7} {'p50 s':>7} {'p95 s':>7} {'CPU ms':>7} {'cores':>6}", file=sys.stderr)
    for count, row in rows.items():
        print(
            f"{count:>9} {row['jobs_per_s']:>7.2f} {row['p50_s']:>7.2f} {row['p95_s']:>7.2f} "
            f"{row['cpu_ms_per_job']:>7.1f} {row['cores_busy']:>6.2f}",
            file=sys.stderr,
        )


if __name__ == "__main__":
    main()
