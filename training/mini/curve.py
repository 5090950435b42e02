"""The learning curve of a run as a small SVG."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

WIDTH_PX, HEIGHT_PX = 640, 320
MARGIN_PX = 44
SERIES = (
    ("greedy", "#1f6feb", "greedy, exact trace"),
    ("sampled", "#d97706", "temperature 1, chance of the reference trace"),
)
NOT_FAMILIES = ("judge", "plan", "refuse")


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Rows of ``metrics.jsonl`` in order."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]


def family_mean(probe: dict[str, dict[str, float]], figure: str) -> float:
    """Mean of one figure over the families, roles left out."""
    values = [row[figure] for name, row in probe.items() if name not in NOT_FAMILIES]
    return sum(values) / len(values)


def draw_curve(metrics: Path, out: Path) -> None:
    """Writes the SVG ``out``: held-out probes by tokens seen, mean over the families."""
    rows = [row for row in read_metrics(metrics) if "probe" in row]
    last = max(row["tokens"] for row in rows)
    inner_width, inner_height = WIDTH_PX - 2 * MARGIN_PX, HEIGHT_PX - 2 * MARGIN_PX

    def point(tokens: float, share: float) -> str:
        return f"{MARGIN_PX + inner_width * tokens / last:.1f},{HEIGHT_PX - MARGIN_PX - inner_height * share:.1f}"

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH_PX} {HEIGHT_PX}" font-family="sans-serif" font-size="11">',
        f'<rect width="{WIDTH_PX}" height="{HEIGHT_PX}" fill="#fff"/>',
    ]
    for tenth in range(0, 11, 2):
        x, y = point(0, tenth / 10).split(",")
        parts.append(f'<path d="M{x},{y}H{WIDTH_PX - MARGIN_PX}" stroke="#ddd"/>')
        parts.append(f'<text x="{MARGIN_PX - 6}" y="{y}" text-anchor="end" dy="4">{tenth * 10} %</text>')
    for quarter in range(5):
        x = point(last * quarter / 4, 0).split(",")[0]
        parts.append(
            f'<text x="{x}" y="{HEIGHT_PX - MARGIN_PX + 16}" text-anchor="middle">{last * quarter / 4e6:.1f} M</text>'
        )
    parts.append(f'<text x="{WIDTH_PX / 2}" y="{HEIGHT_PX - 8}" text-anchor="middle">training tokens</text>')
    for index, (figure, color, label) in enumerate(SERIES):
        points = " ".join(point(row["tokens"], family_mean(row["probe"], figure)) for row in rows)
        parts.append(f'<polyline points="{points}" fill="none" stroke="{color}" stroke-width="2"/>')
        parts.append(f'<text x="{MARGIN_PX + 8}" y="{MARGIN_PX - 22 + 15 * index}" fill="{color}">{label}</text>')
    out.write_text("\n".join([*parts, "</svg>"]) + "\n", encoding="utf-8")
