"""The simulated engine as a process: `python -m race.engine JSON`. Prints its URL and that of its ledger.

POST /begin starts a round with fresh problems, GET /ledger says what it cost the engine.
"""

import asyncio
import json
import logging
import signal
import sys
import time
from collections import Counter
from typing import Any

from aiohttp import web
from k2think.agents.backends.simulator import CallOutcome, SimulatedEngine, SimulatedServer

from .exam import Exam, Examiner


class Ledger:
    """What the engine sent since the round began."""

    def __init__(self, server: SimulatedServer, examiner: Examiner) -> None:
        self._server = server
        self._examiner = examiner
        self._cpu_s = time.process_time()

    async def begin(self, request: web.Request) -> web.Response:
        """Start a round. The seed is in the body."""
        self._server.calls.clear()
        self._server.engine.running_max = 0
        self._examiner.begin(int(await request.text()))
        self._cpu_s = time.process_time()
        return web.Response()

    async def show(self, _request: web.Request) -> web.Response:
        """The round so far."""
        calls = self._server.calls
        wasted = sum(call.sent_tokens for call in calls if call.outcome is not CallOutcome.completed)
        return web.json_response(
            {
                "calls": Counter(call.role for call in calls),
                "open": sum(call.outcome is CallOutcome.open for call in calls),
                "prompt_tokens": sum(call.prompt_tokens for call in calls),
                "tokens": sum(call.sent_tokens for call in calls),
                "wasted_tokens": wasted,
                "streams_max": self._server.engine.running_max,
                "cpu_s": time.process_time() - self._cpu_s,
            }
        )


async def serve(options: dict[str, Any]) -> None:
    """Serve until SIGTERM."""
    examiner = Examiner(Exam(**options["exam"]))
    engine = SimulatedEngine(slots=options["slots"], token_s=options["token_ms"] / 1000, chunk_tokens=options["chunk"])
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    async with SimulatedServer(examiner, engine=engine) as server:
        ledger = Ledger(server, examiner)
        app = web.Application()
        app.router.add_post("/begin", ledger.begin)
        app.router.add_get("/ledger", ledger.show)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        print(json.dumps([server.url, f"http://127.0.0.1:{runner.addresses[0][1]}"]), flush=True)
        await stopped.wait()
        await runner.cleanup()


if __name__ == "__main__":
    # A stream that its client broke off is a line of the ledger, not an error.
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)
    asyncio.run(serve(json.loads(sys.argv[1])))
