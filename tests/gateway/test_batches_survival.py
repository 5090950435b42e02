"""Whatever dies while a batch runs, there is exactly one line for each of its requests, and the counts are right."""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from harness.server import serving
from harness.stack import RunningUp
from k2think.agents.backends.simulator import SimulatedEngine, SolvingResponder
from k2think.store.database import Database
from sqlalchemy import text

LINES = 2_000
BAD_EVERY = 100
END_TIMEOUT_S = 600.0


def request(number: int) -> dict[str, Any]:
    """One request; every hundredth is well-formed, but comes to no answer."""
    body: dict[str, Any] = {
        "model": "k2think",
        "reasoning_effort": "minimal",
        "messages": [{"role": "user", "content": f"What is 347 + 58? ({number})"}],
    }
    if number % BAD_EVERY == 0:
        body["k2think"] = {"checks": {"answer_form": "interval"}}
    return {"custom_id": f"r{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}


class Watcher:
    """Looks at a batch through a gateway that is away now and then."""

    def __init__(self, up: RunningUp, http: httpx.Client) -> None:
        self._up = up
        self._http = http
        self._deadline = time.monotonic() + END_TIMEOUT_S
        self.batch: dict[str, Any] = {}

    def send(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Send until the gateway answers."""
        while True:
            try:
                return self._http.request(method, self._up.url + path, **options).raise_for_status()
            except httpx.TransportError:
                assert time.monotonic() < self._deadline, f"{method} {path}: no gateway answers"
                time.sleep(0.1)

    def until(self, condition: Callable[[dict[str, Any]], bool]) -> None:
        """Look until it is so."""
        while True:
            self.batch = self.send("GET", f"/v1/batches/{self.batch['id']}").json()
            if condition(self.batch):
                return
            assert time.monotonic() < self._deadline, self.batch
            time.sleep(0.1)

    def until_done(self, count: int) -> None:
        """Look until so many lines have ended, and some have not."""
        self.until(lambda batch: sum(batch["request_counts"][name] for name in ("completed", "failed")) >= count)
        assert self.batch["status"] == "in_progress", "it was over before anything was killed"

    def lines(self, which: str) -> list[dict[str, Any]]:
        """Download one of its files."""
        content = self.send("GET", f"/v1/files/{self.batch[which]}/content").content
        return [json.loads(item) for item in content.splitlines()]


@pytest.mark.timeout(END_TIMEOUT_S + 120)
@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_two_thousand_lines_while_gateway_and_worker_are_killed_twice(
    database: str, request: pytest.FixtureRequest
) -> None:
    url = request.getfixturevalue("postgres_server").new_database() if database == "postgresql" else None
    with (
        serving(SolvingResponder(accuracy=1.0, reasoning_tokens=4), engine=SimulatedEngine(slots=256)) as server,
        tempfile.TemporaryDirectory(prefix="k2batch-") as folder,
        httpx.Client(timeout=30) as http,
    ):
        up = RunningUp(
            Path(folder),
            {
                "K2THINK_GENERATOR__BACKEND": "openai",
                "K2THINK_GENERATOR__BASE_URL": server.url,
                "K2THINK_GENERATOR__MODEL": "simulated",
                **({"K2THINK_DATABASE_URL": url} if url else {}),
            },
        )
        try:
            up.wait_for(lambda: up.count("worker_started") >= 5 and up.count("gateway_started") >= 1, "the start")
            watcher = Watcher(up, http)
            run_and_kill(up, watcher)
            check_lines(watcher)
            check_jobs(url or f"sqlite:///{Path(folder) / 'k2think.db'}")
        finally:
            try:
                up.stop()
            except subprocess.TimeoutExpired:
                up.process.kill()
                up.process.wait()


def run_and_kill(up: RunningUp, watcher: Watcher) -> None:
    content = b"".join(json.dumps(request(number)).encode() + b"\n" for number in range(LINES))
    form: dict[str, Any] = {"files": {"file": ("input.jsonl", content)}, "data": {"purpose": "batch"}}
    file = watcher.send("POST", "/v1/files", **form).json()
    body = {"input_file_id": file["id"], "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    watcher.batch = watcher.send("POST", "/v1/batches", json=body).json()

    watcher.until(lambda batch: batch["status"] == "in_progress")
    up.kill("gateway")
    watcher.until_done(LINES // 10)
    up.kill("generator")
    watcher.until_done(LINES // 4)
    up.kill("gateway")
    watcher.until_done(LINES // 2)
    up.kill("generator")
    watcher.until(lambda batch: batch["status"] in ("completed", "failed", "expired", "cancelled"))
    assert up.count("died", child="gateway") >= 2
    assert up.count("died", child="generator") >= 2


def check_lines(watcher: Watcher) -> None:
    bad = LINES // BAD_EVERY
    assert watcher.batch["status"] == "completed"
    assert watcher.batch["request_counts"] == {"total": LINES, "completed": LINES - bad, "failed": bad}
    answers, errors = watcher.lines("output_file_id"), watcher.lines("error_file_id")
    numbers = range(LINES)
    assert [item["custom_id"] for item in answers] == [f"r{number}" for number in numbers if number % BAD_EVERY]
    assert [item["custom_id"] for item in errors] == [f"r{number}" for number in numbers if not number % BAD_EVERY]
    assert {item["response"]["status_code"] for item in answers} == {200}
    assert {item["response"]["status_code"] for item in errors} == {422}
    assert len({item["id"] for item in [*answers, *errors]}) == LINES
    assert len({item["response"]["request_id"] for item in [*answers, *errors]}) == LINES
    assert len(watcher.send("GET", "/v1/files?purpose=batch_output").json()["data"]) == 2


def check_jobs(url: str) -> None:
    """No line was given two jobs."""
    database = Database(url)
    try:
        found = database.read_sync(lambda conn: conn.execute(text("SELECT status FROM jobs")).scalars().all())
    finally:
        database.close()
    assert Counter(found) == {"succeeded": LINES - LINES // BAD_EVERY, "failed": LINES // BAD_EVERY}
