"""What prompt lookup brings in the embedded engine, by number of streams and by size of the model. Prints JSON.

    k2think train mini-export wide --times 8 && k2think models convert ./wide --weight-format fp16 --out wide8
    python benchmarks/speculation.py --model wide8 --streams 1,2,4,8,16 --tokens 1,2,4

The widened model writes what k2think-mini writes and costs what a model of its size costs. Each cell is measured `--rounds`
times, plain and speculated in turn (each round begins with another of them) and with the same seeds, so that what else the
machine does meets both: the ratios are medians over the rounds, of the clock and of this process's CPU. A first round, which
compiles kernels for the shapes, does not count. `same_text` counts the requests whose text was the same both ways. `switched` is the engine as it is used, with `speculative_streams_max` at its default.
"""

import argparse
import asyncio
import json
import os
import platform
import random
import statistics
import time
from dataclasses import dataclass

from k2think.agents.backends.openvino import OpenVINOBackend
from k2think.schemas.backend_settings import BackendSettings
from k2think.schemas.completion import ChatMessage, CompletionRequest, Delta, Finish
from k2think.training.mini.examples import solve_prompt
from k2think.training.mini.families import FAMILIES, Side, draw_problem

REQUESTS_MIN = 4
"""Requests of a cell at least; else two for each stream."""


@dataclass(frozen=True)
class Run:
    """One pass over a cell's requests."""

    texts: list[str]
    tokens: int
    accepted_length: float | None
    """Mean over the requests that were speculated; None = none was."""
    clock_s: float
    cpu_s: float


def problems(families: list[str], number: int, *, seed: int) -> list[str]:
    """Prompts of held-out problems, the families in turn."""
    rng = random.Random(seed)
    return [
        solve_prompt(draw_problem(rng, families[index % len(families)], Side.development).text)
        for index in range(number)
    ]


async def run(backend: OpenVINOBackend, prompts: list[str], streams: int, *, max_tokens: int, seed: int) -> Run:
    """Answer all prompts, `streams` at a time."""
    waiting = list(enumerate(prompts))
    texts, lengths, tokens = [""] * len(prompts), list[float](), 0

    async def one_stream() -> None:
        nonlocal tokens
        while waiting:
            index, prompt = waiting.pop()
            request = CompletionRequest(
                messages=(ChatMessage(role="user", content=prompt),), seed=seed + index, max_tokens=max_tokens
            )
            async for item in backend.stream(request, unseen=[]):
                if isinstance(item, Delta):
                    texts[index] += item.text
                elif isinstance(item, Finish):
                    tokens += item.usage.completion
                    if item.accepted_length is not None:
                        lengths.append(item.accepted_length)

    clock, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(one_stream() for _ in range(streams)))
    clock, cpu = time.perf_counter() - clock, time.process_time() - cpu
    return Run(texts, tokens, statistics.fmean(lengths) if lengths else None, clock, cpu)


async def measure(options: argparse.Namespace) -> list[dict[str, object]]:
    """All cells of one model."""
    families = options.families.split(",") if options.families else list(FAMILIES)
    plain = BackendSettings(model=options.model, threads=options.threads)
    variants: dict[str, OpenVINOBackend] = {"plain": OpenVINOBackend(plain, name="plain")}
    for tokens in map(int, options.tokens.split(",")):
        drafting = {"speculative_tokens": tokens, "speculative_streams_max": 0}
        variants[f"lookup {tokens}"] = OpenVINOBackend(plain.model_copy(update=drafting), name="lookup")
        switched = plain.model_copy(update={"speculative_tokens": tokens})
        variants[f"switched {tokens}"] = OpenVINOBackend(switched, name="switched")
    cells: list[dict[str, object]] = []
    try:
        for backend in variants.values():
            await backend.probe()
        for streams in map(int, options.streams.split(",")):
            found: dict[str, list[Run]] = {name: [] for name in variants}
            order = list(variants)
            for number in range(options.rounds + 1):
                prompts = problems(families, max(REQUESTS_MIN, 2 * streams), seed=number)
                for name in order:
                    seed = 1000 * number
                    done = await run(variants[name], prompts, streams, max_tokens=options.max_tokens, seed=seed)
                    if number:
                        found[name].append(done)
                order = order[1:] + order[:1]
            cells.append({"streams": streams} | {name: summary(runs, found["plain"]) for name, runs in found.items()})
    finally:
        for backend in variants.values():
            await backend.aclose()
    return cells


def summary(runs: list[Run], plain: list[Run]) -> dict[str, object]:
    """A variant's figures, beside the plain runs on the same requests."""
    pairs = list(zip(runs, plain, strict=True))
    lengths = [one.accepted_length for one in runs if one.accepted_length is not None]
    return {
        "tokens_per_s": round(statistics.median(one.tokens / one.clock_s for one in runs), 1),
        "tokens_per_cpu_s": round(statistics.median(one.tokens / one.cpu_s for one in runs), 1),
        "ratio": round(statistics.median(one.tokens / one.clock_s / (a.tokens / a.clock_s) for one, a in pairs), 3),
        "ratio_cpu": round(statistics.median(one.tokens / one.cpu_s / (a.tokens / a.cpu_s) for one, a in pairs), 3),
        "accepted_length": round(statistics.fmean(lengths), 3) if lengths else None,
        "same_text": sum(x == y for one, a in pairs for x, y in zip(one.texts, a.texts, strict=True)),
        "requests": sum(len(one.texts) for one in runs),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=None, help="OpenVINO model folder; default: the bundled model")
    parser.add_argument("--streams", default="1,2,4,8,16")
    parser.add_argument("--tokens", default="1,2,4", help="prompt-lookup tokens per step")
    parser.add_argument("--families", default="", help="problem families; default: all eight in turn")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--max-tokens", type=int, default=250)
    options = parser.parse_args()
    load = os.getloadavg()[0]
    cells = asyncio.run(measure(options))
    machine = {"cores": os.cpu_count(), "machine": platform.machine(), "load_before": round(load, 2)}
    print(json.dumps({"options": vars(options), "machine": machine, "cells": cells}, indent=2))


if __name__ == "__main__":
    main()
