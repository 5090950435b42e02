"""Plots as inline SVG. Places along the width are in per cent, so that a plot fills a phone or a desk without scaling its text."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape

from ..statistics import Estimate
from .model import Part, TargetReport
from .words import number, percent, points, visible

_Words = Callable[[float], str]
ROW_PX = 46
"""Height of a target's row: its name, then its bar."""
TALL_ROW_PX = 62
"""The same with a line in between that says what it is."""
NAME_CHARS_MAX = 34
AXIS_PX = 30
PAD_PX = 8
LEFT, WIDTH = 7.0, 86.0
"""Where the drawing begins, and how wide it is, in per cent."""
SERIES = 8
"""Colours before they repeat."""
SCATTER_PX = 300
SCATTER_TOP_PX = 22
OUTCOMES = (
    ("right", "right"),
    ("wrong", "wrong"),
    ("unparsed", "no answer found"),
    ("truncated", "cut off"),
    ("refused", "refused"),
    ("errored", "failed"),
    ("ungraded", "check crashed"),
    ("missing", "missing"),
)
"""Fields of the counts with their words, in the order of the bar."""


@dataclass(frozen=True, slots=True)
class Plot:
    """One plot."""

    key: str
    """Stable name."""
    title: str
    """Heading."""
    note: str
    """What is drawn."""
    svg: str
    """The drawing: our own markup around escaped text."""
    legend: tuple[tuple[str, str], ...] = ()
    """(class of the sign, words)."""


@dataclass(frozen=True, slots=True)
class _Axis:
    start: float
    end: float
    ticks: tuple[float, ...]

    def at(self, value: float) -> str:
        return f"{LEFT + WIDTH * (value - self.start) / (self.end - self.start):.2f}%"


def plots_of(part: Part) -> list[Plot]:
    """Return the plots of a part; those with nothing to draw are left out."""
    graded = [target for target in part.targets if target.macro is not None]
    found: list[Plot] = []
    if graded:
        found.append(_accuracy(graded))
    if part.pairs:
        found.append(_differences(part))
    if part.targets:
        found.append(_outcomes(part.targets))
    if len(graded) > 1 and all(target.spending.tokens_per_question > 0 for target in graded):
        found.append(_tokens(graded))
    if len(part.subsets) > 1 and graded:
        found.append(_subsets(part, graded))
    return found


def _accuracy(targets: Sequence[TargetReport]) -> Plot:
    shown: list[float] = []
    for target in targets:
        shown.extend(_ends(target.macro))
        for found in target.best_of[:1]:
            shown.extend(estimate.value for estimate in (found.majority, found.oracle) if estimate is not None)
    axis = _axis(shown, floor=0.0, ceiling=1.0)
    height = PAD_PX + TALL_ROW_PX * len(targets) + AXIS_PX

    def parts() -> Iterator[str]:
        yield from _grid(axis, height, lambda value: f"{100 * value:g} %")
        for place, target in enumerate(targets):
            top = PAD_PX + TALL_ROW_PX * place
            yield _label(top, target.name, target.label, percent(target.macro))
            for found in target.best_of[:1]:
                for kind, estimate in (("oracle", found.oracle), ("vote", found.majority)):
                    if estimate is not None:
                        yield _sign(axis.at(estimate.value), top + 45, kind, f"{kind}@{found.n}: {percent(estimate)}")
            if target.macro is not None:
                yield from _bar(axis, top + 45, target.macro, f"s{place % SERIES}", percent(target.macro))

    return Plot(
        "accuracy",
        "Accuracy",
        "Macro average with its 95 % interval.",
        _svg(height, "Accuracy of each target", parts()),
        (("dot", "what it answered"), ("vote", "majority@N"), ("oracle", "oracle@N")),
    )


def _differences(part: Part) -> Plot:
    axis = _axis([0.0, *(end for pair in part.pairs for end in _ends(pair.difference))])
    height = PAD_PX + ROW_PX * len(part.pairs) + AXIS_PX

    def parts() -> Iterator[str]:
        yield from _grid(axis, height, lambda value: f"{100 * value:+g}".replace("-", "−") if value else "0")
        yield f'<line class="zero" x1="{axis.at(0)}" x2="{axis.at(0)}" y1="0" y2="{height - AXIS_PX}"/>'
        for place, pair in enumerate(part.pairs):
            top = PAD_PX + ROW_PX * place
            low, high = pair.difference.low, pair.difference.high
            kind = "up" if low is not None and low > 0 else "down" if high is not None and high < 0 else "even"
            yield _label(top, f"{pair.ours} − {pair.theirs}", "", points(pair.difference))
            yield from _bar(axis, top + 30, pair.difference, kind, points(pair.difference))

    return Plot(
        "pairs",
        "Differences",
        "Points of the macro average, paired by problem, with 95 % intervals. Grey: the interval holds zero.",
        _svg(height, "Differences between targets", parts()),
    )


