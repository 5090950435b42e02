"""A job that is no longer wanted closes its streams within two seconds, seen from the model server."""

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest
from harness.stack import RunningUp, client_of, submit_all
from k2think.agents.backends.simulator import ChatRequest, Fault, FaultKind, Reply, SimulatedServer
from k2think.schemas.jobs import JobStatus

CLOSED_WITHIN_S = 2.0
SLOW = "this one never ends"


def respond(request: ChatRequest) -> Reply:
    """Plans come at once; candidates stream a little, then hang."""
    if request.json_schema is not None:
        return Reply(text='{"plan": "wait", "topics": [], "difficulty": "easy"}')
    return Reply(text="<answer>" + "word " * 50, fault=Fault(FaultKind.stall, after_tokens=5))


@pytest.fixture
async def hanging(start_up: Callable[..., RunningUp]) -> Any:
    async with SimulatedServer(respond) as server:
        up = await asyncio.to_thread(
            lambda: start_up(
                K2THINK_GENERATOR__BACKEND="openai",
                K2THINK_GENERATOR__BASE_URL=server.url,
                K2THINK_GENERATOR__MODEL="simulated",
                K2THINK_GENERATOR__IDLE_TIMEOUT_S="120",
            )
        )
        yield up, server
        await asyncio.to_thread(up.stop)


async def _streams(server: SimulatedServer, count: int, within_s: float) -> float:
    """Wait until this many streams are open; return the seconds that it took."""
    began = time.monotonic()
    while server.open_streams != count:
        assert time.monotonic() - began < within_s, f"{server.open_streams} streams are open, not {count}"
        await asyncio.sleep(0.02)
    return time.monotonic() - began


@pytest.mark.timeout(180)
async def test_cancelling_and_vanishing_close_the_streams(hanging: Any) -> None:
    up, server = hanging
    async with client_of(up) as session:
        [job_id] = await submit_all(session, 1)
        await _streams(server, 3, within_s=60)

        assert await session.submitter.cancel(job_id)

        await _streams(server, 0, within_s=CLOSED_WITHIN_S)
        status, result = await session.submitter.result(job_id)
        assert status is JobStatus.cancelled
        assert result is not None
        assert result.error is not None
        assert result.error.code == "cancelled"
        assert await session.submitter.cancel(job_id) is False, "it had ended already"

        for number in (signal.SIGKILL, signal.SIGINT):
            client = subprocess.Popen(
                [sys.executable, "-m", "k2think.cli", "solve", SLOW],
                env=up.environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            await _streams(server, 3, within_s=60)

            client.send_signal(number)

            await _streams(server, 0, within_s=CLOSED_WITHIN_S)
            code = await asyncio.to_thread(client.wait, 20)
            assert code == (-signal.SIGKILL if number is signal.SIGKILL else 4)
