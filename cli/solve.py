"""`k2think solve`: one problem, live stages, one answer."""

import asyncio
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from ..schemas.errors import ConfigurationError, InvalidRequest, explain
from ..schemas.jobs import PROBLEM_CHARS_MAX, JobStatus, SolveRequest, SolveResult
from ..schemas.settings import Settings
from .checkup import working_settings
from .exits import EXIT_OF_STATUS, Exit
from .job_text import choice_line
from .progress import Stages
from .requests import check_settings, parse_policy


def solve(
    problem: Annotated[
        str | None, typer.Argument(help="The problem in words; `-` or nothing reads it from standard input.")
    ] = None,
    file: Annotated[Path | None, typer.Option("--file", "-f", help="Read the problem from this file.")] = None,
    n: Annotated[int | None, typer.Option("--n", help="Candidates to sample (1 to 64). Default: 3.")] = None,
    policy: Annotated[
        str | None,
        typer.Option(help='`default`, `paper`, or a JSON object such as \'{"selection": "vote", "deadline_s": 60}\'.'),
    ] = None,
    no_plan: Annotated[bool, typer.Option("--no-plan", help="Do not ask the planner.")] = False,
    backend: Annotated[str | None, typer.Option(help="Named backend, or class of them, for the candidates.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the samplers, for an answer that can be had again.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole result as one JSON object.")] = False,
) -> None:
    """Solve one problem through planner, generators, verifier and safety filter.

    Uses the configured stack, or that of a running `k2think up`, or starts one for itself.
    The answer goes to standard output, progress to standard error. Ctrl-C cancels the job.

    Examples:

      k2think solve "What is 347 + 58?"

      echo "Solve 3x + 5 = 26" | k2think solve --n 5 --json
    """
    settings = working_settings()
    chosen = parse_policy(policy, n=n, no_plan=no_plan, backend=backend, seed=seed)
    try:
        request = SolveRequest(problem=_read_problem(problem, file), policy=chosen)
    except ValidationError as exc:
        raise InvalidRequest(explain(exc)) from exc
    check_settings(settings, chosen)
    result = _run(settings, request, backend=backend, as_json=as_json)
    raise typer.Exit(EXIT_OF_STATUS[result.status])


def _read_problem(problem: str | None, file: Path | None) -> str:
    if file is not None and problem is not None:
        raise InvalidRequest("give the problem either as an argument or with --file, not both")
    if file is not None:
        try:
            with file.open(encoding="utf-8") as stream:
                return stream.read(PROBLEM_CHARS_MAX + 1)
        except (OSError, UnicodeDecodeError) as exc:
            raise InvalidRequest(f"the problem cannot be read from {file}: {exc}") from exc
    if problem is None and sys.stdin.isatty():
        raise InvalidRequest('no problem was given: k2think solve "What is 347 + 58?", or pipe it in')
    if problem in (None, "-"):
        try:
            return sys.stdin.read(PROBLEM_CHARS_MAX + 1)
        except UnicodeDecodeError as exc:
            raise InvalidRequest(f"standard input is not UTF-8 text: {exc}") from exc
    return problem


def _run(settings: Settings, request: SolveRequest, *, backend: str | None, as_json: bool) -> SolveResult:
    from ..workers.stack import running_stack

    with Stages(quiet=as_json) as stages:
        stages.note("starting")
        with running_stack(settings, backend=backend) as served:
            result = asyncio.run(_solve(served, request, stages))
            stages.close()
            # Before the stack is taken down, which nobody needs to wait for.
            if as_json:
                print(result.model_dump_json(indent=2), flush=True)
            else:
                _show(result)
        return result


async def _solve(settings: Settings, request: SolveRequest, stages: Stages) -> SolveResult:
    from ..workers.session import open_session

    async with open_session(settings) as session, session.submitter.present() as job_id:
        accepted = await session.submitter.submit(request, attached=True, job_id=job_id)
        stages.note("queued")
        cancelling: set[asyncio.Task[bool]] = set()

        def on_interrupt() -> None:
            if not cancelling:
                stages.note("cancelling")
                cancelling.add(asyncio.get_running_loop().create_task(session.submitter.cancel(accepted.job_id)))

        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, on_interrupt)
        async for event in session.submitter.watch(accepted.job_id):
            stages.event(event)
        _status, result = await session.submitter.result(accepted.job_id)
        if result is None:
            raise ConfigurationError(f"job {accepted.job_id} has gone: was the database exchanged while it ran?")
        return result


def _show(result: SolveResult) -> None:
    if result.status is JobStatus.succeeded:
        content = result.content or ""
        print(
            content if result.answer is None or result.answer in content else f"{content}\n{result.answer}", flush=True
        )
        _summary(result)
        return
    message = result.error.message if result.error else "no reason was recorded"
    print(f"{result.status.value}: {message}", file=sys.stderr)
    _summary(result)
    if EXIT_OF_STATUS[result.status] is Exit.failed:
        print(f"More: k2think jobs why {result.job_id}", file=sys.stderr)


def _summary(result: SolveResult) -> None:
    parts = [f"job {result.job_id}", f"{result.timings.total:.1f} s", f"{result.usage.total.total:,} tokens"]
    selection = result.selection
    if selection is not None and selection.winner is not None:
        parts.insert(1, choice_line(selection))
    print(" · ".join(parts), file=sys.stderr)
