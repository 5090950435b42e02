"""The metrics of a run as one SVG: a panel for each figure that was measured, over the steps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

WIDTH_PX, HEIGHT_PX = 320, 200
"""Of one panel."""
MARGIN_PX = 40
COLUMNS = 2
COLOURS = ("#1f6feb", "#d97706")
"""Of a figure, and of the same on held-out data."""


@dataclass(frozen=True)
class Panel:
    """One figure over the steps."""

    name: str
    """Its key in a row of metrics; the same key below `evaluation` is drawn beside it."""
    title: str
    """What it says, with its unit."""


SFT_PANELS = (
    Panel("loss", "loss, nats a token"),
    Panel("token_accuracy", "tokens foretold right, share"),
    Panel("learning_rate", "learning rate"),
    Panel("gradient_norm", "norm of the gradient"),
)
GRPO_PANELS = (
    Panel("reward", "mean reward, 0 to 1"),
    Panel("correct_share", "answers counted right, share"),
    Panel("no_signal_share", "groups with equal rewards, share"),
    Panel("completion_tokens", "tokens of an answer, mean"),
    Panel("truncated_share", "answers cut at the limit, share"),
    Panel("entropy", "entropy, nats a token"),
)

Point = tuple[float, float]


def draw_metrics(rows: Sequence[Mapping[str, Any]], panels: Sequence[Panel]) -> str:
    """Return the SVG; figures that no row holds are left out."""
    drawn = [
        (panel, lines)
        for panel in panels
        if any(lines := (_points(rows, panel.name), _points([_held_out(row) for row in rows], panel.name)))
    ]
    height = HEIGHT_PX * max(1, -(-len(drawn) // COLUMNS))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH_PX * COLUMNS} {height}" font-family="sans-serif" font-size="10">',
        f'<rect width="{WIDTH_PX * COLUMNS}" height="{height}" fill="#fff"/>',
    ]
    for number, (panel, lines) in enumerate(drawn):
        x, y = number % COLUMNS * WIDTH_PX, number // COLUMNS * HEIGHT_PX
        parts += [f'<g transform="translate({x},{y})">', *_panel(panel.title, lines), "</g>"]
    return "\n".join([*parts, "</svg>", ""])


def _held_out(row: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"step": row["step"], **row.get("evaluation", {})}


def _points(rows: Sequence[Mapping[str, Any]], name: str) -> list[Point]:
    return [(float(row["step"]), float(row[name])) for row in rows if row.get(name) is not None]


def _panel(title: str, lines: Sequence[Sequence[Point]]) -> Iterator[str]:
    every = [point for line in lines for point in line]
    last = max(1.0, *(step for step, _ in every))
    low, high = min(0.0, *(value for _, value in every)), max(value for _, value in every)
    # A figure that never moves still needs a height.
    span = high - low or abs(high) or 1.0
    inner_width, inner_height = WIDTH_PX - 2 * MARGIN_PX, HEIGHT_PX - 2 * MARGIN_PX
    bottom = HEIGHT_PX - MARGIN_PX

    def place(point: Point) -> str:
        return f"{MARGIN_PX + inner_width * point[0] / last:.1f},{bottom - inner_height * (point[1] - low) / span:.1f}"

    yield f'<text x="{MARGIN_PX}" y="{MARGIN_PX - 14}" font-weight="bold">{escape(title)}</text>'
    for value in (low, low + span / 2, low + span):
        y = bottom - inner_height * (value - low) / span
        yield f'<path d="M{MARGIN_PX},{y:.1f}H{WIDTH_PX - MARGIN_PX}" stroke="#ddd"/>'
        yield f'<text x="{MARGIN_PX - 4}" y="{y:.1f}" text-anchor="end" dy="3">{value:.3g}</text>'
    yield f'<text x="{MARGIN_PX}" y="{bottom + 14}">0</text>'
    yield f'<text x="{WIDTH_PX - MARGIN_PX}" y="{bottom + 14}" text-anchor="end">step {last:.0f}</text>'
    for line, colour in zip(lines, COLOURS, strict=True):
        if len(line) == 1:
            x, y = place(line[0]).split(",")
            yield f'<circle cx="{x}" cy="{y}" r="2.5" fill="{colour}"/>'
        elif line:
            yield f'<polyline points="{" ".join(map(place, line))}" fill="none" stroke="{colour}" stroke-width="1.6"/>'
    if lines[1]:
        yield f'<text x="{WIDTH_PX - MARGIN_PX}" y="{MARGIN_PX - 14}" text-anchor="end" fill="{COLOURS[1]}">held out</text>'
