"""`k2think eval evidence`: makes the runs when asked to, packs them, prints the page."""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer

from ...schemas.errors import InvalidRequest

SPECULATION_NAME = "speculation.json"
"""What benchmarks/speculation.py printed, beside the packed runs."""
NOTES_NAME = "notes.md"
"""Reasons sought, written by hand, beside the packed runs."""


def eval_evidence(
    run: Annotated[bool, typer.Option("--run", help="Make the runs first; what one has is not asked again.")] = False,
    runs: Annotated[Path, typer.Option(help="Folder of the runs while they are made.")] = Path("evidence-runs"),
    packed: Annotated[Path, typer.Option(help="Folder of the packed runs.")] = Path("docs/evidence"),
    out: Annotated[Path | None, typer.Option("--out", "-o", help="File of the page; default: standard output.")] = None,
    problems: Annotated[int | None, typer.Option(min=8, help="Problems to ask. Default: 2000.")] = None,
    development: Annotated[
        bool, typer.Option("--development", help="Use the problems that anyone may choose by; never to be published.")
    ] = False,
) -> None:
    """Measure what each pillar brings on k2think-mini, and print it as one page.

    Without --run the page is printed from the packed runs, without asking any model.
    With --run every row is asked the same fresh problems, which takes about an hour on two cores; Ctrl-C loses nothing.

    Exit code: 0 when the page was printed, 1 when a question errored, 2 for bad usage, 4 when the runs were stopped.

    Examples:

      k2think eval evidence --run --out docs/evidence.md

      k2think eval evidence --run --development --problems 200 --packed /tmp/try
    """
    from .archive import ENDING, pack
    from .plan import PROBLEMS
    from .run import CONTROL, MAIN, make_runs

    code = 0
    if run:
        from ...schemas.settings import load_settings

        made = asyncio.run(make_runs(runs, load_settings(), problems=problems or PROBLEMS, report=not development))
        stopped = next((one.stopped for one in made if one.stopped), "")
        if stopped:
            print(f"not finished: {stopped}; run the same command again, and it goes on", file=sys.stderr)
            raise typer.Exit(4)
        code = 0 if all(one.complete for one in made) else 1
        for name in (MAIN, CONTROL):
            pack(runs / name, packed / f"{name}{ENDING}")
    elif problems is not None or development:
        raise InvalidRequest("--problems and --development say what is run: add --run")
    page = _page(packed)
    if out is None:
        print(page, end="")
    else:
        out.write_text(page, encoding="utf-8")
    raise typer.Exit(code)


def _page(packed: Path) -> str:
    from ..records import read_run
    from .archive import unpacked
    from .document import document

    with ExitStack() as stack:
        folders = stack.enter_context(unpacked(packed))
        found = {name: read_run(folder) for name, folder in folders.items()}
        notes = packed / NOTES_NAME
        return document(
            found,
            speculation=_speculation(packed / SPECULATION_NAME),
            notes=notes.read_text(encoding="utf-8") if notes.exists() else "",
        )


def _speculation(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as exc:
        raise InvalidRequest(f"{path} is not what benchmarks/speculation.py printed: {exc}") from exc
