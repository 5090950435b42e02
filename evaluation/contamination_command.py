"""`k2think eval contamination`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import ValidationError

from ..schemas.errors import InvalidRequest, explain
from ..schemas.evaluation import OverlapKind
from .suite_arguments import (
    Hub,
    Limit,
    Number,
    PublishedFrom,
    PublishedUntil,
    Revision,
    ScicodeTargets,
    Seed,
    SuitePath,
)

if TYPE_CHECKING:
    from ..schemas.evaluation import Item


def eval_contamination(
    suite: Annotated[
        str,
        typer.Argument(help="A suite (`k2think eval suites`), a file of items, NAME.jsonl, or the folder of a run."),
    ],
    against: Annotated[
        list[str],
        typer.Option(
            "--against",
            help="Training data: a file (JSON lines, JSON, Parquet, CSV, text), a folder, or a data set at the hub; repeatable.",
        ),
    ],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", dir_okay=False, help="Write OUT.json and OUT.md, too.")
    ] = None,
    declared: Annotated[
        str | None,
        typer.Option(
            help="What the data is to the model, in words. Without it, what is not found reads unknown, never clean."
        ),
    ] = None,
    target: Annotated[str | None, typer.Option("--target", "-t", help="Target whose training data it is.")] = None,
    match: Annotated[
        OverlapKind | None,
        typer.Option(help="Weakest kind of match that counts. Default: exact for generated items (mini), else fuzzy."),
    ] = None,
    problems_only: Annotated[
        bool, typer.Option("--problems-only", help="Look at what the data asks, not at what it answers.")
    ] = False,
    n: Number = None,
    seed: Seed = None,
    path: SuitePath = None,
    hub: Hub = None,
    revision: Revision = None,
    published_from: PublishedFrom = None,
    published_until: PublishedUntil = None,
    targets_h5: ScicodeTargets = None,
    limit: Limit = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON instead of Markdown.")] = False,
) -> None:
    """Look for a suite's items in training data: whole, 13 or 8 words in a row, or nearly.

    Each item reads contaminated, clean or unknown, with the matching text and its place.
    Clean needs a declaration of what the data is, and that all of it could be read.

    The report is for `k2think eval report --contamination OUT.json`, which then shows scores for all items and for clean ones.

    Examples:

      k2think eval contamination aime_2024 --against a-m-team/AM-Thinking-v1-Distilled --out aime-am

      k2think eval contamination runs/try --against data/sft --declared "all of its SFT data; pre-training: none" -o try
    """
    from .contamination import SearchOptions, search, to_markdown, write

    asked: dict[str, Any] = {
        "n": n,
        "seed": seed,
        "path": path,
        "hub": hub,
        "revision": revision,
        "published_from": published_from,
        "published_until": published_until,
        "targets_file": targets_h5,
        "limit": limit,
    }
    name, items = _items(suite, {key: value for key, value in asked.items() if value is not None})
    options = SearchOptions(target=target, declared=declared, weakest=match, problems_only=problems_only, quiet=as_json)
    report = search(name, items, against, options)
    typer.echo(report.model_dump_json(indent=2) if as_json else to_markdown(report).rstrip())
    if out is not None:
        for written in write(report, out):
            typer.echo(f"wrote {written}", err=True)


def _items(suite: str, asked: dict[str, Any]) -> tuple[str, tuple[Item, ...]]:
    """Return the name and the items. Raises InvalidRequest, NotFound."""
    from .records import ITEMS_NAME, read_run
    from .suites.options import SuiteOptions
    from .suites.registry import suite as load_suite

    folder = Path(suite)
    if folder.is_dir():
        if asked:
            raise InvalidRequest(
                f"{folder} is a run, whose items are what they are: {', '.join(asked)} means nothing here"
            )
        run = read_run(folder)
        if not run.items:
            raise InvalidRequest(f"{folder} has no items that can be read: {ITEMS_NAME} is missing or damaged")
        return run.manifest.suite if run.manifest is not None else run.name, run.items
    try:
        options = SuiteOptions(**asked)
    except ValidationError as exc:
        raise InvalidRequest(f"the options of the suite do not fit: {explain(exc)}") from exc
    return suite, load_suite(suite, options)
