"""How long it took until work went on after each fault, and percentiles of that by kind of fault."""

import statistics
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from faults import Injected, pid_of
from invariants import Rows

TARGET_P95_S = {"worker_kill": 15.0, "redis_restart": 10.0, "database_restart": 10.0}
"""What it should be at most."""


def kind_of(fault: str) -> str:
    """Return the kind of a fault, by its name."""
    family, _, what = fault.partition(":")
    if family == "kill":
        return f"{what}_kill" if what in ("gateway", "sweeper") else "worker_kill"
    if fault in ("redis:kill", "redis:lost"):
        return "redis_restart"
    return "database_restart" if fault == "postgresql:restart" else family


def note_recovery(injected: list[Injected], rows: Rows) -> None:
    """Find out how long it took until work went on after each fault."""
    claims: dict[tuple[str, str], list[Any]] = defaultdict(list)
    for attempt in rows.attempts:
        claims[attempt.job_id, attempt.step].append(attempt)
    for fault in injected:
        if fault.recovery_s is not None:
            continue
        if kind_of(fault.name) == "worker_kill" and fault.pid is not None:
            fault.recovery_s = _taken_up(claims, fault) or _gone_on(rows, fault)
        else:
            after = [
                attempt.finished_at - fault.ended
                for attempt in rows.attempts
                if attempt.claimed_at >= fault.ended and attempt.outcome == "done" and attempt.finished_at is not None
            ]
            fault.recovery_s = min(after, default=None)


def _taken_up(claims: dict[tuple[str, str], list[Any]], fault: Injected) -> float | None:
    """Seconds from the kill until the last of the killed worker's steps was claimed again; None = it had none."""
    waited: list[float] = []
    for attempts in claims.values():
        for attempt in attempts:
            if pid_of(attempt.worker) == fault.pid and attempt.outcome == "lost":
                again = [one.claimed_at for one in attempts if one.attempt == attempt.attempt + 1]
                waited += [at - fault.began for at in again]
    return max(waited, default=None)


def _gone_on(rows: Rows, fault: Injected) -> float | None:
    """Seconds from the kill until a worker of the same role claimed its next step; None = it never did."""
    role = fault.name.partition(":")[2].partition("-")[0]
    claimed = [
        attempt.claimed_at - fault.began
        for attempt in rows.attempts
        if attempt.claimed_at > fault.began
        and attempt.worker.partition("-")[0] == role
        and pid_of(attempt.worker) != fault.pid
    ]
    return min(claimed, default=None)


def recovery(faults: Iterable[tuple[str, float | None]]) -> dict[str, dict[str, float | int]]:
    """Percentiles by kind of fault, from names and seconds, where there was something to go on with."""
    kinds: dict[str, list[float]] = defaultdict(list)
    for name, seconds in faults:
        if seconds is not None:
            kinds[kind_of(name)].append(seconds)
            kinds["all"].append(seconds)
    found = {kind: percentiles(values) for kind, values in sorted(kinds.items())}
    for kind, target in TARGET_P95_S.items():
        if kind in found:
            found[kind]["p95_target"] = target
    return found


def percentiles(values: list[float]) -> dict[str, float | int]:
    """Return count, p50, p95 and max."""
    ordered = sorted(values)
    return {
        "count": len(ordered),
        "p50": round(statistics.median(ordered), 2),
        "p95": round(ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))], 2),
        "max": round(ordered[-1], 2),
    }
