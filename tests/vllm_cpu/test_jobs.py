"""Fifty jobs through the whole stack on the real vLLM: server and in-process, plain and speculating; then its engine is killed."""

from __future__ import annotations

import asyncio
import os
import signal
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness.engines import NAME, VLLM_ENVIRONMENT, VLLM_KINDS, RealEngine, real_engine
from harness.stack import RunningUp, client_of, results_of
from k2think.agents.backends.vllm import DraftCounters, draft_counters
from k2think.schemas.jobs import JobStatus, SolveRequest, SolveResult
from k2think.schemas.trace import CallTrace
from k2think.store.trace import job_trace
from k2think.training.mini.evaluate import fresh_problems
from k2think.workers.session import Session
from yarl import URL

pytestmark = pytest.mark.timeout(2400)

JOBS = 50
RIGHT_MIN = 30
"""Of the fifty; the embedded engine gets about forty right, an engine that samples wrongly none."""
WAIT_S = 600.0


@pytest.fixture(params=VLLM_KINDS)
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RealEngine]:
    with real_engine(request.param, tmp_path) as made:
        yield made


@pytest.fixture
def up(engine: RealEngine, tmp_path: Path) -> Iterator[RunningUp]:
    """A stack whose generator is the engine; of a server also planner and verifier, else these are the embedded engine's."""
    folder = tmp_path / "stack"
    folder.mkdir()
    fields = {"backend": engine.kind, **engine.settings}
    roles = ["GENERATOR"] if engine.kind == "vllm_engine" else ["GENERATOR", "PLANNER", "VERIFIER"]
    variables = {
        f"K2THINK_{role}__{name.upper()}": value if isinstance(value, str) else str(value).replace("'", '"')
        for role in roles
        for name, value in fields.items()
        if value is not None
    }
    if engine.kind == "vllm_engine":
        variables |= {"K2THINK_PLANNER__BACKEND": "openvino", "K2THINK_VERIFIER__BACKEND": "openvino"}
    started = RunningUp(folder, {**VLLM_ENVIRONMENT, **variables})
    try:
        started.wait_for(lambda: started.count("worker_started") >= 5, "the start of `up`")
        yield started
    finally:
        started.stop()


def policy_of(engine: RealEngine) -> dict[str, Any]:
    """Greedy under speculation: at any other temperature vLLM 0.32's CPU build samples wrongly."""
    return {} if engine.speculation is None else {"plan": "off", "sampling": {"temperature": 0.0}}


async def solve(session: Session, problems: list[str], policy: dict[str, Any]) -> list[SolveResult]:
    requests = [SolveRequest.model_validate({"problem": text, "policy": policy}) for text in problems]
    accepted = await asyncio.gather(*(session.submitter.submit(request) for request in requests))
    return await results_of(session, [one.job_id for one in accepted], timeout_s=WAIT_S)


async def generator_calls(session: Session, results: list[SolveResult]) -> list[CallTrace]:
    calls: list[CallTrace] = []
    for result in results:
        trace = await session.database.read(lambda connection, one=result.job_id: job_trace(connection, one))
        steps = [step for step in trace.steps if step.kind == "generate_candidate"]
        calls += [attempt.call for step in steps for attempt in step.attempts if attempt.call is not None]
    return calls


async def counters_of(engine: RealEngine) -> DraftCounters | None:
    """Return a server's counters of speculation; None = it is none, or does not speculate."""
    if engine.kind != "vllm":
        return None
    backend = engine.backend()
    text = await backend.get_text(URL(engine.settings["base_url"]).parent / "metrics")
    await engine.close()
    return draft_counters(text)


def engine_processes(above: int) -> list[int]:
    """Return the process ids of vLLM's engines below a process."""
    found: list[int] = []
    for task in Path(f"/proc/{above}/task").iterdir():
        for child in map(int, (task / "children").read_text().split()):
            name = Path(f"/proc/{child}/comm").read_text()
            found += [child] if name.startswith("VLLM::Engine") else engine_processes(child)
    return found


async def test_fifty_jobs(engine: RealEngine, up: RunningUp, measured: list[dict[str, Any]]) -> None:
    problems = fresh_problems(7)[:JOBS]
    async with client_of(up) as session:
        # The first waits for an engine in the worker's process to load.
        await solve(session, ["What is 347 + 58?"], policy_of(engine))
        before = await counters_of(engine)
        began = time.monotonic()
        results = await solve(session, [problem.text for problem in problems], policy_of(engine))
        seconds = time.monotonic() - began
        now = await counters_of(engine)
        calls = await generator_calls(session, results)
    assert {result.status for result in results} == {JobStatus.succeeded}
    right = sum(result.answer == problem.answer for result, problem in zip(results, problems, strict=True))
    told = [call.draft_acceptance for call in calls if call.draft_acceptance is not None]
    lengths = [call.accepted_length for call in calls if call.accepted_length is not None]
    # By the server's own count of these very jobs; of an engine in a worker by what its calls told.
    share, length = (
        now.since(before).drafting if now else (statistics.mean(told or [0]), statistics.mean(lengths or [0]))
    )
    measured.append(
        {
            "backend": engine.kind,
            "speculation": "none" if engine.speculation is None else engine.speculation.partition(":")[0],
            "temperature": "1" if engine.speculation is None else "0",
            "jobs": len(results),
            "right": right,
            "calls": len(calls),
            "acceptance": f"{share:.0%}" if told else "–",
            "tokens a verification": f"{length:.2f}" if told else "–",
            "seconds": f"{seconds:.0f}",
        }
    )
    assert right >= RIGHT_MIN
    assert {call.model for call in calls} == {NAME}
    assert bool(told) == (engine.speculation is not None)
    if engine.kind == "vllm_engine" and engine.speculation is None:
        await engine_dies(up)


async def engine_dies(up: RunningUp) -> None:
    """Kill the engine's process under load: the worker ends and another goes on; no job is lost."""
    (victim,) = engine_processes(up.pid("generator"))
    async with client_of(up) as session:
        work = asyncio.create_task(
            solve(session, ["sort 61, 8, 47, 83, 12"] * 20, {"plan": "off", "early_stop": False})
        )
        while up.count("step_finished", kind="generate_candidate") < JOBS * 2:
            await asyncio.sleep(0.05)
        os.kill(victim, signal.SIGKILL)
        results = await work
    assert {result.status for result in results} == {JobStatus.succeeded}
    assert up.count("engine_died", backend="vllm_engine") == 1
    assert up.count("died", child="generator", exit_code=1) == 1
    (successor,) = engine_processes(up.pid("generator"))
    assert successor != victim
