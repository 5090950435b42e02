"""Does a seed give the same text alone, among others and speculated? Prints JSON: how many of the seeds' texts were the first one.

    python benchmarks/seeds.py --seeds 150 --precision f32
    python benchmarks/seeds.py --seeds 150 --precision auto

The others come at random moments with problems and seeds of their own. High temperatures make near ties, and so differences, likelier.
"""

import argparse
import asyncio
import json
import random

from k2think.agents.backends.openvino import OpenVINOBackend
from k2think.schemas.backend_settings import BackendSettings
from k2think.schemas.completion import ChatMessage, CompletionRequest, Delta
from k2think.training.mini.examples import solve_prompt
from k2think.training.mini.families import FAMILIES, Side, draw_problem

OTHERS = 16
LATEST_S = 0.1
"""Seconds by which the last of the others has come."""


async def text_of(backend: OpenVINOBackend, prompt: str, seed: int, temperature: float, after_s: float = 0.0) -> str:
    """One completion's text."""
    await asyncio.sleep(after_s)
    request = CompletionRequest(
        messages=(ChatMessage(role="user", content=prompt),), seed=seed, temperature=temperature, max_tokens=250
    )
    return "".join([item.text async for item in backend.stream(request) if isinstance(item, Delta)])


async def among_others(backend: OpenVINOBackend, prompts: list[str], seed: int, temperature: float) -> str:
    """The same completion while others run."""
    rng = random.Random(seed)
    others = [
        text_of(backend, rng.choice(prompts), rng.randrange(10**6), temperature, rng.uniform(0, LATEST_S))
        for _ in range(OTHERS)
    ]
    ours = text_of(backend, prompts[seed % len(prompts)], seed, temperature, rng.uniform(0, LATEST_S))
    return (await asyncio.gather(ours, *others))[0]


async def measure(options: argparse.Namespace) -> dict[str, int]:
    """Count the equal texts."""
    rng = random.Random(7)
    prompts = [solve_prompt(draw_problem(rng, family, Side.development).text) for family in FAMILIES]
    plain = BackendSettings(model=options.model, threads=options.threads, precision=options.precision)
    drafting = plain.model_copy(update={"speculative_tokens": 4, "speculative_streams_max": 0})
    backends = {"": OpenVINOBackend(plain, name="plain"), "lookup ": OpenVINOBackend(drafting, name="lookup")}
    equal: dict[str, int] = {}
    try:
        for seed in range(options.seeds):
            prompt = prompts[seed % len(prompts)]
            first = await text_of(backends[""], prompt, seed, options.temperature)
            for kind, backend in backends.items():
                alone = await text_of(backend, prompt, seed, options.temperature)
                crowded = await among_others(backend, prompts, seed, options.temperature)
                for name, text in ((f"{kind}alone", alone), (f"{kind}among {OTHERS}", crowded)):
                    equal[name] = equal.get(name, 0) + (text == first)
    finally:
        for backend in backends.values():
            await backend.aclose()
    return equal


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=None, help="OpenVINO model folder; default: the bundled model")
    parser.add_argument("--seeds", type=int, default=150)
    parser.add_argument("--temperature", type=float, default=2.0)
    parser.add_argument("--precision", choices=["f32", "auto"], default="f32")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    print(json.dumps({"options": vars(options), "equal": asyncio.run(measure(options))}, indent=2))


if __name__ == "__main__":
    main()
