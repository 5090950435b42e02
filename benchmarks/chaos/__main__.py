"""Nothing lost under fire: a whole stack, its services and its clients, with one fault after the other.

    python benchmarks/chaos --jobs 1000 --seed 1 --db postgresql
    python benchmarks/chaos --seeds 1-10 --db postgresql --out runs.jsonl

Starts everything for itself, on private ports and sockets: redis-server, SQLite or PostgreSQL, a simulated model server
that counts every token it sends, a TCP proxy before each, and the roles of k2think under the supervisor of `k2think up`.
Prints one JSON object; the exit code is 1 when a promise was broken. The same seed draws the same load and faults again.
"""

import argparse
import asyncio
import json
import logging
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1] / "tests")]

from clock import RUN_MAX_S, Clocks, clear_shared_memory, find_library  # noqa: E402
from faults import Injected, draw, faults_for, inject, kill_for_poison  # noqa: E402
from invariants import Verdict, check, read_rows  # noqa: E402
from k2think.schemas.messages import AgentKind  # noqa: E402
from k2think.workers.queues import list_keys  # noqa: E402
from load import BATCH_FINAL, Ledger, Load  # noqa: E402
from planted import PLANTS  # noqa: E402
from process_faults import TERM_MAX_S  # noqa: E402
from recovery import note_recovery, percentiles, recovery  # noqa: E402
from seeds import run_seeds, seeds_of  # noqa: E402
from self_test import RUNS, self_test  # noqa: E402
from small_disk import own_mounts, unmount  # noqa: E402
from sqlalchemy import text  # noqa: E402
from stack import ROLES, Stack  # noqa: E402

SETTLE_S = 15.0
"""How long the last reports may take once all jobs have ended."""
POLL_S = 0.25
_OPEN_JOBS = text("SELECT count(*) FROM jobs WHERE status IN ('queued', 'running')")
_OPEN_BATCHES = text(
    f"SELECT count(*) FROM batches WHERE status NOT IN ({', '.join(repr(status) for status in BATCH_FINAL)})"  # noqa: S608
)
_OPEN_ATTEMPTS = text("SELECT count(*) FROM attempts WHERE outcome = 'running'")


