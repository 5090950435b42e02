"""Those who run, as a process: `python -m race.client JSON`. Prints one JSON object.

`ideal` is what one would write in an afternoon: plan, three samples at once, two comparisons, over aiohttp, with nothing
kept and nothing retried. It sends the prompts that k2think sends. `ideal_streaming` asks for streams and parses each at
its end. `k2think` asks the HTTP door, POST /v1/chat/completions, and waits.
"""

import asyncio
import json
import re
import resource
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import aiohttp
from k2think.agents.planner import PLAN_SCHEMA
from k2think.agents.templates import load_templates
from k2think.agents.verifier import PREFERENCE_SCHEMA

from .exam import answer_in, problem_text, truth_of

RETRY_S = 0.5
"""Seconds after which one that was refused (503) comes back."""
_TAGS = re.compile(r"</?answer>")


@dataclass
class Outcome:
    """What came of a run."""

    latencies_s: list[float] = field(default_factory=list[float])
    """From sending to the answer, of the requests that were accepted."""
    right: int = 0
    failed: list[str] = field(default_factory=list[str])
    refused: int = 0
    """Answers 503."""


Solve = Callable[[aiohttp.ClientSession, str, int], Awaitable[str | None]]
"""(session, root URL, number of the problem) → the answer's text; None = refused with 503."""


async def ideal(session: aiohttp.ClientSession, url: str, number: int) -> str | None:
    """Solve a problem with bare calls."""
    return await _solve(partial(_call, session, url, stream=False), number)


async def ideal_streaming(session: aiohttp.ClientSession, url: str, number: int) -> str | None:
    """Solve a problem with bare calls that stream."""
    return await _solve(partial(_call, session, url, stream=True), number)


async def _solve(call: Callable[..., Awaitable[str]], number: int) -> str:
    templates, problem = load_templates("default"), problem_text(number)
    planned = await call(templates.chat("planner", problem=problem), 0.3, schema=PLAN_SCHEMA)
    prompt = templates.chat("generator_with_plan", problem=problem, plan=json.loads(planned)["plan"])
    samples = await asyncio.gather(*(call(prompt, 1.0, stop="</answer>") for _ in range(3)))
    best, *others = (_TAGS.sub("", sample).strip() for sample in samples)
    for other in others:
        question = templates.chat("verifier", problem=problem, first=best, second=other, mark=f"{number:016x}")
        verdict = json.loads(await call(question, 0.0, schema=PREFERENCE_SCHEMA))
        best = other if verdict["preference"] == "B" else best
    return best


async def _call(
    session: aiohttp.ClientSession,
    url: str,
    messages: Any,
    temperature: float,
    *,
    stream: bool,
    schema: dict[str, Any] | None = None,
    stop: str | None = None,
) -> str:
    body: dict[str, Any] = {
        "model": "simulated",
        "messages": [{"role": message.role, "content": message.content} for message in messages],
        "stream": stream,
        "temperature": temperature,
        "max_tokens": 4096,
    }
    if schema is not None:
        body["response_format"] = {"type": "json_schema", "json_schema": {"name": "reply", "schema": schema}}
    if stop is not None:
        body["stop"] = [stop]
    async with session.post(f"{url}/chat/completions", json=body) as response:
        raw = await response.read()
    if not stream:
        return json.loads(raw)["choices"][0]["message"]["content"]
    chunks = [json.loads(line[6:]) for line in raw.splitlines() if line.startswith(b"data: {")]
    return "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks if chunk["choices"])


async def k2think(session: aiohttp.ClientSession, url: str, number: int, *, policy: dict[str, Any]) -> str | None:
    """Have a problem solved under this policy."""
    messages = [{"role": "user", "content": problem_text(number)}]
    body = {"model": "k2think", "messages": messages, "k2think": {"policy": policy}}
    async with session.post(f"{url}/v1/chat/completions", json=body) as response:
        if response.status == 503:
            return None
        answer = await response.json()
        if response.status != 200:
            raise ValueError(answer["error"]["message"])
        return answer["choices"][0]["message"]["content"]


async def run(solve: Solve, *, url: str, jobs: int, at_once: int, seed: int) -> Outcome:
    """Solve `jobs` problems, `at_once` at any time."""
    outcome = Outcome()
    numbers = iter(range(jobs))
    timeout = aiohttp.ClientTimeout(total=600)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as session:

        async def one_by_one() -> None:
            for number in numbers:
                while True:
                    sent = time.perf_counter()
                    try:
                        answer = await solve(session, url, number)
                    except (aiohttp.ClientError, TimeoutError, ValueError) as exc:
                        outcome.failed.append(f"{type(exc).__name__}: {exc}")
                        break
                    if answer is not None:
                        outcome.latencies_s.append(time.perf_counter() - sent)
                        outcome.right += answer_in(answer) == truth_of(seed, number)
                        break
                    outcome.refused += 1
                    await asyncio.sleep(RETRY_S)

        await asyncio.gather(*(one_by_one() for _ in range(at_once)))
    return outcome


def main(options: dict[str, Any]) -> None:
    """Run and print."""
    solvers: dict[str, Solve] = {"ideal": ideal, "ideal_streaming": ideal_streaming}
    solvers["k2think"] = partial(k2think, policy=options.pop("policy"))
    solve = solvers[options.pop("runner")]
    load_templates("default")
    cpu, clock = time.process_time(), time.perf_counter()
    outcome = asyncio.run(run(solve, **options))
    clock, cpu = time.perf_counter() - clock, time.process_time() - cpu
    memory_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    print(json.dumps({**vars(outcome), "wall_s": clock, "cpu_s": cpu, "memory_mb": memory_mb}))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
