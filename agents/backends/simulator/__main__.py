"""`python -m k2think.agents.backends.simulator`: run the simulated server, print its URL, serve until interrupted."""

import argparse
import asyncio
import signal
import sys

from .engine import SimulatedEngine
from .rates import RateHeaders, Refill, ServerRates
from .replies import ReasoningField
from .responders import SolvingResponder
from .server import SimulatedServer

USAGE_EXIT_CODE = 2


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m k2think.agents.backends.simulator",
        description="A simulated OpenAI-compatible model server. Prints its base URL on the first line.",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=0, help="port; 0 = a free one")
    parser.add_argument("--model", default="simulated", help="name of the model")
    parser.add_argument("--truth", default="405", help="the right answer to everything")
    parser.add_argument("--accuracy", type=float, default=0.8, help="probability of the right answer, 0..1")
    parser.add_argument("--seed", type=int, default=0, help="seed of the chances")
    parser.add_argument("--reasoning-tokens", type=int, default=40, help="tokens of reasoning before an answer")
    parser.add_argument(
        "--reasoning-field",
        choices=[field.value for field in ReasoningField],
        default=ReasoningField.inline.value,
        help="where the reasoning goes",
    )
    parser.add_argument("--slots", type=int, default=64, help="requests that decode at once")
    parser.add_argument("--token-ms", type=float, default=0.0, help="milliseconds per token")
    parser.add_argument("--chunk-tokens", type=int, default=1, help="tokens in one chunk of a stream")
    parser.add_argument("--prefill-ms", type=float, default=0.0, help="milliseconds before the first token")
    parser.add_argument(
        "--draft-acceptance", type=float, help="share of speculated tokens accepted; default: no speculation"
    )
    parser.add_argument("--context", type=int, help="context length in tokens; default: no limit")
    parser.add_argument("--requests-per-minute", type=int, help="quota, refused above with 429; default: none")
    parser.add_argument(
        "--tokens-per-minute",
        type=int,
        help="quota of prompts and completions; max_completion_tokens is taken up front and what was not used put back",
    )
    parser.add_argument(
        "--refill",
        choices=[refill.value for refill in Refill],
        default=Refill.continuous.value,
        help="how quotas come back: as a token bucket that fills all the time (Cerebras), or a minute after their use",
    )
    parser.add_argument(
        "--rate-headers",
        choices=[style.value for style in RateHeaders],
        default=RateHeaders.cerebras.value,
        help="form of the x-ratelimit-… headers that tell of the quotas",
    )
    parser.add_argument("--api-key", help="bearer key to require; default: none")
    return parser.parse_args(arguments)


async def serve(options: argparse.Namespace) -> None:
    """Serve until SIGINT or SIGTERM."""
    engine = SimulatedEngine(
        slots=options.slots,
        token_s=options.token_ms / 1000,
        prefill_s=options.prefill_ms / 1000,
        draft_acceptance=options.draft_acceptance,
        chunk_tokens=options.chunk_tokens,
    )
    responder = SolvingResponder(
        truth=options.truth,
        accuracy=options.accuracy,
        seed=options.seed,
        reasoning_tokens=options.reasoning_tokens,
        reasoning_field=ReasoningField(options.reasoning_field),
    )
    limited = options.requests_per_minute is not None or options.tokens_per_minute is not None
    rates = ServerRates(
        requests_per_minute=options.requests_per_minute,
        tokens_per_minute=options.tokens_per_minute,
        refill=Refill(options.refill),
        headers=RateHeaders(options.rate_headers),
    )
    stopped = asyncio.Event()
    for sign in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(sign, stopped.set)
    async with SimulatedServer(
        responder,
        engine=engine,
        models=(options.model,),
        api_key=options.api_key,
        context_tokens=options.context,
        rates=rates if limited else None,
        host=options.host,
        port=options.port,
    ) as server:
        sys.stdout.write(f"{server.url}\n")
        sys.stdout.flush()
        await stopped.wait()


def main() -> None:
    """Entry point."""
    options = _options(sys.argv[1:])
    try:
        asyncio.run(serve(options))
    except OSError as exc:
        print(f"Error: cannot listen on {options.host} port {options.port}: {exc.strerror}", file=sys.stderr)
        sys.exit(USAGE_EXIT_CODE)


if __name__ == "__main__":
    main()