async def run(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Run it; return the report."""
    small = own_mounts()
    stack = Stack(folder, options.db, ROLES[options.roles], options.plant, options.seed, options.token_ms / 1000, small)
    os.chdir(folder)  # away from any .env
    try:
        chance = random.Random(f"faults/{options.seed}")
        names: list[str] = options.only or draw(list(faults_for(stack)), options.faults, chance)
        library = find_library()
        if library is not None and any(name.startswith("clock:") for name in names):
            stack.clocks = Clocks(folder / "clocks", library)
        await stack.start()
        return await _run(options, stack, names, chance)
    finally:
        await stack.stop()
        os.chdir(HERE)
        if stack.clocks is not None:
            clear_shared_memory()
        if small:
            if options.keep is not None:
                kept = stack.disk.with_name(f"{stack.disk.name}_kept")
                shutil.copytree(stack.disk, kept, ignore=shutil.ignore_patterns(".s.*"))
            unmount(stack.disk)


async def _run(options: argparse.Namespace, stack: Stack, names: list[str], chance: random.Random) -> dict[str, Any]:
    known = faults_for(stack)
    # There is load as long as there are faults.
    seconds = max(options.jobs * options.pause, sum(0.75 * options.every + known[name].lasts_s for name in names), 2.0)
    load = Load(
        jobs=options.jobs,
        killers=options.killers,
        seconds=seconds,
        seed=options.seed,
        url=stack.url,
        key=stack.api_key,
        redis_url=stack.redis_url,
        ledger=Ledger(stack.folder / "ledger.jsonl"),
    )
    phases = {"start": time.monotonic() - stack.began}
    began = time.monotonic()
    async with load:
        poison = asyncio.ensure_future(kill_for_poison(stack))
        try:
            sending = asyncio.ensure_future(load.run())
            injected = await inject(stack, names, every_s=options.every, chance=chance)
            await stack.heal()
            phases["faults"] = time.monotonic() - began
            drained = await _drain(stack, sending, deadline_s=options.drain)
        finally:
            poison.cancel()
        lasted = time.monotonic() - began
        phases["drain"] = lasted - phases["faults"]
        if drained:
            await asyncio.gather(*(load.collect_batch(batch) for batch in load.batches))
        sending.cancel()
    rows = await stack.database.read(read_rows)
    verdict = check(stack, load, rows, injected)
    verdict.require(drained, "the work did not come to an end", f"not within {options.drain:g} s after the last fault")
    await _check_quiet(verdict, stack)
    told_apart = stack.clocks is None or lasted < RUN_MAX_S
    verdict.require(told_apart, "the run was too long to tell times of clocks that jumped", f"{lasted:.0f} s")
    for role, seconds in stack.ends:
        verdict.require(seconds <= TERM_MAX_S, "a process did not end when it was told to", role)
    note_recovery(injected, rows)
    checked = time.monotonic()
    await stack.stop_children()
    phases["stop"] = time.monotonic() - checked
    for role in (*stack.roles, "supervisor"):
        for name, secret in stack.secrets.items():
            verdict.require(secret not in stack.log(role), "a secret is in a log", f"{name} in that of {role}")
    verdict.figures |= {
        "celery_jobs": sum(job.celery for job in load.jobs),
        "celery_sent_again": sum(max(0, job.asked - 1) for job in load.jobs),
        "jobs_per_s": round(len(rows.jobs) / lasted, 1),
        "seconds": round(time.monotonic() - stack.began, 1),
        "seconds_by_phase": {phase: round(spent, 1) for phase, spent in phases.items()},
    }
    return _report(options, stack, injected, verdict)


async def _drain(stack: Stack, sending: "asyncio.Future[None]", *, deadline_s: float) -> bool:
    """Wait until nothing is left to do and everything is reported; False = it does not come to that."""
    deadline = time.monotonic() + deadline_s
    settled_by: float | None = None
    while time.monotonic() < deadline:
        jobs, batches, attempts = await stack.database.read(
            lambda conn: [conn.execute(query).scalar_one() for query in (_OPEN_JOBS, _OPEN_BATCHES, _OPEN_ATTEMPTS)]
        )
        if sending.done() and not jobs and not batches:
            settled_by = settled_by or time.monotonic() + SETTLE_S
            if not attempts and not stack.engine.open_streams and not await _waiting(stack):
                # The last words of stopped work come a moment after its stream has closed.
                await asyncio.sleep(1)
                return True
            if time.monotonic() > settled_by:
                return True
        await asyncio.sleep(POLL_S)
    return False


async def _waiting(stack: Stack) -> int:
    keys = [key for agent in AgentKind for key in list_keys(agent.value)]
    async with stack.redis.client() as client, client.pipeline(transaction=False) as pipeline:
        for key in keys:
            pipeline.llen(key)
        return sum(await pipeline.execute())


async def _check_quiet(verdict: Verdict, stack: Stack) -> None:
    waiting = await _waiting(stack)
    verdict.require(not waiting, "messages are left in the queues", waiting)
    verdict.require(not stack.engine.open_streams, "streams are left open", stack.engine.open_streams)


def _report(options: argparse.Namespace, stack: Stack, injected: list[Injected], verdict: Verdict) -> dict[str, Any]:
    return {
        "seed": options.seed,
        "db": options.db,
        "jobs": options.jobs,
        "plant": options.plant,
        "violations": verdict.shown(),
        **verdict.figures,
        "recovery_s": recovery((fault.name, fault.recovery_s) for fault in injected),
        "end_when_told_s": percentiles([seconds for _role, seconds in stack.ends]) if stack.ends else {},
        "faults": [asdict(fault) for fault in injected],
        "faults_left_out": stack.left_out,
        "restarts": sum(stack.count_restarts().values()),
        "peak_memory_mb": stack.peak_mb,
        "cpus": os.cpu_count(),
        "load_average": [round(value, 1) for value in os.getloadavg()],
    }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=1000, help="jobs sent one by one (default: 1000)")
    parser.add_argument("--faults", type=int, default=30, help="faults drawn by the seed (default: 30)")
    parser.add_argument(
        "--only", type=lambda words: words.split(","), help="these faults, in this order: kill:sweeper,…"
    )
    parser.add_argument("--every", type=float, default=3.0, help="seconds between two faults at most (default: 3)")
    parser.add_argument("--pause", type=float, default=0.1, help="seconds between two jobs at least (default: 0.1)")
    parser.add_argument("--drain", type=float, default=120.0, help="seconds for the rest after the last fault")
    parser.add_argument("--seed", type=int, default=1, help="draws the load and the faults (default: 1)")
    parser.add_argument(
        "--seeds", type=seeds_of, help="these seeds one after the other, and their sum: 1-10, or 3,7 (not with --keep)"
    )
    parser.add_argument("--out", type=Path, help="file to append the whole report of each run to, a line of JSON each")
    parser.add_argument("--db", choices=["sqlite", "postgresql"], default="sqlite")
    parser.add_argument("--roles", choices=list(ROLES), default="full", help="a process per role, or two of all roles")
    parser.add_argument("--plant", choices=list(PLANTS), help="break a promise on purpose: this must be noticed")
    parser.add_argument("--killers", type=int, default=2, help="jobs that kill their worker each time (default: 2)")
    parser.add_argument("--token-ms", type=float, default=1.0, help="the model's milliseconds per token (default: 1)")
    parser.add_argument("--keep", type=Path, help="empty folder to use and keep, logs and database in it")
    parser.add_argument(
        "--self-test",
        metavar="NAMES",
        help=f"break these promises one after the other and see that each is noticed: all, or some of {', '.join(RUNS)}",
    )
    options = parser.parse_args()
    if options.out is not None:
        options.out = options.out.absolute()
    if options.seeds is not None and options.keep is not None:
        parser.error("--keep holds one run only: say --seed")
    return options


def _words_of_a_run(options: argparse.Namespace) -> list[str]:
    """The arguments of each of several runs."""
    words = ["--db", options.db, "--roles", options.roles]
    words += [] if options.only is None else ["--only", ",".join(options.only)]
    words += [] if options.plant is None else ["--plant", options.plant]
    for name in ("jobs", "faults", "every", "pause", "drain", "killers", "token_ms"):
        words += [f"--{name.replace('_', '-')}", str(getattr(options, name))]
    return words


def _interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def main() -> int:
    """Entry point."""
    options = _options()
    signal.signal(signal.SIGTERM, _interrupted)
    # Broken connections are what this is about: the simulated server need not tell of each.
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)
    for name in [name for name in os.environ if name.startswith(("K2THINK_", "CEREBRAS_"))]:
        del os.environ[name]
    if options.self_test is not None:
        tried = self_test(list(RUNS) if options.self_test == "all" else options.self_test.split(","))
        print(json.dumps(tried, indent=2))
        return 0 if all(one["caught"] for one in tried.values()) else 1
    if options.seeds is not None:
        whole, kept = run_seeds(options.seeds, _words_of_a_run(options), options.out)
        print(json.dumps(whole, indent=2))
        return 0 if kept else 1
    if options.keep is not None:
        options.keep.mkdir(parents=True, exist_ok=True)
        report = asyncio.run(run(options, options.keep.absolute()))
    else:
        # The path of a socket must be short.
        with tempfile.TemporaryDirectory(prefix="k2chaos-", ignore_cleanup_errors=True) as folder:
            report = asyncio.run(run(options, Path(folder)))
    print(json.dumps(report, indent=2))
    if options.out is not None:
        with options.out.open("a") as file:
            file.write(json.dumps(report) + "\n")
    if report["violations"]:
        print(f"Broken promises; see them again with --seed {options.seed} --db {options.db}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
