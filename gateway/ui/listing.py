"""The list of runs: its filters, its pages, and the figures above it."""

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal
from urllib.parse import urlencode

from ...schemas.doors import Door
from ...schemas.jobs import JobStatus
from ...store.overview import JobFilter, JobPoint, JobRow

ROWS_PER_PAGE = 25
STRIP_JOBS = 400
"""Newest jobs of the selection that the picture and the figures are about."""
TEXT_CHARS_MAX = 100
RENEW_S, RENEW_S_MAX = 4, 120
"""Seconds after which an open list asks for itself again."""
RENEW_PER_SECOND = 40
"""Seconds between two such requests per second that one takes: one reader keeps the database busy for 2.5 % of the time."""
RANGES: dict[str, tuple[str, float]] = {
    "15m": ("Last 15 minutes", 900),
    "1h": ("Last hour", 3_600),
    "24h": ("Last 24 hours", 86_400),
    "7d": ("Last 7 days", 604_800),
}
"""By name in the address: label, and seconds back."""
_ID = re.compile(r"[0-9a-f-]{8,36}\Z")

RangeName = Literal["", "15m", "1h", "24h", "7d"]
DoorName = Literal["", "chat", "responses", "jobs", "batches", "cli"]
StatusName = Literal["", "queued", "running", "succeeded", "refused", "failed", "cancelled", "expired"]


@dataclass(frozen=True, slots=True)
class Chosen:
    """The filters as they stand in the address."""

    status: StatusName
    """State; empty = any."""
    text: str
    """Part of the problem."""
    door: DoorName
    """Where it came in; empty = anywhere."""
    range: RangeName
    """Time range; empty = all."""
    before: str
    """Id that the page follows; empty = the first page."""

    def filter(self, tenant: str, *, now: float) -> JobFilter:
        """Return the conditions for the store; `now` is a Unix time in seconds."""
        return JobFilter(
            tenant=tenant,
            status=JobStatus(self.status) if self.status else None,
            text=self.text.strip(),
            door=Door(self.door) if self.door and self.door != "cli" else None,
            without_door=self.door == "cli",
            since=now - RANGES[self.range][1] if self.range else None,
        )

    @property
    def cursor(self) -> str | None:
        """The id, where it is one."""
        return self.before if _ID.match(self.before) else None

    @property
    def narrowed(self) -> bool:
        """Whether any filter is set."""
        return bool(self.status or self.text.strip() or self.door or self.range)

    def address(self, *, before: str = "") -> str:
        """Return the address of the page after the job `before`; empty = of the first page."""
        given = {"status": self.status, "text": self.text, "door": self.door, "range": self.range, "before": before}
        query = urlencode({name: value for name, value in given.items() if value})
        return f"/ui?{query}" if query else "/ui"


def list_values(
    rows: list[JobRow], points: Sequence[JobPoint], chosen: Chosen, *, now: float, took_s: float
) -> dict[str, Any]:
    """Return what the template of the list needs. `rows` may have one more than a page holds.

    `took_s`: seconds that the database needed. Among very many jobs a rare word is found by reading all of them, so the
    page asks again the more rarely the longer it took.
    """
    more = len(rows) > ROWS_PER_PAGE
    rows = rows[:ROWS_PER_PAGE]
    return {
        "now": now,
        "renew_s": round(min(RENEW_S_MAX, max(RENEW_S, took_s * RENEW_PER_SECOND))),
        "rows": rows,
        "chosen": chosen,
        "older": chosen.address(before=rows[-1].job_id) if more else None,
        "statuses": [status.value for status in JobStatus],
        "ranges": {name: label for name, (label, _) in RANGES.items()},
        "strip": _strip(points, now=now),
    }


def _strip(jobs: Sequence[JobPoint], *, now: float) -> dict[str, Any]:
    durations = sorted(job.finished_at - job.created_at for job in jobs if job.finished_at is not None)
    counts = Counter(job.status for job in jobs)
    final = len(durations)
    shares: list[tuple[str, int, float, float]] = []
    begin = 0.0
    for status in JobStatus:
        if counts[status]:
            share = counts[status] / len(jobs) * 100
            shares.append((status.value, counts[status], round(begin, 3), round(share, 3)))
            begin += share
    return {
        "points": json.dumps([_point(job, now) for job in reversed(jobs)], separators=(",", ":")),
        "total": len(jobs),
        "capped": len(jobs) >= STRIP_JOBS,
        "shares": shares,
        "unfinished": len(jobs) - final,
        "median_s": median(durations) if durations else None,
        "p95_s": durations[min(final - 1, int(final * 0.95))] if final else None,
        "succeeded": f"{counts[JobStatus.succeeded] / final:.0%}" if final else "–",
        "tokens": sum(job.tokens or 0 for job in jobs),
    }


def _point(job: JobPoint, now: float) -> list[Any]:
    """[begin, duration, status, id], times in seconds: app.js draws them."""
    duration = max(0.0, (job.finished_at or now) - job.created_at)
    return [round(job.created_at, 3), round(duration, 3), job.status.value, job.job_id]
