"""What the limits that all workers share are worth: many processes against one limited server, with them and without.

    python benchmarks/limiter.py                          # 20 processes, a minute a run, all ways: nine minutes
    python benchmarks/limiter.py --quota tokens --way learned --seconds 300
    python benchmarks/limiter.py --way configured --refill sliding --rate-headers none   # a server that tells nothing
    python benchmarks/limiter.py --cost                   # of a turn that need not be waited for

One simulated server keeps a quota as Cerebras does: a bucket that holds a minute's worth and fills all the time; in tokens,
prompt and max_tokens are taken up front and what was not used is put back. The processes call it over HTTP as our workers do
(`call_model`, the openai backend, its retries), each with more callers than the quota lets through, and share the limits
through one real redis-server. Ways:

    none          no limits kept: a refused call waits for its Retry-After and comes again
    configured    K2THINK_…__REQUESTS_PER_MINUTE or __TOKENS_PER_MINUTE is what the server has
    learned       K2THINK_…__ADAPTIVE only: the limits are learned from the server's headers

What is told, per run:

    refused_share       tries that the server refused with 429, of all tries (to be < 1 %)
    reached             what was let through, of all that the bucket gave from its first second: a minute's worth and what
                        filled in since (to be >= 95 %); of tokens, those really used
    reached_steady      the same in the second half of the run, when the first minute's worth is spent: of the rate alone
    wait_s              how long calls waited for their turn: mean and the worst process's longest
    cpu_ms_per_call     CPU of the calling process for one call, HTTP and all

Prints one JSON object on standard output and a table on standard error. Run it on an idle machine.
"""

import argparse
import asyncio
import contextlib
import json
import logging
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

from k2think.agents.backends.openai import OpenAIBackend
from k2think.agents.backends.simulator import (
    CallOutcome,
    RateHeaders,
    Refill,
    ServerRates,
    SimulatedEngine,
    SimulatedServer,
    SolvingResponder,
)
from k2think.agents.call import call_model
from k2think.agents.limits import UNLIMITED
from k2think.schemas.backend_settings import BackendSettings
from k2think.schemas.completion import ChatMessage, CompletionRequest
from k2think.schemas.errors import BackendError
from k2think.schemas.trace import CallTrace
from k2think.workers.limits import RedisLimiter, limiter_of
from k2think.workers.redis_server import broker_url_of, redis_child, socket_path, wait_until_up

WAYS = ("none", "configured", "learned")
QUOTAS = {"requests": "requests_per_minute", "tokens": "tokens_per_minute"}
PER_MINUTE = {"requests": 600, "tokens": 120_000}
MAX_TOKENS = 400
"""Taken up front; a reply has about half."""
REASONING_TOKENS = 180
TOKEN_S = 0.005
CHUNK_TOKENS = 20
PROBLEM = "What is 347 + 58? Show the steps of the addition, digit by digit, and check the result by subtracting."
START_S = 60.0
COST_TURNS = 3_000


async def serve(options: dict[str, Any]) -> None:
    """Run the limited server until standard input ends; then tell what it saw."""
    # Clients that leave at the end are no news.
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)
    per_minute = options["per_minute"]
    rates = ServerRates(
        **{QUOTAS[options["quota"]]: per_minute},
        refill=Refill(options["refill"]),
        headers=RateHeaders(options["rate_headers"]),
    )
    responder = SolvingResponder(reasoning_tokens=REASONING_TOKENS)
    engine = SimulatedEngine(token_s=TOKEN_S, chunk_tokens=CHUNK_TOKENS)
    async with SimulatedServer(responder, engine=engine, rates=rates) as server:
        print(server.url, flush=True)
        began, seconds = map(float, (await asyncio.to_thread(sys.stdin.readline)).split())
        await asyncio.to_thread(sys.stdin.read)
        calls = [call for call in server.calls if call.opened_at < began + seconds]
    taken = [call for call in calls if call.outcome is not CallOutcome.refused]
    late = [call for call in taken if call.opened_at >= began + seconds / 2]
    filled = per_minute * seconds / 60
    # A sliding quota gives nothing back in the first minute.
    given = per_minute + (filled if options["refill"] == Refill.continuous else 0)

    def amount(calls: list[Any]) -> int:
        return len(calls) if options["quota"] == "requests" else sum(c.prompt_tokens + c.sent_tokens for c in calls)

    report = {
        "tries": len(calls),
        "refused": len(calls) - len(taken),
        "refused_share": (len(calls) - len(taken)) / max(1, len(calls)),
        "reached": amount(taken) / given,
        "reached_steady": amount(late) / (filled / 2),
        "streams_max": engine.running_max,
    }
    print(json.dumps(report), flush=True)


