"""`k2think eval report` and `k2think eval compare`. What they need is imported when they run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ...training.extras import require

MODULES = ("jinja2", "numpy")


def eval_report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN…", help="Folders that `k2think eval run` wrote.")],
    out: Annotated[
        Path | None,
        typer.Option(file_okay=False, help="Folder for report.md, report.html and report.json. Not given: print it."),
    ] = None,
    formats: Annotated[
        str | None,
        typer.Option("--format", metavar="LIST", help="Of md, html, json. Default: all with --out, else md."),
    ] = None,
    contamination: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="What `k2think eval contamination` found; may be repeated."),
    ] = None,
    against_published: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="More figures of others, in the form of published.toml; may be repeated."),
    ] = None,
) -> None:
    """Report on runs: what was asked, what came back, how sure it is, what it cost.

    Runs of the same problems with the same grader and judge stand together, so that their targets are compared.
    Others stand apart, and the report says so.
    A run that is not finished or damaged is reported as far as it goes, with what is missing.

    Exit code: 0 when the report was made, whatever it says; 2 for bad usage.

    Examples:

      k2think eval report runs/mini --out report

      k2think eval report runs/mini runs/mini-grpo --format md

      k2think eval report runs/aime --contamination overlap.json --against-published ours.toml --out report
    """
    require(MODULES, "evaluation")
    from .files import WRITERS, formats_of, report_on, write_report

    chosen = formats_of(formats) if formats else (tuple(WRITERS) if out is not None else ("md",))
    if out is None and len(chosen) > 1:
        raise typer.BadParameter("several formats need a folder: add --out DIR", param_hint="--format")
    first = next(iter(chosen))
    report = report_on(runs, contamination=contamination or (), published=against_published or ())
    if out is None:
        typer.echo(WRITERS[first](report), nl=False)
    else:
        for path in write_report(report, out, chosen):
            typer.echo(path)
    loud = sum(one.loud for part in (report, *report.parts) for one in part.warnings)
    if loud:
        typer.echo(f"{loud} warnings: the report begins with them", err=True)


def eval_compare(
    ours: Annotated[str, typer.Argument(metavar="RUN:TARGET", help="A run's folder and a target of it.")],
    theirs: Annotated[str, typer.Argument(metavar="RUN:TARGET", help="What it is compared with.")],
    anyway: Annotated[
        bool, typer.Option(help="Compare the problems that both have, even where data, grader or judge differ.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compare two targets on the same problems: difference, interval, p, and all else in which they differ.

    Where problems, grader or judge are not the same it refuses; --anyway compares and says so.

    Examples:

      k2think eval compare runs/mini:best-of-3 runs/mini:single

      k2think eval compare runs/grpo:single runs/sft:single --json
    """
    require(MODULES, "evaluation")
    from .files import compare_targets, pair_lines

    pair = compare_targets(ours, theirs, anyway=anyway)
    typer.echo(pair.model_dump_json(indent=2) if as_json else "\n".join(pair_lines(pair)))
