"""The race: k2think through its HTTP door against a bare script without durability, on one simulated engine.

    python benchmarks/throughput.py                                    # profile real, 64 jobs at once, SQLite
    python benchmarks/throughput.py --profile real --at-once 256 --database sqlite --database postgresql

The engine (slots, milliseconds per token, log-normal lengths, a hidden truth), the bare script, the client of our door and
our whole stack (`k2think up`: one process per role) are separate processes on this machine; rounds alternate, so what else
runs here meets all alike. The bare script asks for plain replies, the least work there is; k2think always streams, in
chunks of ten tokens by default, since an engine written in Python would else need more than this machine for itself. The door is POST /v1/chat/completions. Tokens are those that the engine sent, by its own ledger:
generated ones, also of calls that were broken off (`wasted`). CPU of the client of our door is not ours and told apart.
Prints one JSON object on standard output and a table on standard error.
"""

import argparse
import itertools
import json
import os
import platform
import subprocess
import sys
import time
import urllib.request
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from race.exam import Exam  # noqa: E402
from race.figures import Tally, ratios, rounded, table  # noqa: E402
from race.stack import Stack, running_stack  # noqa: E402

IDEAL = "ideal"
WARM_UP_JOBS = 32
"""Jobs that every runner does first, for nothing: engines are loaded and connections made by them."""
SETTLE_S = 15.0
"""Longest wait for streams that were cancelled to be closed, after a round."""
EXAM = Exam(right=0.75, judged=0.8, tokens=200.0, spread=0.5, tail=0.0)


@dataclass(frozen=True)
class Profile:
    """What a race is run on."""

    about: str
    at_once: tuple[int, ...]
    """Jobs in flight; each is a race of its own."""
    jobs: int
    """Jobs of a round at least; never fewer than are in flight."""
    slots: int = 64
    token_ms: float = 5.0
    exam: Exam = EXAM
    with_ideal: bool = True
    settings: dict[str, str] = field(default_factory=dict[str, str])
    """Of our stack, on top of the defaults."""
    policy: dict[str, Any] = field(default_factory=dict[str, Any])
    """What our requests ask for, on top of the defaults."""


PROFILES = {
    "real": Profile("64 slots, 5 ms per token, outputs of about 200 tokens", (64, 256), 192),
    "fast": Profile("an engine that costs nothing: pure overhead", (64,), 256, 1_000, 0.0, replace(EXAM, tokens=20.0)),
    "hop": Profile(
        "an idle stack, one job at a time, all candidates agree: four hops, no judge",
        (1,), 60, 1_000, 0.0, replace(EXAM, right=1.0, tokens=20.0),
    ),
    "tail": Profile(
        "one candidate in twenty is ten times as long; ours takes what it has after 6 s",
        (64,), 192, exam=replace(EXAM, tail=0.05), policy={"soft_timeout_s": 6},
    ),
    "long": Profile(
        "1,000 streams in flight in one generator process", (600,), 600, 2_000, 50.0,
        settings={"K2THINK_GENERATOR__CONCURRENCY": "1000"},
    ),
    "overload": Profile(
        "ten times as many clients as jobs are accepted: the others are refused and come again",
        (64, 640), 192, with_ideal=False, settings={"K2THINK_QUEUE_MAX": "64"},
    ),
}  # fmt: skip


@contextmanager
def running_engine(profile: Profile, *, chunk: int = 1) -> Generator[tuple[str, str]]:
    """Yield the URLs of a simulated engine and of its ledger."""
    options = {"exam": asdict(profile.exam), "slots": profile.slots, "token_ms": profile.token_ms, "chunk": chunk}
    engine = subprocess.Popen(_module("engine", options), cwd=ROOT / "benchmarks", stdout=subprocess.PIPE, text=True)
    try:
        assert engine.stdout is not None
        url, ledger = json.loads(engine.stdout.readline())
        yield url, ledger
    finally:
        engine.terminate()
        engine.wait()


def race(
    profile: Profile,
    *,
    at_once: int,
    jobs: int,
    rounds: int,
    databases: list[str],
    seed: int,
    chunk: int,
    plain: bool,
    versions: list[str],
) -> dict[str, Any]:
    """Run all rounds; return the rows by runner."""
    with ExitStack() as resources:
        url, ledger_url = resources.enter_context(running_engine(profile, chunk=chunk))
        stacks: dict[str, Stack] = {}
        for version, name in itertools.product([None, *versions], databases):
            settings = profile.settings if version is None else {**profile.settings, "PYTHONPATH": version}
            runner = name if version is None else f"{name} in {version}"
            stacks[runner] = resources.enter_context(running_stack(name, url, settings))
        runners = [*([IDEAL] if profile.with_ideal else []), *stacks]
        tallies = {name: Tally() for name in runners}
        ideal = "ideal" if plain else "ideal_streaming"

        def one_round(name: str, jobs: int, at_once: int, seed: int) -> Any:
            return run_round(
                ideal, stacks.get(name), url, ledger_url, policy=profile.policy, jobs=jobs, at_once=at_once, seed=seed
            )

        for name in runners:
            one_round(name, WARM_UP_JOBS, WARM_UP_JOBS, seed - 1)
        for number in range(rounds):
            for name in runners if number % 2 == 0 else reversed(runners):
                tallies[name].add(*one_round(name, jobs, at_once, seed + number))
        for name, stack in stacks.items():
            tallies[name].peak_mb = stack.peak_mb()
    rows = {name: tally.figures() for name, tally in tallies.items()}
    for name in stacks:
        if profile.with_ideal:
            rows[name]["of_ideal"] = ratios(rows[name], rows[IDEAL])
    return rows


