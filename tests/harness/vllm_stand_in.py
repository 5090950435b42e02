"""What `vllm` is to `k2think vllm up`, in a second instead of minutes: its flags, its wire by the simulated server, its ways to fail.

    python vllm_stand_in.py VERSION --version
    python vllm_stand_in.py VERSION serve MODEL …

The model folder tells how it behaves: `started.jsonl` in it gets a line per start. A file `ends_at_once` makes it end with a
traceback before it is ready, `never_ready` keeps it from listening, `no_speculation` makes it ignore that it was asked for, `samples_wrongly` makes it do so.
"""

import argparse
import asyncio
import json
import os
import signal
import sys
from pathlib import Path

from k2think.agents.backends.simulator import SimulatedEngine, SimulatedServer, SolvingResponder

RUNS_S = 600


def program(folder: Path, *, version: str = "0.32.0") -> Path:
    """Write the stand-in's program into the folder and return its path."""
    path = folder / "vllm"
    path.write_text(f'#!/bin/sh\nexec {sys.executable} {__file__} {version} "$@"\n')
    path.chmod(0o755)
    return path


def options(arguments: list[str]) -> argparse.Namespace:
    """Read the flags; one that vLLM does not know ends the program with code 2, as there."""
    parser = argparse.ArgumentParser(prog="vllm serve")
    parser.add_argument("model")
    for name in ("--served-model-name", "--host", "--speculative-config", "--tokenizer", "--dtype"):
        parser.add_argument(name)
    for name in ("--port", "--tensor-parallel-size", "--max-model-len"):
        parser.add_argument(name, type=int)
    for name in ("--enable-prefix-caching", "--enable-per-request-metrics"):
        parser.add_argument(name, action="store_true")
    parser.add_argument("--per-request-spec-decode-metrics", choices=["none", "summary", "detailed"], default="none")
    return parser.parse_args(arguments)


async def serve(chosen: argparse.Namespace, model: Path) -> None:
    # The engine's process, of the same group; the real server ends it, this one leaves it behind.
    engine = await asyncio.create_subprocess_exec("sleep", str(RUNS_S))
    with (model / "started.jsonl").open("a") as file:
        file.write(json.dumps({"server": os.getpid(), "engine": engine.pid, "arguments": sys.argv[2:]}) + "\n")
    speculates = chosen.speculative_config is not None and not (model / "no_speculation").exists()
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    if (model / "never_ready").exists():
        await stopped.wait()
        return
    async with SimulatedServer(
        SolvingResponder(accuracy=1.0, reasoning_tokens=10),
        engine=SimulatedEngine(
            draft_acceptance=0.5 if speculates else None,
            per_request_acceptance=speculates and chosen.per_request_spec_decode_metrics != "none",
            samples_wrongly=(model / "samples_wrongly").exists(),
        ),
        models=(chosen.served_model_name,),
        context_tokens=chosen.max_model_len or 512,
        api_key=os.environ.get("VLLM_API_KEY"),
        port=chosen.port,
    ):
        await stopped.wait()


def main() -> None:
    version, command, *rest = sys.argv[1:]
    if command == "--version":
        print(version)
        return
    chosen = options(rest)
    model = Path(chosen.model)
    if (model / "ends_at_once").exists():
        print(
            "Traceback (most recent call last):\nValueError: no available memory for the cache blocks", file=sys.stderr
        )
        sys.exit(1)
    asyncio.run(serve(chosen, model))


if __name__ == "__main__":
    main()