def _outcomes(targets: Sequence[TargetReport]) -> Plot:
    height = PAD_PX + ROW_PX * len(targets)

    def parts() -> Iterator[str]:
        for place, target in enumerate(targets):
            top, start = PAD_PX + ROW_PX * place, 0.0
            whole = max(target.counts.expected, 1)
            yield _label(top, target.name, "", f"{number(target.counts.expected)} questions")
            for field, words in OUTCOMES:
                count = int(getattr(target.counts, field))
                if count:
                    width = 100 * count / whole
                    yield (
                        f'<rect class="o-{field}" x="{start:.2f}%" y="{top + 22}" width="{width:.2f}%" height="14">'
                        f"<title>{escape(target.name)}: {words} {count:,}</title></rect>"
                    )
                    start += width

    seen = [entry for entry in OUTCOMES if any(getattr(target.counts, entry[0]) for target in targets)]
    return Plot(
        "counts",
        "What became of the questions",
        "Nothing is left out.",
        _svg(height, "What became of the questions of each target", parts()),
        tuple((f"o-{field}", words) for field, words in seen),
    )


def _subsets(part: Part, targets: Sequence[TargetReport]) -> Plot:
    axis = _axis([end for t in targets for line in t.subsets for end in _ends(line.accuracy)], floor=0.0, ceiling=1.0)
    row_px = 24 + 9 * len(targets)
    height = PAD_PX + row_px * len(part.subsets) + AXIS_PX

    def parts() -> Iterator[str]:
        yield from _grid(axis, height, lambda value: f"{100 * value:g} %")
        for place, name in enumerate(part.subsets):
            top = PAD_PX + row_px * place
            lines = [target.subsets[place] for target in targets]
            weight = max(line.weight for line in lines)
            yield _label(top, name, "", f"n = {max(line.problems for line in lines):,}, {weight:.0%} of micro")
            for index, (target, line) in enumerate(zip(targets, lines, strict=True)):
                if line.accuracy is not None:
                    told = f"{target.name}, {name}: {percent(line.accuracy)}"
                    yield from _bar(axis, top + 24 + 9 * index, line.accuracy, f"s{index % SERIES}", told, small=True)

    return Plot(
        "subsets",
        "By subset",
        "With 95 % intervals. In the macro average every subset weighs the same.",
        _svg(height, "Accuracy by subset", parts()),
        tuple((f"s{index % SERIES}", target.name) for index, target in enumerate(targets)),
    )


def _tokens(targets: Sequence[TargetReport]) -> Plot:
    logs = [math.log10(target.spending.tokens_per_question) for target in targets]
    across = _Axis(min(logs) - 0.12, max(logs) + 0.12, ())
    axis = _axis([end for target in targets for end in _ends(target.macro)], floor=0.0, ceiling=1.0)
    bottom = SCATTER_PX - AXIS_PX

    def down(value: float) -> float:
        return round(
            SCATTER_TOP_PX + (bottom - SCATTER_TOP_PX) * (1 - (value - axis.start) / (axis.end - axis.start)), 1
        )

    def parts() -> Iterator[str]:
        for tick in axis.ticks:
            yield f'<line class="grid" x1="0" x2="100%" y1="{down(tick)}" y2="{down(tick)}"/>'
            yield f'<text class="tick" x="0" y="{down(tick) - 3}">{100 * tick:g} %</text>'
        yield f'<line class="axis" x1="0" x2="100%" y1="{bottom}" y2="{bottom}"/>'
        for tick in _round_numbers(across):
            yield f'<text class="tick mid" x="{across.at(math.log10(tick))}" y="{bottom + 18}">{number(tick)}</text>'
        for place, (target, log) in enumerate(zip(targets, logs, strict=True)):
            if target.macro is None:
                continue
            low, high = _ends(target.macro)[0], _ends(target.macro)[-1]
            told = f"{target.name}: {number(target.spending.tokens_per_question)} tokens, {percent(target.macro)}"
            yield f'<g class="s{place % SERIES}"><title>{escape(visible(told))}</title>'
            yield f'<line class="span" x1="{across.at(log)}" x2="{across.at(log)}" y1="{down(low)}" y2="{down(high)}"/>'
            yield f'<circle class="dot" cx="{across.at(log)}" cy="{down(target.macro.value)}" r="5"/></g>'

    return Plot(
        "tokens",
        "What accuracy costs",
        "Tokens a question, of all roles and with discarded samples (logarithmic), and the macro average.",
        _svg(SCATTER_PX, "Accuracy over tokens a question", parts()),
        tuple((f"s{index % SERIES}", target.name) for index, target in enumerate(targets)),
    )


