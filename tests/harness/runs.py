"""Jobs over HTTP, for tests of pages that show them."""

import time
from typing import Any

import httpx

WAIT_S = 60.0


def submitted(http: httpx.Client, body: dict[str, Any]) -> str:
    """Submit a job; return its id."""
    answer = http.post("/v1/jobs", json=body)
    assert answer.status_code == 202, answer.text
    return answer.json()["id"]


def finished(http: httpx.Client, job_id: str) -> dict[str, Any]:
    """Wait for a job's end; return it."""
    deadline = time.monotonic() + WAIT_S
    while (job := http.get(f"/v1/jobs/{job_id}").json())["finished_at"] is None:
        assert time.monotonic() < deadline, job
        time.sleep(0.05)
    return job


def solved(http: httpx.Client, problem: str, **more: Any) -> str:
    """Submit a job and wait for its end; return its id."""
    job_id = submitted(http, {"problem": problem, **more})
    finished(http, job_id)
    return job_id
