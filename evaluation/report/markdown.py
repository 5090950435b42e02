"""The report as Markdown, for terminals, repositories and pull requests."""

from __future__ import annotations

import re
from collections.abc import Iterator

from .model import Caution, Example, Part, Report
from .origin import METHODS, origins
from .tables import Table, tables_of
from .words import NOTHING, short, visible

_SPECIAL = re.compile(r"([\\`*_\[\]<>|#~&$])")


def to_markdown(report: Report) -> str:
    """Return the report as Markdown. Names, prompts and answers are text: nothing in them is markup."""
    return "\n".join(_lines(report)) + "\n"


def escaped(text: str) -> str:
    """Return text on one line in which Markdown and HTML see nothing but text."""
    return _SPECIAL.sub(r"\\\1", visible(" ".join(text.split())))


def _lines(report: Report) -> Iterator[str]:
    suites = ", ".join(dict.fromkeys(part.suite for part in report.parts)) or "nothing"
    yield f"# Evaluation: {escaped(suites)}"
    yield ""
    yield from _cautions(
        "Read this first", [*report.warnings, *(one for part in report.parts for one in part.warnings if one.loud)]
    )
    for place, part in enumerate(report.parts, 1):
        yield from _part(part, f"Part {place}: " if len(report.parts) > 1 else "")
    yield from ("## What was run", "")
    for table in origins(report.runs):
        yield from _table(table)
    yield from ("## How the figures are made", "")
    yield from (f"- {escaped(sentence)}" for sentence in METHODS)
    yield f"- Made by k2think {escaped(report.k2think_version)}."


def _part(part: Part, prefix: str) -> Iterator[str]:
    yield f"## {prefix}{escaped(part.suite)}"
    yield ""
    subsets = f"{len(part.subsets)} subset" + ("s" if len(part.subsets) != 1 else "")
    yield f"{part.problems:,} problems in {subsets}; data {short(part.data_sha256)}, grader {short(part.grader_sha256)}, judge {escaped(part.judge or 'none')}."
    yield ""
    for table in tables_of(part):
        yield from _table(table)
    yield from _cautions("Limits", [one for one in part.warnings if not one.loud])
    for target in part.targets:
        if target.examples:
            yield f"### Answers to look at: {escaped(target.name)}"
            yield ""
            for example in target.examples:
                yield _example(example)
            yield ""


def _cautions(title: str, cautions: list[Caution]) -> Iterator[str]:
    if cautions:
        yield f"### {title}"
        yield ""
        for caution in cautions:
            about = f"{escaped(caution.target)}: " if caution.target else ""
            yield f"- {'**Warning.** ' if caution.loud else ''}{about}{escaped(caution.text)}"
        yield ""


def _table(table: Table) -> Iterator[str]:
    yield f"### {escaped(table.title)}"
    yield ""
    if table.note:
        yield escaped(table.note)
        yield ""
    yield _row(table.head)
    yield _row(tuple("---" if place < table.words else "---:" for place in range(len(table.head))), ready=True)
    yield from (_row(row) for row in table.rows)
    yield ""


def _row(cells: tuple[str, ...], *, ready: bool = False) -> str:
    return f"| {' | '.join(cell if ready else escaped(cell) for cell in cells)} |"


def _example(example: Example) -> str:
    parts = [
        f"**{example.status.value}** {escaped(example.problem)} ({escaped(example.subset)}, repeat {example.repeat})",
        f"reason {escaped(example.reason) or NOTHING}",
        f"answer {escaped(example.answer) if example.answer is not None else 'none'}",
        f"truth {escaped(example.truth) or 'unknown'}",
    ]
    return f"- {'; '.join(parts)}"