async def work(options: dict[str, Any]) -> None:
    """Call the server from many tasks; tell what it cost."""
    limits = {
        "configured": {QUOTAS[options["quota"]]: options["per_minute"]},
        "learned": {"adaptive": True},
        "none": {},
    }
    settings = BackendSettings.model_validate(
        {
            "backend": "openai",
            "base_url": options["url"],
            "model": "simulated",
            "max_tokens": MAX_TOKENS,
            **limits[options["way"]],
        }
    )
    backend = OpenAIBackend(settings, name="limited")
    limiter = limiter_of("limited", settings, broker_url=options["broker_url"])
    print("ready", flush=True)
    began, seconds = map(float, (await asyncio.to_thread(sys.stdin.readline)).split())
    records: list[CallTrace] = []
    cpu = _cpu_s()

    async def caller(number: int) -> None:
        seed = number
        while time.monotonic() < began + seconds:
            record, seed = CallTrace(), seed + 1_000
            request = CompletionRequest(messages=(ChatMessage(role="user", content=PROBLEM),), seed=seed)
            with contextlib.suppress(BackendError):
                await call_model(backend, request, record=record, settings=settings, limiter=limiter or UNLIMITED)
            records.append(record)

    callers = [asyncio.create_task(caller(number)) for number in range(options["callers"])]
    await asyncio.sleep(began + seconds - time.monotonic())
    # Calls in flight may end; those in line are not wanted any more.
    await asyncio.sleep(REASONING_TOKENS * TOKEN_S * 3)
    for task in callers:
        task.cancel()
    await asyncio.gather(*callers, return_exceptions=True)
    cpu = _cpu_s() - cpu
    if limiter is not None:
        await limiter.aclose()
    await backend.aclose()
    done = [record for record in records if record.finish_reason]
    waits = [record.limit_wait_s for record in done if record.limit_wait_s is not None]
    report = {
        "done": len(done),
        "failed": len(records) - len(done),
        "wait_sum_s": sum(waits),
        "wait_max_s": max(waits, default=0.0),
        "cpu_s": cpu,
    }
    print(json.dumps(report), flush=True)


