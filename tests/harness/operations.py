"""A database and a Redis to put signs of life into, and what a gateway's health and metrics say."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import httpx
from harness.asgi import gateway_settings
from k2think.schemas.health import Health
from k2think.store.database import Database
from k2think.store.workers import ROLES_NEEDED, WorkerRow, sign_of_life
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

SERVICES = ("database", "redis", "schema")


class Place:
    """A database with tables and a Redis, and a gateway on them when one is served."""

    def __init__(self, folder: Path, url: str, redis_server: Any) -> None:
        self.url = url
        self.redis = redis_server
        self.settings = gateway_settings(folder, database_url=url, broker_url=redis_server.url)
        self.database = Database(url)

    def sign(self, role: str, *, age_s: float = 0.0, **fields: Any) -> WorkerRow:
        """Write the row of a process whose last sign of life is that old."""
        now = time.time()
        row = WorkerRow(
            **{
                "worker": f"{role}-{len(fields)}-{age_s:g}",
                "role": role,
                "host": "a-secret-host",
                "pid": 1,
                "version": "0.1.0",
                "backend": None,
                "capacity": 4,
                "running": 2,
                "draining": False,
                "started_at": now - 1000,
                "seen_at": now - age_s,
                "metrics": "{}",
                **fields,
            }
        )
        self.database.run_sync(lambda conn: sign_of_life(conn, row))
        return row


def checks_of(answer: httpx.Response) -> dict[str, bool]:
    """Return what /health/ready says of each check; its form and its status must be right."""
    health = Health.model_validate_json(answer.content)
    assert [check.name for check in health.checks] == [*SERVICES, *ROLES_NEEDED]
    assert health.ready == all(check.ok for check in health.checks)
    assert answer.status_code == (200 if health.ready else 503)
    return {check.name: check.ok for check in health.checks}


def bad(answer: httpx.Response) -> set[str]:
    """Return the names of the checks that failed."""
    return {name for name, ok in checks_of(answer).items() if not ok}


def samples_of(answer: httpx.Response) -> list[Sample]:
    """Return what /metrics tells."""
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return [sample for family in text_string_to_metric_families(answer.text) for sample in family.samples]


def total(samples: list[Sample], name: str, /, **labels: str) -> float:
    """Sum of the samples of that name that have these labels; there must be one."""
    found = [sample.value for sample in samples if sample.name == name and labels.items() <= sample.labels.items()]
    assert found, f"no {name}{labels}"
    return sum(found)
