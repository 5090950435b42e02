"""The report as one HTML file that needs nothing else: styles and plots are in it, scripts are not."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from .model import Part, Report
from .origin import METHODS, origins
from .plots import plots_of
from .tables import tables_of
from .words import number, short, visible

TEMPLATES = Path(__file__).with_name("templates")


def to_html(report: Report) -> str:
    """Return the page. All text from runs is escaped; a policy forbids whatever is not the page's own style."""
    style = (TEMPLATES / "report.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return (
        _environment()
        .get_template("report.html")
        .render(
            report=report,
            parts=[(part, tables_of(part), plots_of(part)) for part in report.parts],
            title=", ".join(dict.fromkeys(part.suite for part in report.parts)) or "nothing",
            loud=[*report.warnings, *(one for part in report.parts for one in part.warnings if one.loud)],
            limits=_limits(report.parts),
            origins=origins(report.runs),
            methods=METHODS,
            # The style sheet is our own file, so it may stand there as it is.
            style=Markup(style),  # noqa: S704
            policy=f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'",
        )
    )


def _limits(parts: tuple[Part, ...]) -> list[tuple[str, list[str]]]:
    """Return the quiet warnings, each once with the targets that it holds for."""
    found: dict[str, list[str]] = {}
    for part in parts:
        for caution in part.warnings:
            if not caution.loud:
                found.setdefault(caution.text, []).extend([caution.target] if caution.target else [])
    return list(found.items())


def _shown(value: object) -> object:
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _kept(cell: str) -> str:
    """Return a cell whose interval is not broken over lines; a line may begin with it."""
    return cell.replace(", ", ",\xa0").replace(" / ", "\xa0/\xa0").replace("< ", "<\xa0").replace("≥ ", "≥\xa0")


@cache
def _environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    made.filters["kept"] = _kept
    made.filters["number"] = number
    made.filters["short"] = short
    # Only what plots.py drew: all text in it was escaped there.
    made.filters["drawn"] = Markup
    return made
