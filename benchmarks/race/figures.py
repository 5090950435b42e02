"""What the rounds come to: one row of figures per runner, and each as a ratio to the ideal one."""

import math
import statistics
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

_Z = 1.96
"""Standard deviations of a 95 % interval."""
COLUMNS = (
    "jobs_per_s",
    "p50_s",
    "p99_s",
    "calls_per_job",
    "tokens_per_job",
    "wasted_tokens_per_job",
    "accuracy",
    "cpu_ms_per_job",
)


@dataclass
class Tally:
    """All rounds of one runner."""

    jobs: int = 0
    wall_s: float = 0.0
    latencies_s: list[float] = field(default_factory=list[float])
    right: int = 0
    refused: int = 0
    failed: list[str] = field(default_factory=list[str])
    calls: Counter[str] = field(default_factory=Counter[str])
    prompt_tokens: int = 0
    tokens: int = 0
    wasted_tokens: int = 0
    streams_max: int = 0
    engine_cpu_s: float = 0.0
    client_cpu_s: float = 0.0
    cpu_s: dict[str, float] = field(default_factory=dict[str, float])
    """Of our processes, by name; of the ideal runner's own."""
    peak_mb: dict[str, float] = field(default_factory=dict[str, float])

    def add(self, outcome: dict[str, Any], ledger: dict[str, Any], cpu_s: dict[str, float]) -> None:
        """Add a round: the runner's outcome, the engine's ledger, the CPU of our processes."""
        self.jobs += len(outcome["latencies_s"])
        self.wall_s += outcome["wall_s"]
        self.latencies_s += outcome["latencies_s"]
        self.right += outcome["right"]
        self.refused += outcome["refused"]
        self.failed += outcome["failed"]
        self.client_cpu_s += outcome["cpu_s"]
        self.calls.update(ledger["calls"])
        self.prompt_tokens += ledger["prompt_tokens"]
        self.tokens += ledger["tokens"]
        self.wasted_tokens += ledger["wasted_tokens"]
        self.streams_max = max(self.streams_max, ledger["streams_max"])
        self.engine_cpu_s += ledger["cpu_s"]
        for name, seconds in cpu_s.items():
            self.cpu_s[name] = self.cpu_s.get(name, 0.0) + seconds

    def figures(self) -> dict[str, Any]:
        """Return the row."""
        jobs = max(1, self.jobs)
        return {
            "jobs": self.jobs,
            "refused": self.refused,
            "failed": len(self.failed),
            "first_failure": next(iter(self.failed), None),
            "jobs_per_s": self.jobs / self.wall_s,
            "p50_s": quantile(self.latencies_s, 0.5),
            "p95_s": quantile(self.latencies_s, 0.95),
            "p99_s": quantile(self.latencies_s, 0.99),
            "calls_per_job": self.calls.total() / jobs,
            "calls": {role: count / jobs for role, count in sorted(self.calls.items())},
            "prompt_tokens_per_job": self.prompt_tokens / jobs,
            "tokens_per_job": self.tokens / jobs,
            "wasted_tokens_per_job": self.wasted_tokens / jobs,
            "streams_max": self.streams_max,
            "accuracy": self.right / jobs,
            "accuracy_95": interval(self.right, jobs),
            "cpu_ms_per_job": 1000 * sum(self.cpu_s.values()) / jobs,
            "cpu_ms_by_process": {name: 1000 * value / jobs for name, value in sorted(self.cpu_s.items())},
            "client_cpu_ms_per_job": 1000 * self.client_cpu_s / jobs,
            "engine_cpu_ms_per_job": 1000 * self.engine_cpu_s / jobs,
            "engine_cores": self.engine_cpu_s / self.wall_s,
            "peak_mb": self.peak_mb,
        }


def quantile(values: list[float], share: float) -> float:
    """Return the value that this share of the values does not exceed; NaN when there are none."""
    if not values:
        return math.nan
    if share == 0.5:
        return statistics.median(values)
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)]


def interval(right: int, count: int) -> tuple[float, float]:
    """Return the 95 % interval of a proportion (Wilson 1927)."""
    share, square = right / count, _Z**2 / count
    middle = (share + square / 2) / (1 + square)
    half = _Z / (1 + square) * math.sqrt(share * (1 - share) / count + square / (4 * count))
    return middle - half, middle + half


def ratios(figures: dict[str, Any], ideal: dict[str, Any]) -> dict[str, float]:
    """Return the figures that are compared, as ratios to the ideal runner's."""
    names = ("jobs_per_s", "p50_s", "p99_s", "calls_per_job", "tokens_per_job", "accuracy")
    return {name: figures[name] / ideal[name] for name in names if ideal[name]}


def table(title: str, rows: dict[str, dict[str, Any]]) -> str:
    """Return the rows as Markdown."""
    lines = [f"{title}\n", f"| | {' | '.join(COLUMNS)} |", f"|---{'|---' * len(COLUMNS)}|"]
    for name, row in rows.items():
        lines.append(f"| {name} | {' | '.join(f'{row[column]:.4g}' for column in COLUMNS)} |")
        if "of_ideal" in row:
            cells = (row["of_ideal"].get(column) for column in COLUMNS)
            lines.append(f"| … of ideal | {' | '.join('' if cell is None else f'{cell:.3f}' for cell in cells)} |")
    return "\n".join(lines)


def rounded(value: Any) -> Any:
    """Return the figures with four significant digits."""
    if isinstance(value, float):
        return float(f"{value:.4g}") if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: rounded(item) for name, item in value.items()}
    return [rounded(item) for item in value] if isinstance(value, list | tuple) else value