async def cost(broker_url: str) -> dict[str, float]:
    """Take and settle turns one after the other, none of which has to wait."""
    settings = BackendSettings.model_validate({"backend": "openai", "requests_per_minute": 10**9, "streams_max": 10**6})
    limiter = RedisLimiter("limited", settings, broker_url=broker_url)

    async def turns(count: int) -> None:
        for _ in range(count):
            async with limiter.reserve(tokens=MAX_TOKENS) as turn:
                turn.settle(REASONING_TOKENS)

    await turns(COST_TURNS // 10)
    began, cpu = time.monotonic(), _cpu_s()
    await turns(COST_TURNS)
    seconds, cpu = time.monotonic() - began, _cpu_s() - cpu
    await limiter.aclose()
    return {"turns": COST_TURNS, "ms_per_turn": 1000 * seconds / COST_TURNS, "cpu_ms_per_turn": 1000 * cpu / COST_TURNS}


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def run(options: argparse.Namespace, *, quota: str, way: str, broker_url: str) -> dict[str, Any]:
    """One run: a fresh server and fresh processes."""
    common = {"quota": quota, "way": way, "per_minute": options.per_minute or PER_MINUTE[quota]}
    server = _start("server", {**common, "refill": options.refill, "rate_headers": options.rate_headers})
    workers: list[subprocess.Popen[str]] = []
    try:
        url = _line(server)
        mine = {**common, "url": url, "broker_url": broker_url, "callers": options.callers}
        workers += [_start("worker", mine) for _ in range(options.processes)]
        for worker in workers:
            _line(worker)
        go = f"{time.monotonic()} {options.seconds}\n"
        for process in (server, *workers):
            assert process.stdin is not None
            process.stdin.write(go)
            process.stdin.flush()
        told = [json.loads(_line(worker)) for worker in workers]
        assert server.stdin is not None
        server.stdin.close()
        seen = json.loads(_line(server))
    finally:
        for process in (server, *workers):
            process.kill()
            process.wait()
    done = sum(part["done"] for part in told)
    return {
        "quota": quota,
        "way": way,
        **seen,
        "done": done,
        "failed": sum(part["failed"] for part in told),
        "least_done_of_a_process": min(part["done"] for part in told),
        "wait_s": {
            "mean": sum(part["wait_sum_s"] for part in told) / max(1, done),
            "max": max(part["wait_max_s"] for part in told),
        },
        "cpu_ms_per_call": 1000 * sum(part["cpu_s"] for part in told) / max(1, seen["tries"]),
    }


@contextlib.contextmanager
def running_redis() -> Generator[str]:
    """Yield the URL of a redis-server that is there for this."""
    with tempfile.TemporaryDirectory(prefix="k2limits-") as root:
        folder = Path(root)
        redis = redis_child(folder)
        redis.start()
        try:
            wait_until_up(redis, folder)
            yield broker_url_of(socket_path(folder))
        finally:
            redis.terminate()
            redis.wait(START_S)


def _start(what: str, options: dict[str, Any]) -> "subprocess.Popen[str]":
    command = [sys.executable, __file__, "--as", what, json.dumps(options)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _line(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise RuntimeError("a process of the benchmark ended; its reason stands above")
    return line.strip()


def main() -> None:
    """Entry point."""
    if sys.argv[1:2] == ["--as"]:
        asyncio.run({"server": serve, "worker": work}[sys.argv[2]](json.loads(sys.argv[3])))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=20, help="processes that call (default: 20)")
    parser.add_argument("--callers", type=int, default=40, help="calls that each wants in flight (default: 40)")
    parser.add_argument("--seconds", type=float, default=60.0, help="length of a run (default: 60)")
    parser.add_argument(
        "--quota", action="append", choices=QUOTAS, help="what the server limits (default: each in turn)"
    )
    parser.add_argument("--way", action="append", choices=WAYS, help="how limits are kept (default: each in turn)")
    parser.add_argument("--per-minute", type=int, help=f"the quota (default: {PER_MINUTE})")
    parser.add_argument(
        "--refill",
        choices=[refill.value for refill in Refill],
        default=Refill.continuous.value,
        help="how the server's quota comes back (default: continuous)",
    )
    parser.add_argument(
        "--rate-headers",
        choices=[style.value for style in RateHeaders],
        default=RateHeaders.cerebras.value,
        help="form of the server's headers (default: cerebras)",
    )
    parser.add_argument("--cost", action="store_true", help="measure what a turn costs, and nothing else")
    options = parser.parse_args()
    if options.cost:
        with running_redis() as broker_url:
            print(json.dumps(asyncio.run(cost(broker_url)), indent=2))
        return
    rows: list[dict[str, Any]] = []
    load = os.getloadavg()
    for quota in options.quota or QUOTAS:
        for way in options.way or WAYS:
            with running_redis() as broker_url:
                rows.append(run(options, quota=quota, way=way, broker_url=broker_url))
            print(_table(rows[-1:]), file=sys.stderr)
    report = {
        "processes": options.processes,
        "callers": options.callers,
        "seconds": options.seconds,
        "per_minute": options.per_minute or PER_MINUTE,
        "refill": options.refill,
        "rate_headers": options.rate_headers,
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
        "load_average": {"before": load, "after": os.getloadavg()},
        "runs": rows,
    }
    print(json.dumps(report, indent=2))


def _table(rows: list[dict[str, Any]]) -> str:
    return "\n".join(
        f"{row['quota']:9} {row['way']:11} tries {row['tries']:6} refused {row['refused_share']:7.2%}"
        f" reached {row['reached']:6.1%} steady {row['reached_steady']:6.1%} streams {row['streams_max']:4}"
        f" wait mean {row['wait_s']['mean']:5.2f} max {row['wait_s']['max']:5.1f} s cpu {row['cpu_ms_per_call']:5.2f} ms"
        for row in rows
    )


if __name__ == "__main__":
    main()
