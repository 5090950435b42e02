"""CPU that one call costs the client, by the way in which Cerebras' SDK is used, with many streams at once.

    python benchmarks/cerebras_transport.py                          # 64 streams, 20 ms per token
    python benchmarks/cerebras_transport.py --streams 50 --calls 200 --rounds 5 --token-ms 5

Ways: the SDK as it comes (httpx) and with its aiohttp transport, each parsing the stream itself; our backend, which lets the
SDK make the request over aiohttp and reads the stream itself, with somebody watching the stream and without; and our
openai backend, which has no SDK. The server (`python -m k2think.agents.backends.simulator`) is a process of its own; rounds
alternate, so what else runs on this machine meets all alike. Only the client's own CPU time is counted. Prints JSON.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from statistics import median
from typing import Any

import httpx
from cerebras.cloud.sdk import AsyncCerebras, DefaultAioHttpClient
from k2think.agents.backends.base import Backend
from k2think.agents.backends.registry import create_backend
from k2think.agents.backends.wire import chat_body
from k2think.schemas.completion import ChatMessage, CompletionRequest, Finish
from k2think.schemas.settings import BackendSettings

REQUEST = CompletionRequest(messages=(ChatMessage(role="user", content="What is 347 + 58?"),), max_tokens=1000)
LIMITS = httpx.Limits(max_connections=10_000, max_keepalive_connections=10_000)

Call = Callable[[], Awaitable[int]]
"""Makes one call; returns the tokens that it brought."""


def sdk_call(url: str, http_client: httpx.AsyncClient, stack: AsyncExitStack) -> Call:
    """The SDK with this HTTP client, its own reading of the stream."""
    sdk = AsyncCerebras(
        api_key="k", base_url=url, max_retries=0, warm_tcp_connection=False, http_client=http_client, timeout=60.0
    )
    stack.push_async_callback(sdk.close)
    body: dict[str, Any] = chat_body(
        REQUEST, model="simulated", max_tokens=1000, max_tokens_field="max_completion_tokens"
    )

    async def call() -> int:
        usage: Any = None
        async for chunk in await sdk.chat.completions.create(**body):
            usage = getattr(chunk, "usage", None) or usage
        return usage.completion_tokens

    return call


def backend_call(kind: str, url: str, stack: AsyncExitStack, *, watched: bool) -> Call:
    """One of our backends."""
    settings = BackendSettings.model_validate({"backend": kind, "base_url": url, "model": "simulated", "api_key": "k"})
    backend: Backend = create_backend(settings, name=kind)
    stack.push_async_callback(backend.aclose)

    async def call() -> int:
        tokens = 0
        async for item in backend.stream(REQUEST, unseen=None if watched else []):
            if isinstance(item, Finish):
                tokens = item.usage.completion
        return tokens

    return call


async def measure(call: Call, *, streams: int, calls: int) -> tuple[float, int]:
    """Return (milliseconds of CPU per call, tokens of all calls)."""
    slots = asyncio.Semaphore(streams)

    async def one() -> int:
        async with slots:
            return await call()

    began = time.process_time()
    tokens = await asyncio.gather(*(one() for _ in range(calls)))
    return (time.process_time() - began) * 1000 / calls, sum(tokens)


async def race(url: str, options: argparse.Namespace) -> dict[str, Any]:
    """Run all ways in turns."""
    root = url.removesuffix("/v1")
    async with AsyncExitStack() as stack:
        ways: dict[str, Call] = {
            "SDK over httpx": sdk_call(root, httpx.AsyncClient(limits=LIMITS, timeout=60.0), stack),
            "SDK over aiohttp": sdk_call(root, DefaultAioHttpClient(limits=LIMITS), stack),
            "cerebras backend": backend_call("cerebras", root, stack, watched=True),
            "cerebras backend, unwatched": backend_call("cerebras", root, stack, watched=False),
            "openai backend": backend_call("openai", url, stack, watched=True),
            "openai backend, unwatched": backend_call("openai", url, stack, watched=False),
        }
        costs: dict[str, list[float]] = {name: [] for name in ways}
        tokens: dict[str, int] = {}
        for number in range(options.rounds + 1):
            for name, call in ways.items():
                cost, tokens[name] = await measure(call, streams=options.streams, calls=options.calls)
                if number:  # the first round opens connections and loads modules
                    costs[name].append(round(cost, 2))
    return {
        "streams": options.streams,
        "calls": options.calls,
        "token_ms": options.token_ms,
        "tokens_per_call": round(min(tokens.values()) / options.calls, 1),
        "ways": {name: {"cpu_ms_per_call": median(found), "rounds": found} for name, found in costs.items()},
    }


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=64, help="calls at once")
    parser.add_argument("--calls", type=int, default=128, help="calls of each way in each round")
    parser.add_argument("--rounds", type=int, default=3, help="rounds that count")
    parser.add_argument("--token-ms", type=float, default=20.0, help="milliseconds per token of a stream")
    options = parser.parse_args()
    command = [sys.executable, "-m", "k2think.agents.backends.simulator", "--slots", "100000"]
    server = subprocess.Popen(
        [*command, "--token-ms", str(options.token_ms), "--reasoning-tokens", "100"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        found = asyncio.run(race(server.stdout.readline().strip(), options))
    finally:
        server.terminate()
        server.wait()
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
