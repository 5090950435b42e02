"""What hedging gives and costs: calls to a backend of which a few in a hundred hear nothing for long, with and without a hedge.

    python benchmarks/hedging.py
    python benchmarks/hedging.py --late 0.1 --late-s 5

Simulated servers on this machine; calls go through the same route as an agent's. In each of --rounds rounds --calls calls
are made, --at-once of them side by side, first without and then with a hedge. A share --late of the calls at either server has
its first token only after --late-s seconds. Told are seconds from the call to its end (p50, p95, p99), the share of calls that
were hedged, and the tokens that the losers cost, as a share of all. Prints one JSON object.
"""

import argparse
import asyncio
import json
import os
import random
import statistics
import sys
import time
from contextlib import AsyncExitStack
from typing import Any

from k2think.agents.backends.openai import OpenAIBackend
from k2think.agents.backends.simulator import ChatRequest, Reply, SimulatedEngine, SimulatedServer
from k2think.agents.routing import Route
from k2think.agents.targets import Target
from k2think.schemas.backend_settings import BackendKind, BackendSettings
from k2think.schemas.completion import ChatMessage, CompletionRequest
from k2think.schemas.trace import CallTrace

REQUEST = CompletionRequest(messages=(ChatMessage(role="user", content="What is 347 + 58?"),))


class Moody:
    """A responder that keeps a share of its callers waiting."""

    def __init__(self, share: float, seconds: float, *, seed: int) -> None:
        self._share = share
        self._seconds = seconds
        self._chance = random.Random(seed)

    def __call__(self, request: ChatRequest) -> Reply:
        """Answer, sooner or later."""
        late = self._chance.random() < self._share
        return Reply(text="word " * 40, first_token_s=self._seconds if late else 0.0)


async def target_of(name: str, arguments: argparse.Namespace, stack: AsyncExitStack, *, seed: int) -> Target:
    """Return a target on a server of its own."""
    engine = SimulatedEngine(slots=1_000, token_s=0.005, chunk_tokens=10)
    responder = Moody(arguments.late, arguments.late_s, seed=seed)
    server = await stack.enter_async_context(SimulatedServer(responder, engine=engine))
    settings = BackendSettings(backend=BackendKind.openai, base_url=server.url, model="simulated")
    backend = OpenAIBackend(settings, name=name)
    stack.push_async_callback(backend.aclose)

    async def make() -> OpenAIBackend:
        return backend

    return Target(name, settings, make)


async def play(route: Route, arguments: argparse.Namespace) -> list[tuple[float, CallTrace]]:
    """Make the calls of one round; return the seconds and the record of each."""
    slots = asyncio.Semaphore(arguments.at_once)

    async def call() -> tuple[float, CallTrace]:
        async with slots:
            record, began = CallTrace(), time.monotonic()
            await route.complete(REQUEST, record=record)
            return time.monotonic() - began, record

    return await asyncio.gather(*(call() for _ in range(arguments.calls)))


def figures(calls: list[tuple[float, CallTrace]]) -> dict[str, Any]:
    """Sum up."""
    cuts = statistics.quantiles([seconds for seconds, _record in calls], n=100)
    wasted = sum(record.wasted.total for _seconds, record in calls)
    used = sum(record.usage.total for _seconds, record in calls)
    return {
        "p50_s": round(cuts[49], 3),
        "p95_s": round(cuts[94], 3),
        "p99_s": round(cuts[98], 3),
        "hedged": sum(bool(record.left_calls) for _seconds, record in calls) / len(calls),
        "wasted_tokens": round(wasted / (wasted + used), 4),
    }


async def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Play all rounds."""
    async with AsyncExitStack() as stack:
        names = ("alone", "first", "second")
        targets = [await target_of(name, arguments, stack, seed=number) for number, name in enumerate(names)]
        alone = Route(await targets[0].make(), (targets[0],))
        hedged = Route(await targets[1].make(), (targets[1],), targets[2])
        plain: list[tuple[float, CallTrace]] = []
        joined: list[tuple[float, CallTrace]] = []
        await play(hedged, arguments)  # connections are made, and the pace is learned
        await play(alone, arguments)
        for number in range(arguments.rounds):
            plain += await play(alone, arguments)
            joined += await play(hedged, arguments)
            print(f"round {number + 1} of {arguments.rounds}", file=sys.stderr)
    return {"alone": figures(plain), "hedged": figures(joined)}


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--calls", type=int, default=400)
    parser.add_argument("--at-once", type=int, default=32)
    parser.add_argument("--late", type=float, default=0.04, help="share of calls whose first token is late")
    parser.add_argument("--late-s", type=float, default=3.0, help="by so many seconds")
    arguments = parser.parse_args()
    found = asyncio.run(run(arguments))
    print(json.dumps({"arguments": vars(arguments), "load_average": os.getloadavg()[0], **found}, indent=2))


if __name__ == "__main__":
    main()
