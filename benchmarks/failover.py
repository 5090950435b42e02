"""A backend of the pool is killed under load, and comes back: how soon its work is elsewhere, and how soon it serves again.

    python benchmarks/failover.py                                # both ways, SQLite
    python benchmarks/failover.py --way pool --database postgresql

Two simulated model servers, a and b, are processes of their own; the stack is `k2think up`. Ways:

    fallback   one generator worker, bound to a, which names b as its fallback; so have planner and verifier
    pool       a generator worker for each of a and b, without fallbacks: what a's worker cannot do, b's pulls

--jobs-at-once jobs are kept in flight. After --before seconds a's process is killed with SIGKILL, after --away further ones it
is started again on its port, and --after seconds later no more jobs are sent. From the SQL log it is then told:

    moved_s      seconds from the kill until the last step that had been running on a ran elsewhere (target: 5)
    returned_s   seconds from a's restart until a step began that a finished (target: 30)
    failed       jobs that did not succeed (target: 0)

Prints one JSON object; exit code 1 when a target is missed.
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Generator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from harness.stack import client_of, free_port  # noqa: E402
from k2think.schemas.jobs import SolveRequest  # noqa: E402
from race.stack import running_stack  # noqa: E402
from sqlalchemy import text  # noqa: E402

MOVED_MAX_S = 5.0
RETURNED_MAX_S = 30.0
WAYS = ("fallback", "pool")
_ATTEMPTS = text(
    "SELECT job_id, step, attempt, backend, outcome, claimed_at, finished_at, left_calls FROM attempts WHERE backend <> ''"
    " ORDER BY job_id, step, attempt"
)


class ModelServer:
    """A simulated model server as a process that can be killed and started again on its port."""

    def __init__(self, *, token_ms: float, slots: int) -> None:
        self.port = free_port()
        self._command = [sys.executable, "-m", "k2think.agents.backends.simulator", "--port", str(self.port)]
        self._command += ["--token-ms", str(token_ms), "--slots", str(slots), "--reasoning-tokens", "60"]
        self._command += ["--truth", "405", "--accuracy", "0.7", "--chunk-tokens", "5"]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Its base URL."""
        return f"http://127.0.0.1:{self.port}/v1"

    def start(self) -> None:
        """Start it and wait until it listens."""
        self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        self._process.stdout.readline()

    def kill(self) -> None:
        """End it as a crash would."""
        if self._process is not None:
            os.kill(self._process.pid, signal.SIGKILL)
            self._process.wait()


@contextlib.contextmanager
def model_servers(count: int, *, token_ms: float, slots: int) -> Generator[list[ModelServer]]:
    """Run some."""
    servers = [ModelServer(token_ms=token_ms, slots=slots) for _ in range(count)]
    for server in servers:
        server.start()
    try:
        yield servers
    finally:
        for server in servers:
            server.kill()


def settings_of(way: str, urls: dict[str, str]) -> dict[str, str]:
    """Return the settings of the stack for one way."""
    backends: dict[str, dict[str, Any]] = {
        name: {"backend": "openai", "base_url": url, "model": "simulated", "first_token_timeout_s": 20}
        for name, url in urls.items()
    }
    roles = {"K2THINK_GENERATOR__BACKEND": "a", "K2THINK_PLANNER__BACKEND": "b", "K2THINK_VERIFIER__BACKEND": "b"}
    if way == "fallback":
        backends["a"]["fallback"] = ["b"]
        roles |= {"K2THINK_PLANNER__BACKEND": "a", "K2THINK_VERIFIER__BACKEND": "a"}
    return {**roles, "K2THINK_BACKENDS": json.dumps(backends)}


async def play(up: Any, victim: ModelServer, arguments: argparse.Namespace) -> dict[str, Any]:
    """Keep jobs in flight while the victim dies and comes back; tell what happened."""
    statuses = Counter[str]()
    moments: dict[str, float] = {}
    async with client_of(up) as session:
        until = time.monotonic() + arguments.before + arguments.away + arguments.after

        async def client(number: int) -> None:
            request = SolveRequest.model_validate({"problem": f"What is {number} + 58?"})
            while time.monotonic() < until:
                accepted = await session.submitter.submit(request)
                result = await session.submitter.wait(accepted.job_id)
                statuses[result.status.value] += 1

        async def fate() -> None:
            await asyncio.sleep(arguments.before)
            moments["killed"] = time.time()
            victim.kill()
            await asyncio.sleep(arguments.away)
            await asyncio.to_thread(victim.start)
            moments["restarted"] = time.time()

        await asyncio.gather(fate(), *(client(number) for number in range(arguments.jobs_at_once)))
        rows = await session.database.read(lambda connection: connection.execute(_ATTEMPTS).all())
    return {"jobs": dict(statuses), "failed": sum(statuses.values()) - statuses["succeeded"], **read(rows, moments)}


def read(rows: list[Any], moments: dict[str, float]) -> dict[str, Any]:
    """Read from the attempts when work moved, and when it came back."""
    killed, restarted = moments["killed"], moments["restarted"]
    by_step: dict[tuple[str, str], list[Any]] = {}
    for row in rows:
        by_step.setdefault((row.job_id, row.step), []).append(row)
    moved: list[float] = []
    for attempts in by_step.values():
        for cut, following in itertools.pairwise(attempts):
            under_way = cut.claimed_at <= killed <= (cut.finished_at or killed)
            if cut.backend == "a" and cut.outcome == "failed" and under_way:
                moved.append(following.claimed_at - killed)
    back = [row.claimed_at for row in rows if row.backend == "a" and row.outcome == "done" and row.claimed_at > killed]
    away = [row for row in rows if killed < row.claimed_at < restarted]
    return {
        "steps_cut": len(moved),
        "moved_s": round(max(moved), 2) if moved else None,
        "returned_s": round(max(0.0, min(back) - restarted), 2) if back else None,
        "steps_while_away": len(away),
        "of_these_by_fallback": sum(row.left_calls is not None for row in away),
        "attempts_failed": sum(row.outcome == "failed" for row in rows),
    }


def met(figures: dict[str, Any]) -> bool:
    """Whether the targets are reached."""
    moved, returned = figures["moved_s"], figures["returned_s"]
    return (
        figures["failed"] == 0
        and moved is not None
        and moved <= MOVED_MAX_S
        and returned is not None
        and returned <= RETURNED_MAX_S
    )


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--way", choices=WAYS, action="append", help="default: both")
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--jobs-at-once", type=int, default=40)
    parser.add_argument("--before", type=float, default=8.0, help="seconds of load before the kill")
    parser.add_argument("--away", type=float, default=15.0, help="seconds that it is away")
    parser.add_argument("--after", type=float, default=30.0, help="seconds of load after its restart")
    parser.add_argument("--token-ms", type=float, default=10.0)
    parser.add_argument("--slots", type=int, default=128)
    arguments = parser.parse_args()
    figures: dict[str, Any] = {}
    for way in arguments.way or WAYS:
        with (
            model_servers(2, token_ms=arguments.token_ms, slots=arguments.slots) as (a, b),
            running_stack(arguments.database, a.url, settings_of(way, {"a": a.url, "b": b.url})) as stack,
        ):
            figures[way] = asyncio.run(play(stack.up, a, arguments))
            figures[way]["met"] = met(figures[way])
            print(f"{way}: {figures[way]}", file=sys.stderr)
    print(json.dumps({"arguments": vars(arguments), "load_average": os.getloadavg()[0], "ways": figures}, indent=2))
    return 0 if all(one["met"] for one in figures.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
