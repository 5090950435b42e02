"""A batch on a stack of its own: lines per second, memory of every process, and what interactive callers notice.

    python benchmarks/batch.py --lines 50000

All models are simulated, by a process of its own that answers at once, so what is measured is k2think and not a model.
Each line is one sample without a plan (three steps: screen, generate, screen). Meanwhile one interactive caller sends the
same kind of request every `--every` seconds. Prints one JSON object.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from harness.stack import RunningUp  # noqa: E402

FINAL = ("completed", "failed", "expired", "cancelled")
SAMPLE_S = 1.0
IDLE_REQUESTS = 20
LOOKS = 10
KIB = 1024


def body_of(model: str, number: str) -> dict[str, Any]:
    """A chat completion request."""
    return {
        "model": model,
        "reasoning_effort": "minimal",
        "messages": [{"role": "user", "content": f"What is 347 + 58? ({number})"}],
    }


class Memory:
    """Peak resident memory of the children of `up`, by name, sampled while it runs."""

    def __init__(self, up: RunningUp) -> None:
        self._up = up
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.peak_mb: dict[str, float] = {}

    def __enter__(self) -> "Memory":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    def _watch(self) -> None:
        pids = {line["child"]: line["pid"] for line in self._up.lines() if line.get("event") == "started"}
        while not self._stopped.wait(SAMPLE_S):
            for name, pid in pids.items():
                self.peak_mb[name] = max(self.peak_mb.get(name, 0.0), _resident_mb(pid))


def _resident_mb(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((round(int(line.split()[1]) * KIB / 1e6, 1) for line in lines if line.startswith("VmRSS")), 0.0)


class Caller:
    """One interactive caller: the seconds of its requests, by what the batch was doing when they were sent."""

    def __init__(self, url: str, every_s: float) -> None:
        self._url = url
        self._every_s = every_s
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.phase = "idle"
        """What the batch is doing."""
        self.answers_s: dict[str, list[float]] = {}
        """From the request to the answer of a chat completion."""
        self.looks_s: dict[str, list[float]] = {}
        """GET /v1/batches: no model, one read; what the event loop lags shows here."""

    def __enter__(self) -> "Caller":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        with httpx.Client(base_url=self._url, timeout=120) as http:
            while not self._stopped.wait(self._every_s):
                self.ask(http)

    def ask(self, http: httpx.Client) -> None:
        """Send an interactive request, and look ten times."""
        phase = self.phase
        body = body_of("k2think", f"interactive {time.monotonic()}")
        answer = _timed(lambda: http.post("/v1/chat/completions", json=body).raise_for_status())
        self.answers_s.setdefault(phase, []).append(answer)
        for _ in range(LOOKS):
            look = _timed(lambda: http.get("/v1/batches", params={"limit": 1}).raise_for_status())
            self.looks_s.setdefault(self.phase, []).append(look)


def _timed(call: Callable[[], object]) -> float:
    began = time.monotonic()
    call()
    return time.monotonic() - began


def _milliseconds(values: list[float]) -> dict[str, float | int]:
    ordered = sorted(values)
    return {
        "count": len(ordered),
        "p50_ms": round(1000 * statistics.median(ordered), 1),
        "p95_ms": round(1000 * ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))], 1),
        "max_ms": round(1000 * ordered[-1], 1),
    }


def measure(lines: int, *, every_s: float, window: int) -> dict[str, Any]:
    """Run it; return the figures."""
    simulator = subprocess.Popen(
        [sys.executable, "-m", "k2think.agents.backends.simulator", "--accuracy", "1", "--reasoning-tokens", "4"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert simulator.stdout is not None
        url = simulator.stdout.readline().strip()
        with tempfile.TemporaryDirectory(prefix="k2bench-") as folder:
            up = RunningUp(
                Path(folder),
                {
                    "K2THINK_GENERATOR__BACKEND": "openai",
                    "K2THINK_GENERATOR__BASE_URL": url,
                    "K2THINK_GENERATOR__MODEL": "simulated",
                    "K2THINK_GATEWAY__BATCH_WINDOW": str(window),
                    "K2THINK_LEASE_S": "10",
                    "K2THINK_HEARTBEAT_S": "2",
                    "K2THINK_LOG_LEVEL": "info",
                },
            )
            try:
                up.wait_for(lambda: up.count("worker_started") >= 5 and up.count("gateway_started") >= 1, "the start")
                return _run(up, lines, every_s=every_s, window=window)
            finally:
                up.stop()
    finally:
        simulator.terminate()
        simulator.wait()


def _run(up: RunningUp, lines: int, *, every_s: float, window: int) -> dict[str, Any]:
    caller = Caller(up.url, every_s)
    with httpx.Client(base_url=up.url, timeout=120) as http:
        for _ in range(IDLE_REQUESTS):
            caller.ask(http)
        with Memory(up) as memory:
            content = b"".join(_line(number) for number in range(lines))
            began = time.monotonic()
            form: dict[str, Any] = {"files": {"file": ("input.jsonl", content)}, "data": {"purpose": "batch"}}
            file = http.post("/v1/files", **form).raise_for_status().json()
            uploaded_s = time.monotonic() - began
            body = {"input_file_id": file["id"], "endpoint": "/v1/chat/completions", "completion_window": "24h"}
            batch = http.post("/v1/batches", json=body).raise_for_status().json()
            with caller:
                caller.phase = "validation"
                batch, validated_s = _until(http, batch, lambda now: now["status"] != "validating")
                caller.phase = "jobs"
                batch, run_s = _until(http, batch, lambda now: now["status"] != "in_progress")
                caller.phase = "output"
                batch, written_s = _until(http, batch, lambda now: now["status"] in FINAL)
            output = http.get(f"/v1/files/{batch['output_file_id']}/content").raise_for_status().content
    return {
        "lines": lines,
        "status": batch["status"],
        "request_counts": batch["request_counts"],
        "output_lines": output.count(b"\n"),
        "input_mb": round(len(content) / 1e6, 1),
        "output_mb": round(len(output) / 1e6, 1),
        "batch_window": window,
        "cpus": os.cpu_count(),
        "load_average": [round(value, 1) for value in os.getloadavg()],
        "seconds": {
            "upload": round(uploaded_s, 1),
            "validation": round(validated_s, 1),
            "jobs": round(run_s, 1),
            "output": round(written_s, 1),
        },
        "jobs_per_s": round(lines / run_s, 1),
        "chat_completion": {phase: _milliseconds(seconds) for phase, seconds in caller.answers_s.items()},
        "get_batches": {phase: _milliseconds(seconds) for phase, seconds in caller.looks_s.items()},
        "peak_memory_mb": memory.peak_mb,
    }


def _line(number: int) -> bytes:
    line = {
        "custom_id": f"request-{number}",
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": body_of("k2think", f"line {number}"),
    }
    return json.dumps(line).encode() + b"\n"


def _until(
    http: httpx.Client, batch: dict[str, Any], condition: Callable[[dict[str, Any]], bool]
) -> tuple[dict[str, Any], float]:
    began = time.monotonic()
    while not condition(batch):
        time.sleep(0.2)
        batch = http.get(f"/v1/batches/{batch['id']}").raise_for_status().json()
    return batch, time.monotonic() - began


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lines", type=int, default=2_000, help="requests of the batch (default: 2000)")
    parser.add_argument("--every", type=float, default=0.5, help="seconds between two interactive requests")
    parser.add_argument("--window", type=int, default=500, help="K2THINK_GATEWAY__BATCH_WINDOW")
    options = parser.parse_args()
    print(json.dumps(measure(options.lines, every_s=options.every, window=options.window), indent=2))


if __name__ == "__main__":
    main()
