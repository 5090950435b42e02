"""`k2think batch run`: a file of problems in, a file of answers out, stopped and resumed at will."""

import asyncio
import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from ..schemas.errors import InvalidRequest, StoreFull
from ..schemas.policy import Policy
from ..schemas.settings import Settings
from .batch_input import STDIN, InputFile, LineParser, describe_input, open_input
from .batch_output import BatchOutput
from .batch_progress import BatchProgress
from .checkup import working_settings
from .exits import Exit
from .requests import parse_policy
from .terminal import print_json

MAX_IN_FLIGHT = 64

batch_app = typer.Typer(help="Solve many problems from a file.", no_args_is_help=True)


@batch_app.callback()
def _group() -> None:  # pyright: ignore[reportUnusedFunction]
    """Solve many problems from a file."""


@batch_app.command("run")
def run(
    source: Annotated[
        str, typer.Argument(metavar="IN.jsonl", help="Problems, one JSON object a line; `-` = standard input.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Answers, one JSON object for each line of the input.")],
    n: Annotated[int | None, typer.Option("--n", help="Candidates to sample (1 to 64). Default: 3.")] = None,
    policy: Annotated[
        str | None,
        typer.Option(help='`default`, `paper`, or a JSON object such as \'{"selection": "vote", "deadline_s": 60}\'.'),
    ] = None,
    no_plan: Annotated[bool, typer.Option("--no-plan", help="Do not ask the planner.")] = False,
    backend: Annotated[str | None, typer.Option(help="Named backend from K2THINK_BACKENDS for the candidates.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the samplers, the same for each line.")] = None,
    max_in_flight: Annotated[
        int, typer.Option(min=1, max=10_000, help="Jobs that are accepted and not finished, at most.")
    ] = MAX_IN_FLIGHT,
    restart: Annotated[bool, typer.Option("--restart", help="Throw away what -o holds and begin anew.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as one JSON object.")] = False,
) -> None:
    """Solve the problems of a file, one answer line for each input line.

    Input lines: {"id": "a1", "problem": "What is 2 + 2?"} with optional "policy", "checks" and "metadata".
    Or lines of the OpenAI batch API (custom_id, method, url, body), which are answered in its shape; mixed at will.
    Answers are written as they come, not in the order of the input.
    A line that cannot be understood, or repeats an id, is told by its number and gets an error line.

    Run the same command again after Ctrl-C or a crash: what is finished is not repeated, what runs is found again.
    OUT.state beside the output belongs to it. With standard input, lines are told apart by id alone.

    Exit code: 0 when every line has an answer, 1 when some have none, 4 after Ctrl-C.
    It is 2 for bad usage, when nothing was done, and for a full disk.

    Examples:

      k2think batch run problems.jsonl -o answers.jsonl

      jq -c '{id, problem}' set.jsonl | k2think batch run - -o answers.jsonl --n 5 --json
    """
    settings = working_settings()
    chosen = parse_policy(policy, n=n, no_plan=no_plan, backend=backend, seed=seed)
    described = None if source == STDIN else describe_input(Path(source))
    _check_files(source, out)
    _check_settings(settings, chosen)
    with BatchOutput(out) as output:
        before = output.begin(source, described, chosen, restart=restart)
        if before.policy != chosen:
            print(
                "The options differ from those of the last run: they hold for the lines that are left.", file=sys.stderr
            )
        code = _run(settings, source, output, described, before.batch_id, chosen, max_in_flight, as_json)
    raise typer.Exit(code)


def _run(
    settings: Settings,
    source: str,
    output: BatchOutput,
    described: InputFile | None,
    batch_id: str,
    policy: Policy,
    max_in_flight: int,
    as_json: bool,
) -> Exit:
    from ..workers.session import open_session
    from ..workers.stack import running_stack
    from .batch_run import BatchRun, Tally

    earlier = output.counts.done
    total = None if described is None else described.lines
    progress = BatchProgress(total=total, counts=output.counts)
    if earlier:
        of = "" if total is None else f" of {total}"
        progress.note(f"resuming: {earlier}{of} lines were answered before")
    if total is not None and earlier >= total:
        return _tell(output, Tally(), progress, as_json=as_json)
    tally = Tally()

    async def solve(served: Settings) -> None:
        nonlocal tally
        async with open_session(served) as session:
            batch = BatchRun(session, output, progress, batch_id=batch_id, max_in_flight=max_in_flight)
            tally = batch.tally
            with open_input(source) as file:
                await batch.run(file, LineParser(policy))

    # Both mean: stop here, leave the jobs, say how to go on.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with progress, running_stack(settings, backend=policy.backend) as served:
            asyncio.run(solve(served))
    except KeyboardInterrupt:
        _tell(output, tally, progress, as_json=as_json, stopped=True)
        again = "give the same lines again" if source == STDIN else "run the same command again"
        print(f"Stopped. To go on: {again}; finished lines are not repeated.", file=sys.stderr)
        return Exit.ended
    except StoreFull:
        _tell(output, tally, progress, as_json=as_json, stopped=True)
        raise
    return _tell(output, tally, progress, as_json=as_json)


def _check_files(source: str, out: Path) -> None:
    if source != STDIN and out.exists() and out.samefile(source):
        raise InvalidRequest(f"the input and the output are the same file, {out}: choose another name for -o")


def _check_settings(settings: Settings, policy: Policy) -> None:
    """Refuse what cannot work before anything is written: unknown backends, missing model folders, packages, keys."""
    from .requests import check_settings

    check_settings(settings, policy)


def _tell(output: BatchOutput, tally: Any, progress: BatchProgress, *, as_json: bool, stopped: bool = False) -> Exit:
    """Print the summary; return the exit code of a batch that came to its end."""
    seconds = progress.seconds
    counts = output.counts
    facts: dict[str, Any] = {
        "lines": counts.done,
        "succeeded": counts.done - counts.failed,
        "failed": counts.failed,
        "complete": not stopped,
        "this_run": {
            "finished": tally.finished,
            "skipped": tally.skipped,
            "reattached": tally.reattached,
            "bad_lines": tally.bad,
            "statuses": tally.statuses,
            "seconds": round(seconds, 3),
            "jobs_per_s": round(tally.finished / seconds, 3) if seconds > 0 else 0.0,
            "prompt_tokens": tally.prompt_tokens,
            "completion_tokens": tally.completion_tokens,
            "model_calls": tally.calls,
        },
    }
    if as_json:
        print_json(facts)
    else:
        parts = [f"{counts.done} lines answered: {facts['succeeded']} succeeded, {counts.failed} failed"]
        if tally.bad:
            parts.append(f"{tally.bad} bad input lines")
        parts.append(f"{tally.finished} jobs in {seconds:.1f} s ({facts['this_run']['jobs_per_s']:.1f} jobs/s)")
        parts.append(f"{tally.prompt_tokens + tally.completion_tokens:,} tokens in {tally.calls} model calls")
        print(" · ".join(parts))
    if not counts.done and not stopped:
        print("The input has no lines: there was nothing to do.", file=sys.stderr)
    return Exit.failed if counts.failed else Exit.succeeded