def _svg(height: int, title: str, parts: Iterator[str]) -> str:
    inside = "".join(parts)
    return f'<svg role="img" aria-label="{escape(title)}" width="100%" height="{height}">{inside}</svg>'


def _grid(axis: _Axis, height: int, words: _Words) -> Iterator[str]:
    for tick in axis.ticks:
        yield f'<line class="grid" x1="{axis.at(tick)}" x2="{axis.at(tick)}" y1="0" y2="{height - AXIS_PX}"/>'
        yield f'<text class="tick mid" x="{axis.at(tick)}" y="{height - AXIS_PX + 18}">{words(tick)}</text>'
    yield f'<line class="axis" x1="0" x2="100%" y1="{height - AXIS_PX}" y2="{height - AXIS_PX}"/>'


def _label(top: int, name: str, more: str, figure: str) -> str:
    below = f'<text class="more" x="0" y="{top + 30}">{escape(visible(more))}</text>' if more else ""
    return (
        f'<text class="name" x="0" y="{top + 14}">{escape(visible(_cut(name)))}</text>'
        f'<text class="figure" x="100%" y="{top + 14}">{escape(figure)}</text>{below}'
    )


def _cut(name: str) -> str:
    return name if len(name) <= NAME_CHARS_MAX else f"{name[: NAME_CHARS_MAX - 1]}…"


def _bar(axis: _Axis, y: int, estimate: Estimate, kind: str, told: str, *, small: bool = False) -> Iterator[str]:
    yield f'<g class="{kind}"><title>{escape(visible(told))}</title>'
    if estimate.low is not None and estimate.high is not None:
        yield f'<line class="span" x1="{axis.at(estimate.low)}" x2="{axis.at(estimate.high)}" y1="{y}" y2="{y}"/>'
    yield f'<circle class="dot" cx="{axis.at(estimate.value)}" cy="{y}" r="{3.5 if small else 5}"/></g>'


def _sign(x: str, y: int, kind: str, told: str) -> str:
    # A path has no places in per cent, so it stands in a drawing of its own that has.
    shape = "M0 -6 L6 0 L0 6 L-6 0 Z" if kind == "vote" else "M-5 -6 L5 0 L-5 6 Z"
    return f'<svg x="{x}" y="{y}" overflow="visible"><path class="{kind}" d="{shape}"><title>{escape(told)}</title></path></svg>'


def _ends(estimate: Estimate | None) -> list[float]:
    if estimate is None:
        return []
    return [value for value in (estimate.low, estimate.value, estimate.high) if value is not None]


def _axis(values: Sequence[float], *, floor: float = -math.inf, ceiling: float = math.inf) -> _Axis:
    """Return an axis around the values, with four to eight ticks at round numbers."""
    low, high = min(values), max(values)
    room = max((high - low) * 0.08, 0.005)
    low, high = max(floor, low - room), min(ceiling, high + room)
    raw = (high - low) / 5
    step = next(factor * size for size in (_power(raw),) for factor in (1, 2, 5, 10) if factor * size >= raw)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    ticks = tuple(round(index * step, 10) for index in range(first, last + 1))
    return _Axis(ticks[0], ticks[-1], ticks)


def _power(value: float) -> float:
    return 10.0 ** math.floor(math.log10(value))


def _round_numbers(axis: _Axis) -> list[float]:
    found = [
        factor * 10.0**power
        for power in range(math.floor(axis.start) - 1, math.ceil(axis.end) + 1)
        for factor in (1, 2, 5)
        if axis.start <= math.log10(factor) + power <= axis.end
    ]
    return found or [round(10 ** ((axis.start + axis.end) / 2))]
