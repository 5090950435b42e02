"""A measurement as a picture: one SVG with throughput and time to first token over the number of streams."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from html import escape
from math import ceil, floor, log2, log10

from ..agents.bench.figures import Level
from ..agents.bench.run import Report

WIDTH, HEIGHT = 960, 430
PANEL = (370, 270)
"""Width and height of the drawing inside its axes."""
TOP = 56
LEFTS = (70, 550)
LINE_Y = 386
"""Where the legend begins."""
_COLOURS = ("#1f6f8b", "#c8553d", "#5a7d2a", "#7a4e9c")
_STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#333}.t{font-size:15px;font-weight:600}.a{stroke:#999}.g{stroke:#e4e4e4}"
    "path{fill:none;stroke-width:2}@media(prefers-color-scheme:dark){text{fill:#ddd}.g{stroke:#444}.b{fill:#1b1b1b}}"
)


@dataclass(frozen=True, slots=True)
class _Line:
    label: str
    points: tuple[tuple[int, float], ...]
    """(streams, value)."""
    colour: str
    dash: str
    """Dash pattern; empty = solid."""


def drawn(report: Report, *, title: str) -> str:
    """Return the SVG."""
    rates, firsts = list(_rates(report)), list(_firsts(report))
    streams = sorted({level.streams for variant in report.variants for level in variant.levels})
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" role="img">',
            f"<title>{escape(title)}</title><style>{_STYLE}</style>",
            f'<rect class="b" width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
            f'<text class="t" x="20" y="24">{escape(title)}</text>',
            *_panel(LEFTS[0], "tokens per second, all streams together", rates, streams),
            *_panel(LEFTS[1], "seconds to the first token", firsts, streams),
            *_legend(LEFTS[0], rates),
            *_legend(LEFTS[1], firsts),
            "</svg>",
            "",
        ]
    )


def _rates(report: Report) -> Iterator[_Line]:
    for number, variant in enumerate(report.variants):
        colour = _COLOURS[number % len(_COLOURS)]
        yield _line(variant.name, variant.levels, lambda level: level.ours.tokens_per_s, colour, "")
        yield _line(
            f"{variant.name}, bare client",
            variant.levels,
            lambda level: level.bare and level.bare.tokens_per_s,
            colour,
            "2 4",
        )
    if report.variants:
        levels = report.variants[0].levels
        yield _line("limit of the memory", levels, lambda level: level.limit_tokens_per_s, "#888", "9 5")


def _firsts(report: Report) -> Iterator[_Line]:
    for number, variant in enumerate(report.variants):
        colour = _COLOURS[number % len(_COLOURS)]
        yield _line(f"{variant.name}, median", variant.levels, lambda level: level.ours.first_token_p50_s, colour, "")
        yield _line(f"{variant.name}, 95 %", variant.levels, lambda level: level.ours.first_token_p95_s, colour, "7 4")


def _line(
    label: str, levels: tuple[Level, ...], value: Callable[[Level], float | None], colour: str, dash: str
) -> _Line:
    points = [(level.streams, value(level)) for level in levels]
    return _Line(label, tuple((streams, found) for streams, found in points if found), colour, dash)


def _panel(left: int, heading: str, lines: list[_Line], streams: list[int]) -> Iterator[str]:
    """Draw axes and lines: streams by powers of two, values by powers of ten."""
    width, height = PANEL
    values = [value for line in lines for _, value in line.points]
    low, high = (floor(log10(min(values))), ceil(log10(max(values)))) if values else (0, 1)
    high = max(high, low + 1)
    first, last = log2(streams[0]), max(log2(streams[-1]), log2(streams[0]) + 1)

    def x(count: float) -> float:
        return round(left + (log2(count) - first) / (last - first) * width, 1)

    def y(value: float) -> float:
        return round(TOP + height - (log10(value) - low) / (high - low) * height, 1)

    yield f'<text x="{left}" y="{TOP - 10}">{escape(heading)}</text>'
    for power in range(low, high + 1):
        for factor in (1, 2, 5) if high - low <= 2 and power < high else (1,):
            at = y(factor * 10.0**power)
            yield f'<line class="g" x1="{left}" x2="{left + width}" y1="{at}" y2="{at}"/>'
            yield f'<text x="{left - 6}" y="{at + 4}" text-anchor="end">{factor * 10.0**power:g}</text>'
    yield f'<line class="a" x1="{left}" x2="{left + width}" y1="{TOP + height}" y2="{TOP + height}"/>'
    for count in streams:
        yield f'<text x="{x(count)}" y="{TOP + height + 18}" text-anchor="middle">{count}</text>'
    yield f'<text x="{left + width}" y="{TOP + height + 34}" text-anchor="end">streams at once</text>'
    for line in lines:
        places = [(x(count), y(value)) for count, value in line.points]
        path = " ".join(f"{'L' if index else 'M'}{across} {down}" for index, (across, down) in enumerate(places))
        if path:
            yield f'<path d="{path}" stroke="{line.colour}" stroke-dasharray="{line.dash}"/>'
        for across, down in places:
            yield f'<circle cx="{across}" cy="{down}" r="3" fill="{line.colour}"/>'


def _legend(left: int, lines: list[_Line]) -> Iterator[str]:
    shown = [line for line in lines if line.points]
    for number, line in enumerate(shown):
        across, down = left + number % 2 * 200, LINE_Y + number // 2 * 16
        yield f'<path d="M{across} {down - 4} h22" stroke="{line.colour}" stroke-dasharray="{line.dash}"/>'
        yield f'<text x="{across + 28}" y="{down}" style="font-size:11px">{escape(line.label)}</text>'
