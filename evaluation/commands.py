"""`k2think eval run`, `suites` and `regrade`: options in, exit code out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from ..schemas.errors import InvalidRequest, explain
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


def eval_run(
    suite: Annotated[str, typer.Argument(help="A suite (`k2think eval suites`), or a file of items, NAME.jsonl.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the run; a run that stopped goes on there.")],
    target: Annotated[
        list[str], typer.Option("--target", "-t", help="Target by its name in the targets file; repeat for more.")
    ],
    targets: Annotated[Path, typer.Option(help="TOML file with a table for each target.")] = Path("targets.toml"),
    n: Number = None,
    seed: Seed = None,
    report: Annotated[
        bool, typer.Option("--report", help="mini: problems kept for figures that are published; never choose by them.")
    ] = False,
    family: Annotated[list[str] | None, typer.Option(help="mini: this family alone; repeat for more.")] = None,
    path: SuitePath = None,
    hub: Hub = None,
    revision: Revision = None,
    published_from: PublishedFrom = None,
    published_until: PublishedUntil = None,
    targets_h5: ScicodeTargets = None,
    limit: Limit = None,
    repeats: Annotated[int, typer.Option(min=1, max=1_000, help="Times that each item is asked, other seeds.")] = 1,
    concurrency: Annotated[int, typer.Option(min=1, max=10_000, help="Items asked at once of one target.")] = 32,
    budget_calls: Annotated[int | None, typer.Option(min=1, help="Model calls that the run may make in all.")] = None,
    budget_tokens: Annotated[int | None, typer.Option(min=1, help="Tokens that the run may use in all.")] = None,
    budget_cost: Annotated[
        float | None, typer.Option(min=0.0, help="Cost of the run in all, by the prices given.")
    ] = None,
    judge: Annotated[
        str | None, typer.Option(metavar="BACKEND", help="Judge of free answers that no rule decides: a named backend.")
    ] = None,
    cache: Annotated[Path | None, typer.Option(help="File of answers paid for. Default: in the data folder.")] = None,
    no_cache: Annotated[
        bool, typer.Option("--no-cache", help="Ask all anew, and keep nothing for other runs.")
    ] = False,
    retry_errors: Annotated[bool, typer.Option("--retry-errors", help="Ask again what errored.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as one JSON object.")] = False,
) -> None:
    """Ask every item of a suite of every target, and keep what comes back.

    Each outcome is on the disk as soon as it is paid for.
    Run the same command again after Ctrl-C, a crash or an exhausted budget: nothing that has an outcome is asked again.
    The same question to the same target in another run costs nothing, either, unless --no-cache is given.

    A target is a table of the targets file, with its label: `single`, `self_scaffold` or `outside_scaffold`.
    Secrets do not belong there: a key is in the settings of a named backend, or in a file of its own.

    Budgets hold for the run as a whole.
    A question that might exceed one is not asked; what is in flight is taken to cost as much as the dearest so far.

    Exit code: 0 when every question has an answer, right or wrong, 1 when some errored or could not be graded.
    It is 1, too, when a server or the hub could not be reached and nothing was asked.
    It is 2 for bad usage, and 4 when the run was stopped or its budget was exhausted.

    Examples:

      k2think eval run mini --n 200 --target mini-bo3 --targets targets.toml --out runs/try

      k2think eval run aime_2025 --path aime_2025.parquet --repeats 16 -t qwen -o runs/aime --budget-cost 20
    """
    from .budget import Budget
    from .run_command import RunOptions, run_command

    asked = _suite_options(
        n=n,
        seed=seed,
        report=report,
        families=tuple(family or ()),
        path=path,
        hub=hub,
        revision=revision,
        published_from=published_from,
        published_until=published_until,
        targets_file=targets_h5,
        limit=limit,
    )
    if cache is not None and no_cache:
        raise InvalidRequest("give either --cache or --no-cache")
    options = RunOptions(
        suite=suite,
        suite_options=asked,
        targets=target,
        targets_file=targets,
        out=out,
        repeats=repeats,
        concurrency=concurrency,
        budget=Budget(calls=budget_calls, tokens=budget_tokens, cost=budget_cost),
        judge=judge,
        cache=cache,
        use_cache=not no_cache,
        retry_errors=retry_errors,
        as_json=as_json,
    )
    raise typer.Exit(run_command(options))


def eval_suites(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """List the suites, and what grading their answers needs."""
    import json

    from .suites.registry import SUITES

    if as_json:
        listed = {
            name: {"about": one.about, "needs_sandbox": one.needs_sandbox, "needs_judge": one.needs_judge}
            for name, one in SUITES.items()
        }
        print(json.dumps(listed, indent=2))
        return
    width = max(map(len, SUITES))
    for name, one in SUITES.items():
        needs = [word for word, needed in (("a sandbox", one.needs_sandbox), ("--judge", one.needs_judge)) if needed]
        print(f"{name:<{width}}  {one.about}" + (f"; needs {' and '.join(needs)}" if needs else ""))
    print(f"{'NAME.jsonl':<{width}}  items of your own, one JSON object a line, as items.jsonl of a run has them")


def eval_regrade(
    run: Annotated[Path, typer.Argument(help="Folder of a run.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Grade everything anew into this folder. Default: what crashed, in place."),
    ] = None,
    judge: Annotated[
        str | None, typer.Option(metavar="BACKEND", help="Judge of free answers that no rule decides: a named backend.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what came of it as one JSON object.")] = False,
) -> None:
    """Grade answers again, without asking any model for them.

    Without --out, only what the check crashed on is graded, with the grader that the run was begun with.
    With --out, everything is graded with the grader of this version, as a run of its own.

    Exit code: 0 when all is graded, 1 when the check still crashes on some, 2 for bad usage.
    """
    from .regrade import regrade_command

    raise typer.Exit(regrade_command(run, out=out, judge=judge, as_json=as_json))


def _suite_options(**fields: Any) -> Any:
    from .suites.options import SuiteOptions

    try:
        return SuiteOptions(**fields)
    except ValidationError as exc:
        raise InvalidRequest(f"the options of the suite do not fit: {explain(exc)}") from exc
