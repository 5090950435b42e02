"""Options of the commands that load a suite."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Number = Annotated[int | None, typer.Option("--n", min=1, help="mini: problems in all. Default: 800.")]
Seed = Annotated[int | None, typer.Option(min=0, help="Of the draw (mini), or of the order of choices (gpqa_diamond).")]
SuitePath = Annotated[Path | None, typer.Option(help="File or folder of a published set, instead of the hub.")]
Hub = Annotated[str | None, typer.Option(metavar="OWNER/NAME", help="Data set of the suite at the hub, not the usual.")]
Revision = Annotated[str | None, typer.Option(help="Commit, tag or branch of it.")]
PublishedFrom = Annotated[
    str | None, typer.Option("--from", metavar="YYYY-MM-DD", help="livecodebench_v5: first day of contests.")
]
PublishedUntil = Annotated[
    str | None, typer.Option("--until", metavar="YYYY-MM-DD", help="livecodebench_v5: last day of contests.")
]
ScicodeTargets = Annotated[
    Path | None, typer.Option("--scicode-targets", help="scicode: test_data.h5 with the expected values.")
]
Limit = Annotated[int | None, typer.Option(min=1, help="The first so many items alone.")]
