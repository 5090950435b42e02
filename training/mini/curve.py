"""The learning curves of a run as one small SVG: base and SFT on the left, GRPO on the right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .families import FAMILIES
from .journal import read_metrics

PANEL_PX, HEIGHT_PX = 520, 320
MARGIN_PX = 44
BLUE, ORANGE, GREEN = "#1f6feb", "#d97706", "#1a7f37"
SMOOTHED_STEPS = 10
"""Rewards are shown as means of so many steps."""


@dataclass(frozen=True)
class Line:
    """One curve of a panel."""

    label: str
    """What it shows."""
    color: str
    """CSS colour."""
    points: list[tuple[float, float]]
    """(place on the x axis, share in 0..1), in order."""


def family_mean(probe: dict[str, dict[str, float]], figure: str) -> float:
    """Mean of one figure of a probe over the families, roles left out."""
    values = [row[figure] for name, row in probe.items() if name in FAMILIES]
    return sum(values) / len(values)


def draw_curve(metrics: Path, out: Path) -> None:
    """Writes the SVG ``out`` from ``metrics.jsonl``; a stage that has not run yet is left out."""
    rows = read_metrics(metrics)
    panels = [
        _panel("training tokens, in millions", _supervised(rows), 0),
        _panel("GRPO steps", _reinforced(rows), PANEL_PX),
    ]
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {2 * PANEL_PX} {HEIGHT_PX}" font-family="sans-serif" font-size="11">'
    ground = f'<rect width="{2 * PANEL_PX}" height="{HEIGHT_PX}" fill="#fff"/>'
    out.write_text("\n".join([head, ground, *panels, "</svg>"]) + "\n", encoding="utf-8")


def _supervised(rows: Sequence[dict[str, Any]]) -> list[Line]:
    probed = [row for row in rows if "probe" in row]
    # The last row of the base stage is where SFT begins.
    base = max((row["tokens"] for row in probed if row["stage"] == "base"), default=0)
    lines: list[Line] = []
    for figure, color, label in (
        ("greedy", BLUE, "greedy, exact trace"),
        ("sampled", ORANGE, "T = 1, chance of the reference trace"),
    ):
        places = [((row["tokens"] + (base if row["stage"] == "sft" else 0)) / 1e6, row) for row in probed]
        lines.append(Line(label, color, [(place, family_mean(row["probe"], figure)) for place, row in places]))
    return lines


def _reinforced(rows: Sequence[dict[str, Any]]) -> list[Line]:
    steps = [row for row in rows if row["stage"] == "grpo"]
    rewarded = [row for row in steps if "reward" in row]
    means: list[tuple[float, float]] = []
    for first in range(0, len(rewarded), SMOOTHED_STEPS):
        some = rewarded[first : first + SMOOTHED_STEPS]
        means.append((some[-1]["step"], sum(row["reward"] for row in some) / len(some)))
    tried = [row for row in steps if "trial" in row]
    return [
        Line(f"reward in training, means of {SMOOTHED_STEPS} steps", GREEN, means),
        Line("development problems, T = 1", ORANGE, [(row["step"], row["trial"]["solve"]) for row in tried]),
        Line("judge's verdicts, T = 1", BLUE, [(row["step"], row["trial"]["judge"]) for row in tried]),
    ]


def _panel(axis: str, lines: Sequence[Line], left: int) -> str:
    last = max((place for line in lines for place, _ in line.points), default=0) or 1
    width, height = PANEL_PX - 2 * MARGIN_PX, HEIGHT_PX - 2 * MARGIN_PX

    def point(place: float, share: float) -> tuple[str, str]:
        return f"{left + MARGIN_PX + width * place / last:.1f}", f"{HEIGHT_PX - MARGIN_PX - height * share:.1f}"

    parts: list[str] = []
    for tenth in range(0, 11, 2):
        x, y = point(0, tenth / 10)
        parts.append(f'<path d="M{x},{y}h{width}" stroke="#ddd"/>')
        parts.append(f'<text x="{left + MARGIN_PX - 6}" y="{y}" text-anchor="end" dy="4">{tenth * 10} %</text>')
    for quarter in range(5):
        x, _ = point(last * quarter / 4, 0)
        shown = f"{last * quarter / 4:.{0 if last > 40 else 1}f}"
        parts.append(f'<text x="{x}" y="{HEIGHT_PX - MARGIN_PX + 16}" text-anchor="middle">{shown}</text>')
    parts.append(f'<text x="{left + PANEL_PX / 2}" y="{HEIGHT_PX - 8}" text-anchor="middle">{axis}</text>')
    for index, line in enumerate(lines):
        points = " ".join(",".join(point(place, share)) for place, share in line.points)
        parts.append(f'<polyline points="{points}" fill="none" stroke="{line.color}" stroke-width="2"/>')
        parts.append(
            f'<text x="{left + MARGIN_PX + 8}" y="{MARGIN_PX - 30 + 14 * index}" fill="{line.color}">{line.label}</text>'
        )
    return "\n".join(parts)
