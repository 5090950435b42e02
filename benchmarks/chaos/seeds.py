"""Several seeds one after the other, each a run in a process of its own; what they found together."""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from recovery import TARGET_P95_S, recovery

COUNTED = (
    "accepted",
    "lost",
    "duplicated",
    "rejected_stale_writes",
    "tokens_sent",
    "tokens_in_ledger",
    "tokens_unaccounted",
    "tokens_lost_with_their_worker",
    "tokens_under_way_when_cut",
    "celery_jobs",
    "celery_sent_again",
    "restarts",
)
"""What is added up over all runs."""
SHOWN = (
    "seed",
    "violations",
    *COUNTED[:4],
    "tokens_unaccounted",
    "recovery_s",
    "seconds",
    "jobs_per_s",
    "load_average",
)
"""What is shown of each run; `--out` keeps all of it."""
END_S = 60.0
"""How long a run may take to put away what it started, when it is broken off."""
SAID_CHARS = 2000


def seeds_of(words: str) -> list[int]:
    """Read `1-10` or `3,7,20-22`. Raises argparse.ArgumentTypeError for anything else."""
    try:
        ends = [[int(end) for end in part.split("-")] for part in words.split(",")]
        seeds = [seed for first, *last in ends for seed in range(first, max(last, default=first) + 1)]
    except ValueError as exc:
        raise argparse.ArgumentTypeError(f"not seeds: {words!r}; say 1-10 or 3,7") from exc
    if not seeds:
        raise argparse.ArgumentTypeError(f"no seeds: {words!r}")
    return seeds


def run_seeds(seeds: list[int], words: list[str], out: Path | None) -> tuple[dict[str, Any], bool]:
    """Run each seed with these other arguments; return the whole and whether all promises were kept.

    Tells of each on standard error as it ends, and appends its report to `out` as a line of JSON. A run that breaks is
    told of with what it said last, and the others go on; after Ctrl-C or SIGTERM the whole is of those that had ended.
    """
    reports: list[dict[str, Any]] = []
    try:
        for seed in seeds:
            reports.append(_run(seed, words))
            _tell(reports[-1], left=len(seeds) - len(reports))
            if out is not None:
                with out.open("a") as file:
                    file.write(json.dumps(reports[-1]) + "\n")
    except KeyboardInterrupt:
        print(f"broken off after {len(reports)} of {len(seeds)} runs", file=sys.stderr)
    kept = len(reports) == len(seeds) and not any("broke" in report or report["violations"] for report in reports)
    return _sum(seeds, reports), kept


def _run(seed: int, words: list[str]) -> dict[str, Any]:
    command = [sys.executable, str(Path(__file__).resolve().parent), *words, "--seed", str(seed)]
    began = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            printed, said = process.communicate()
        except BaseException:
            process.terminate()  # it ends what it started
            process.communicate(timeout=END_S)
            raise
    try:
        return json.loads(printed)
    except ValueError:
        seconds = round(time.monotonic() - began, 1)
        return {"seed": seed, "broke": said[-SAID_CHARS:], "exit_code": process.returncode, "seconds": seconds}


def _tell(report: dict[str, Any], *, left: int) -> None:
    if "broke" in report:
        found = f"broke with exit code {report['exit_code']}: {report['broke']}"
    elif report["violations"]:
        found = "BROKEN PROMISES: " + ", ".join(report["violations"])
    else:
        found = f"{report['accepted']} accepted, all promises kept"
    print(f"seed {report['seed']}: {found}; {report['seconds']} s, {left} to go", file=sys.stderr, flush=True)


def _sum(seeds: list[int], reports: list[dict[str, Any]]) -> dict[str, Any]:
    whole = [report for report in reports if "broke" not in report]
    found = recovery((fault["name"], fault["recovery_s"]) for report in whole for fault in report["faults"])
    late = [kind for kind, target in TARGET_P95_S.items() if kind in found and found[kind]["p95"] > target]
    return {
        "seeds": seeds,
        "ended": len(reports),
        "broke": [report["seed"] for report in reports if "broke" in report],
        "violated": [report["seed"] for report in whole if report["violations"]],
        "totals": {name: sum(report[name] for report in whole) for name in COUNTED},
        "recovery_s": found,
        "recovery_later_than_its_target": late,
        "seconds_at_most": max((report["seconds"] for report in reports), default=0.0),
        "runs": [{name: report[name] for name in SHOWN} if "broke" not in report else report for report in reports],
    }