def run_round(
    ideal: str,
    stack: Stack | None,
    engine_url: str,
    ledger_url: str,
    *,
    policy: dict[str, Any],
    jobs: int,
    at_once: int,
    seed: int,
) -> tuple[dict[str, Any], dict[str, Any], dict[str, float]]:
    """Run one round; return the client's outcome, the engine's ledger, and the CPU seconds of each process."""
    _fetch(f"{ledger_url}/begin", str(seed))
    options = {
        "runner": ideal if stack is None else "k2think",
        "url": engine_url if stack is None else stack.up.url,
        "policy": policy,
        "jobs": jobs,
        "at_once": at_once,
        "seed": seed,
    }
    before = stack.cpu_s() if stack is not None else {}
    done = subprocess.run(
        _module("client", options), cwd=ROOT / "benchmarks", stdout=subprocess.PIPE, text=True, check=True
    )
    outcome = json.loads(done.stdout)
    ledger = _settled(ledger_url)
    after = stack.cpu_s() if stack is not None else {IDEAL: outcome["cpu_s"]}
    return outcome, ledger, {process: seconds - before.get(process, 0.0) for process, seconds in after.items()}


def _settled(ledger_url: str) -> dict[str, Any]:
    end = time.monotonic() + SETTLE_S
    while True:
        ledger = json.loads(_fetch(f"{ledger_url}/ledger"))
        if not ledger["open"] or time.monotonic() > end:
            return ledger
        time.sleep(0.05)


def _fetch(url: str, body: str | None = None) -> bytes:
    data = None if body is None else body.encode()
    with urllib.request.urlopen(urllib.request.Request(url, data=data), timeout=30) as response:  # noqa: S310
        return response.read()


def _module(name: str, options: dict[str, Any]) -> list[str]:
    return [sys.executable, "-m", f"race.{name}", json.dumps(options)]


def commit() -> str:
    """Return what is checked out, in words."""
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return done.stdout.strip()


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    about = "; ".join(f"{name}: {profile.about}" for name, profile in PROFILES.items())
    parser.add_argument("--profile", choices=PROFILES, default="real", help=about)
    parser.add_argument("--at-once", type=int, help="jobs in flight (default: the first of the profile)")
    parser.add_argument("--jobs", type=int, help="jobs of a round (default: the profile's)")
    parser.add_argument("--rounds", type=int, default=2, help="rounds of each runner, in turn (default: 2)")
    parser.add_argument("--database", action="append", choices=("sqlite", "postgresql"), help="default: sqlite")
    parser.add_argument("--chunk", type=int, default=10, help="tokens per chunk of the engine's streams (default: 10)")
    parser.add_argument(
        "--version", action="append", default=[], metavar="FOLDER", help="race the k2think in this folder, too"
    )
    parser.add_argument("--ideal-streams", action="store_true", help="the bare script asks for streams, too")
    parser.add_argument("--seed", type=int, default=1, help="of lengths and truths")
    options = parser.parse_args()
    profile = PROFILES[options.profile]
    at_once = options.at_once or profile.at_once[0]
    jobs = options.jobs or max(profile.jobs, at_once)
    databases = options.database or ["sqlite"]
    load_before = os.getloadavg()
    rows = race(
        profile,
        at_once=at_once,
        jobs=jobs,
        rounds=options.rounds,
        databases=databases,
        seed=options.seed,
        chunk=options.chunk,
        plain=not options.ideal_streams,
        versions=options.version,
    )
    report = {
        "profile": options.profile,
        "at_once": at_once,
        "jobs_per_round": jobs,
        "rounds": options.rounds,
        "engine": {
            "slots": profile.slots,
            "token_ms": profile.token_ms,
            "chunk_tokens": options.chunk,
            **asdict(profile.exam),
        },
        "policy": profile.policy,
        "commit": commit(),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
        "load_average": {"before": load_before, "after": os.getloadavg()},
        "ideal_streams": options.ideal_streams,
        "runners": rows,
    }
    print(json.dumps(rounded(report), indent=2))
    print(table(f"{options.profile}, {at_once} at once, {options.rounds} rounds of {jobs}", rows), file=sys.stderr)


if __name__ == "__main__":
    main()
