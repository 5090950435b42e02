"""Reports of made-up runs, and what tests look for in them."""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import Any

from harness.evaluations import SPECS, MadeUp, outcome, right_or_wrong
from k2think.evaluation.records import read_run
from k2think.evaluation.report.build import build_report
from k2think.evaluation.report.html import to_html
from k2think.evaluation.report.markdown import to_markdown
from k2think.evaluation.report.model import Caution, Report, TargetReport

ALONE = {"single": SPECS["single"]}


def report_of(*runs: MadeUp, folder: Path, **more: Any) -> Report:
    """Write the runs and report on them; every warning must be shown."""
    report = build_report([read_run(run.write(folder / f"run{place}")) for place, run in enumerate(runs)], **more)
    shown_everywhere(report)
    return report


def shown_everywhere(report: Report) -> None:
    """Every warning stands in the Markdown and in the page, the loud ones before any figure."""
    markdown, page = to_markdown(report), to_html(report)
    words = " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page)).split())
    for caution in (*report.warnings, *(one for part in report.parts for one in part.warnings)):
        assert " ".join(caution.text.split()) in words
        assert caution.text.split(",")[0].split("(")[0][:40] in markdown.replace("\\", "")
        if caution.loud:
            assert page.index(html.escape(caution.text[:20])) < page.index('class="part"')


def warning(report: Report, code: str, target: str | None = None) -> Caution:
    """Return the one warning of a code and a target; None = it is of no target alone."""
    found = [
        one for part in (report, *report.parts) for one in part.warnings if (one.code, one.target) == (code, target)
    ]
    assert len(found) == 1, (
        f"{code}: {[(one.code, one.target) for part in (report, *report.parts) for one in part.warnings]}"
    )
    return found[0]


def target(report: Report, name: str = "single") -> TargetReport:
    """Return what the report says of a target."""
    return next(one for part in report.parts for one in part.targets if one.name == name)


def half_right(run: MadeUp, name: str = "single", **more: Any) -> None:
    """Every other problem is solved."""
    numbers = {item.task.id: number for number, item in enumerate(run.items)}
    run.ask(
        name,
        lambda item, repeat: outcome(item, name, right_or_wrong(numbers[item.task.id] % 2 == 0), repeat=repeat, **more),
    )
