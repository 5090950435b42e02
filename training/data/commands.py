"""`k2think train convert`, `mix` and `from-log`."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ...schemas.errors import InvalidRequest
from ...schemas.evaluation import OverlapKind
from .choices import By, Evidence, Kind, Order, Verify

if TYPE_CHECKING:
    from .manifest import DataManifest

Out = Annotated[Path, typer.Option("--out", file_okay=False, help="Folder to write.")]
Against = Annotated[
    list[Path] | None,
    typer.Option(
        "--against",
        exists=True,
        help="Evaluation set to keep out: a file (JSON lines, JSON, Parquet, CSV, text) or a folder of such; repeatable.",
    ),
]
Match = Annotated[
    OverlapKind, typer.Option("--match", help="Weakest kind of match with these sets for which a record is left out.")
]
Checking = Annotated[
    Verify,
    typer.Option(
        help="Answers that cannot be checked: known = keep and count them, strict = leave them out, off = check none."
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace training data that is in the folder already.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the manifest as JSON.")]


def convert(
    kind: Annotated[
        Kind, typer.Argument(help="am = AM-Thinking-v1-Distilled or AM-Qwen3-Distilled, guru = guru-RL-92k.")
    ],
    source: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...", help="Files, folders, or a data set at the hub: OWNER/NAME or OWNER/NAME@REVISION."
        ),
    ],
    out: Out,
    against: Against = None,
    match: Match = OverlapKind.fuzzy,
    verify: Checking = Verify.known,
    limit: Annotated[int | None, typer.Option(min=1, help="Records to read at most.")] = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Convert a published data set into typed records: checked, without doubles, without evaluation problems.

    Writes examples.jsonl (conversations), tasks.jsonl (problems), rejects.jsonl and manifest.json.
    Every record that is read is written, or counted among the rejected with its reason.

    Examples:

      k2think train convert am a-m-team/AM-Thinking-v1-Distilled --out data/am --against evaluation-sets

      k2think train convert guru LLM360/guru-RL-92k --out data/guru --against evaluation-sets
    """
    from .convert import ConvertOptions
    from .convert import convert as run

    options = ConvertOptions(
        against=tuple(against or ()), weakest=match, verify=verify, limit=limit, overwrite=overwrite, quiet=as_json
    )
    _tell(asyncio.run(run(kind, source, out, options)), out, as_json)


def mix(
    folder: Annotated[
        list[Path],
        typer.Argument(metavar="FOLDER...", exists=True, help="What `convert` or `from-log` wrote; or JSONL files."),
    ],
    out: Out,
    weight: Annotated[
        list[str] | None,
        typer.Option(
            "--weight", metavar="NAME=NUMBER", help="Share of a domain or source; repeatable. None = all there is."
        ),
    ] = None,
    by: Annotated[By, typer.Option(help="What the weights are of.")] = By.domain,
    rest: Annotated[float, typer.Option(min=0.0, help="Weight of each that is not named.")] = 0.0,
    size: Annotated[
        int | None, typer.Option(min=1, help="Records to choose; none = as many as the weights allow.")
    ] = None,
    order: Annotated[
        Order, typer.Option(help="easy-first = a curriculum, by difficulty where it is known.")
    ] = Order.shuffled,
    seed: Annotated[int, typer.Option(help="Of the choice and the order.")] = 0,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Mix training data by weight; no record is taken twice, and the seed reproduces choice and order.

    Examples:

      k2think train mix data/guru --weight math=3 --weight code=1 --weight logic=1 --order easy-first --out data/curriculum

      k2think train mix data/am data/log --by source --rest 1 --size 100000 --seed 7 --out data/sft
    """
    from .mix import MixOptions
    from .mix import mix as run

    options = MixOptions(
        weights=_weights(weight or []),
        by=by,
        rest=rest,
        size=size,
        order=order,
        seed=seed,
        overwrite=overwrite,
        quiet=as_json,
    )
    _tell(run(folder, out, options), out, as_json)


def from_log(
    out: Out,
    tenant: Annotated[list[str] | None, typer.Option(help="Whose jobs to take; repeatable.")] = None,
    all_tenants: Annotated[bool, typer.Option("--all-tenants", help="Take everybody's jobs.")] = False,
    truth: Annotated[
        Path | None,
        typer.Option(
            exists=True, dir_okay=False, help="Problems with their truths: JSON lines, as tasks.jsonl has them."
        ),
    ] = None,
    against: Against = None,
    match: Match = OverlapKind.fuzzy,
    verify: Checking = Verify.known,
    evidence: Annotated[
        list[Evidence] | None, typer.Option(help="Kinds of evidence that are enough; repeatable, none named = all.")
    ] = None,
    without_reasoning: Annotated[
        bool, typer.Option("--without-reasoning", help="Take answers that came without reasoning, too.")
    ] = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Make training data of the jobs that were solved, from the database of the settings.

    A job is taken if its answer is right by the truth file, passed its own unit tests, or had a strict majority of two or more.
    Today's screening rules must let it pass; the rejects name jobs, never text.

    Examples:

      k2think train from-log --tenant default --out data/log

      k2think train from-log --all-tenants --truth data/guru/tasks.jsonl --evidence truth --out data/log
    """
    from ...schemas.settings import load_settings
    from ...store.existing import open_existing
    from .from_log import LogOptions
    from .from_log import from_log as run

    if all_tenants == bool(tenant):
        raise InvalidRequest("say whose jobs may be trained on: --tenant NAME (repeatable) or --all-tenants")
    options = LogOptions(
        tenants=None if all_tenants else tuple(tenant or ()),
        truths=truth,
        against=tuple(against or ()),
        weakest=match,
        verify=verify,
        evidence=tuple(evidence) if evidence else tuple(Evidence),
        without_reasoning=without_reasoning,
        overwrite=overwrite,
        quiet=as_json,
    )
    database = open_existing(load_settings())
    try:
        manifest = asyncio.run(run(database, out, options))
    finally:
        database.close()
    _tell(manifest, out, as_json)


def _weights(words: list[str]) -> dict[str, float]:
    weights: dict[str, float] = {}
    for word in words:
        name, equals, number = word.rpartition("=")
        try:
            value = float(number)
        except ValueError:
            value = -1.0
        if not equals or not name or not 0.0 <= value < float("inf"):
            raise InvalidRequest(f"--weight {word}: write NAME=NUMBER, the number not negative, such as math=2.5")
        weights[name] = value
    return weights


def _tell(manifest: DataManifest, out: Path, as_json: bool) -> None:
    if as_json:
        typer.echo(manifest.model_dump_json(indent=2))
        return
    typer.echo(f"{manifest.written:,} of {manifest.read:,} records: {out}")
    for title, counts in (("left out", manifest.rejected), ("answers", manifest.checked), ("written", manifest.groups)):
        for name, count in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])):
            typer.echo(f"  {title}: {name} {count:,}")
    if not manifest.against and manifest.made_by != "mix":
        print("Nothing is known of evaluation problems in it: name the sets to keep out by --against.", file=sys.stderr)
