"""A measurement as text."""

from collections.abc import Iterator

from rich.console import Console

from ..agents.bench.figures import Figures, Level, Variant
from ..agents.bench.load import Load
from ..agents.bench.run import Report
from .terminal import PIPE_COLUMNS, plain, table

OVERHEAD_MAX = 0.03
"""Share of a bare client's throughput that ours may lack."""
_FACTS = ("address", "context", "threads", "speculation", "engine")
"""Of what a backend tells of itself, what matters here."""


def report_lines(report: Report, load: Load, *, title: str) -> list[str]:
    """Return everything for people: a table for each variant, and what to read from it."""
    return [plain(line).rstrip() for line in _lines(report, load, title)]


def _lines(report: Report, load: Load, title: str) -> Iterator[str]:
    yield title
    yield (
        f"{load.rounds} rounds of {load.calls} calls a stream, prompts of about {load.prompt_tokens} tokens, "
        f"at most {load.output_tokens} generated, temperature {load.temperature:g}"
    )
    for variant in report.variants:
        yield ""
        facts = ", ".join(f"{name} {variant.facts[name]}" for name in _FACTS if name in variant.facts)
        yield f"{variant.name} ({facts})" if facts else variant.name
        yield from _table(variant)
        yield from _words(variant)
    yield ""
    yield _limit_words(report)
    yield from _speculation_words(report.variants)


def _table(variant: Variant) -> list[str]:
    columns = (
        "STREAMS",
        "FIRST p50",
        "p95",
        "TOK/S A STREAM",
        "TOK/S IN ALL",
        "BARE",
        "OVERHEAD",
        "ACCEPTED",
        "LIMIT",
        "TOKENS A CALL",
    )
    rows = table(*columns)
    for column in rows.columns:
        column.justify = "right"
    for level in variant.levels:
        rows.add_row(*_cells(level))
    drawing = Console(width=PIPE_COLUMNS, markup=False, highlight=False, emoji=False, color_system=None)
    with drawing.capture() as caught:
        drawing.print(rows)
    return caught.get().splitlines()


def _cells(level: Level) -> tuple[str, ...]:
    ours = level.ours
    return (
        str(level.streams),
        _seconds(ours.first_token_p50_s),
        _seconds(ours.first_token_p95_s),
        _rate(ours.stream_tokens_per_s),
        _rate(ours.tokens_per_s),
        "–" if level.bare is None else _rate(level.bare.tokens_per_s),
        "–" if level.overhead is None else f"{level.overhead:.1%}",
        _accepted(ours),
        _rate(level.limit_tokens_per_s),
        "–" if ours.tokens is None else f"{ours.prompt_tokens or 0:.0f} + {ours.tokens:.0f}",
    )


def _words(variant: Variant) -> Iterator[str]:
    for level in variant.levels:
        for who, figures in (("our", level.ours), ("bare", level.bare)):
            if figures is not None and figures.failed:
                yield (
                    f"{level.streams} streams: {figures.failed} of {figures.failed + figures.calls} calls of {who} client "
                    f"failed: {'; '.join(figures.failures)}"
                )
    found = [level.overhead for level in variant.levels if level.overhead is not None]
    if found:
        over = [str(level.streams) for level in variant.levels if (level.overhead or 0) > OVERHEAD_MAX]
        above = f"; above {OVERHEAD_MAX:.0%} at {', '.join(over)} streams" if over else f", within {OVERHEAD_MAX:.0%}"
        yield f"overhead from {min(found):.1%} to {max(found):.1%}{above}"


def _limit_words(report: Report) -> str:
    roofline = report.roofline
    if roofline.bandwidth_bytes_per_s is None or not roofline.model_bytes:
        return "limit: not known (--memory-bandwidth and --model-size tell it)"
    return (
        f"limit: {roofline.bandwidth_bytes_per_s / 1e9:,.1f} GB/s ({roofline.bandwidth_from}) "
        f"over {roofline.model_bytes / 1e6:,.1f} MB of weights a step, times the streams"
    )


def _speculation_words(variants: tuple[Variant, ...]) -> Iterator[str]:
    """Say up to how many streams speculation pays, where both ways were measured."""
    if len(variants) != 2:
        return
    plain_way, speculating = variants
    pays = [
        level.streams
        for level, other in zip(speculating.levels, plain_way.levels, strict=True)
        if level.ours.tokens_per_s > other.ours.tokens_per_s
    ]
    gains = ", ".join(
        f"{level.ours.tokens_per_s / other.ours.tokens_per_s - 1:+.0%} at {level.streams}"
        for level, other in zip(speculating.levels, plain_way.levels, strict=True)
        if other.ours.tokens_per_s > 0
    )
    verdict = f"pays at {', '.join(map(str, pays))} streams" if pays else "pays at none of these numbers of streams"
    yield f"speculation {verdict} ({gains})"


def _accepted(figures: Figures) -> str:
    if figures.draft_acceptance is None:
        return "–"
    length = "" if figures.accepted_length is None else f", {figures.accepted_length:.2f} tokens"
    return f"{figures.draft_acceptance:.0%}{length}"


def _seconds(value: float | None) -> str:
    return "–" if value is None else f"{value * 1000:,.0f} ms" if value < 10 else f"{value:,.1f} s"


def _rate(value: float | None) -> str:
    return "–" if value is None else f"{value:,.1f}" if value < 100 else f"{value:,.0f}"
