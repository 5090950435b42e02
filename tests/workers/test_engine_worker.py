"""A generator worker that owns its engine: its death ends the worker, its steps go on in the next one."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import harness
import pytest
from harness.stack import RunningUp, client_of, results_of, submit_all
from k2think.agents.backends.simulator import SimulatedServer, SolvingResponder
from k2think.schemas.jobs import JobStatus
from k2think.schemas.messages import AgentKind
from k2think.schemas.settings import Settings
from k2think.workers import backends
from k2think.workers.backends import BackendPool

PACKAGE = Path(next(iter(harness.__path__))) / "vllm_package"
JOBS = 30


def engines(model: Path) -> list[int]:
    file = model / "engines.jsonl"
    return [json.loads(line)["pid"] for line in file.read_text().splitlines()] if file.exists() else []


async def test_the_death_of_an_engine_costs_no_job(start_up: Callable[..., RunningUp], tmp_path: Path) -> None:
    # Given a generator with an engine of its own, on the stand-in for vLLM, and other agents elsewhere
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "stands_still").touch()
    async with SimulatedServer(SolvingResponder(accuracy=1.0, reasoning_tokens=5)) as server:
        elsewhere = {
            f"K2THINK_{role}__{name}": value
            for role in ("PLANNER", "VERIFIER")
            for name, value in (("BACKEND", "openai"), ("BASE_URL", server.url), ("MODEL", "simulated"))
        }
        up = await asyncio.to_thread(
            start_up,
            K2THINK_GENERATOR__BACKEND="vllm_engine",
            K2THINK_GENERATOR__MODEL=str(tmp_path),
            PYTHONPATH=str(PACKAGE),
            **elsewhere,
        )
        async with client_of(up) as session:
            # When the engine dies while it works on many jobs
            ids = await submit_all(session, JOBS, policy={"plan": "off", "early_stop": False})
            async with asyncio.timeout(30):
                while not (tmp_path / "requests").exists() or len((tmp_path / "requests").read_text().split()) < 5:
                    await asyncio.sleep(0.02)
            os.kill(engines(tmp_path)[0], signal.SIGKILL)
            await asyncio.to_thread(up.wait_for, lambda: up.count("engine_died") == 1, "the engine's end")
            (tmp_path / "stands_still").unlink()
            # Then all of them end well, on the engine of the worker that came after
            results = await results_of(session, ids)
    assert {result.status for result in results} == {JobStatus.succeeded}
    assert up.count("engine_died", backend="vllm_engine") == 1
    assert up.count("died", child="generator", exit_code=1) == 1
    assert len(engines(tmp_path)) == 2
    assert up.count("step_failed", code="backend_stream_broken") > 0
    assert not up.count("step_failed", retry_in_s=None)


async def test_an_engine_that_cannot_be_made_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.json").write_text("{}")
    monkeypatch.syspath_prepend(str(PACKAGE))
    role = {"backend": "vllm_engine", "model": str(tmp_path), "engine_options": {"dtype": "complex"}}
    ended: list[str] = []
    lines: list[dict[str, str]] = []
    log = SimpleNamespace(error=lambda event, **fields: lines.append({"event": event, **fields}))
    monkeypatch.setattr(backends, "log", log)
    pool = BackendPool(
        Settings(_env_file=None, generator=role, broker_url="redis://127.0.0.1:1/0"),  # type: ignore[call-arg,arg-type]
        on_engine_end=lambda name, reason: ended.append(name),
    )
    try:
        await pool.route(AgentKind.generator)
        async with asyncio.timeout(10):
            while not lines:
                await asyncio.sleep(0.01)
    finally:
        await pool.close()
        for name in [name for name in sys.modules if name.partition(".")[0] == "vllm"]:
            del sys.modules[name]
    assert lines[0]["event"] == "engine_not_loaded"
    assert "vLLM refuses its options: Unknown dtype: complex" in lines[0]["reason"]
    # Another process would fare no better.
    assert not ended
