"""Does the harness notice? Each planted fault in a short run of its own, and the rule by which it must be caught."""

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TIMEOUT_S = 240.0


@dataclass(frozen=True)
class Planted:
    """How a planted fault is brought to light."""

    words: str
    """Arguments of the run."""
    rule: str
    """The rule that it must be found to break."""


RUNS = {
    "claim_without_a_lease": Planted("--only kill:all-1 --token-ms 20", "a job has no end"),
    "missing_fence": Planted("--faults 0 --token-ms 120", "a result is not of the newest attempt alone"),
    "publish_before_commit": Planted("--only kill:gateway", "an accepted job is lost"),
    "missing_unique_key": Planted("--faults 0", "one idempotency key has several jobs"),
    "sweeper_off": Planted("--only kill:all-1 --token-ms 20", "a job has no end"),
    "cancel_ignored": Planted("--faults 0 --token-ms 20", "a cancelled job had not ended"),
    "streams_left_open": Planted("--faults 0 --token-ms 400", "a stream stayed open after its job's end"),
    "tokens_forgotten": Planted("--faults 0 --token-ms 40", "tokens are unaccounted"),
    "secret_logged": Planted("--faults 0", "a secret is in a log"),
    "attempts_unbounded": Planted("--faults 0 --killers 1 --drain 60", "a step ran too often"),
    "batch_line_twice": Planted("--faults 0 --drain 10", "there are jobs that nobody sent"),
}
"""By the planted fault's name."""


def self_test(names: list[str]) -> dict[str, Any]:
    """Plant one after the other; return what became of each. Tells of each on standard error as it comes."""
    tried: dict[str, Any] = {}
    for name in names:
        tried[name] = _try(name, RUNS[name])
        said = "caught" if tried[name]["caught"] else "MISSED"
        print(f"{name}: {said} in {tried[name]['seconds']} s", file=sys.stderr, flush=True)
    return tried


def _try(name: str, planted: Planted) -> dict[str, Any]:
    command = [
        sys.executable,
        str(Path(__file__).resolve().parent),
        "--plant",
        name,
        "--roles",
        "small",
        "--jobs",
        "40",
    ]
    command += ["--killers", "0", "--every", "2", "--pause", "0.1", "--drain", "40", *planted.words.split()]
    began = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    broken = json.loads(done.stdout)["violations"] if done.stdout else {}
    return {
        "caught": done.returncode == 1 and planted.rule in broken,
        "rule": planted.rule,
        "broken": {rule: found["count"] for rule, found in broken.items()},
        "seconds": round(time.monotonic() - began, 1),
        **({} if broken else {"said": done.stderr[-2000:]}),
    }
