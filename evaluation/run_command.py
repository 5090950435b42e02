"""What `k2think eval run` does between its options and its exit code."""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..schemas.settings import load_settings
from .budget import Budget
from .cache import NAME as CACHE_NAME
from .cache import Cache
from .judge import JUDGE, open_judge
from .progress import RunProgress, duration
from .run import Plan, Summary, run
from .suites.options import SuiteOptions
from .suites.registry import load_suite
from .targets.definition import chosen_targets
from .targets.endpoint import named_backend
from .targets.opening import make_targets

COMPLETE, INCOMPLETE, ENDED = 0, 1, 4


@dataclass(frozen=True, slots=True)
class RunOptions:
    """Options of the command."""

    suite: str
    """Name of the suite, or a file of items."""
    suite_options: SuiteOptions
    """What of it."""
    targets: list[str]
    """Names of the targets, in order."""
    targets_file: Path
    """Where they are defined."""
    out: Path
    """Folder of the run."""
    repeats: int
    """Times that each item is asked."""
    concurrency: int
    """Items asked at once of one target."""
    budget: Budget
    """What the run may spend in all."""
    judge: str | None
    """Backend that judges free answers; None = none does."""
    cache: Path | None
    """File of what was paid for; None = the one in the data folder."""
    use_cache: bool
    """Whether it is read and written at all."""
    retry_errors: bool
    """Whether what errored is asked again."""
    as_json: bool
    """Whether the summary is printed as JSON."""


def run_command(options: RunOptions) -> int:
    """Run, tell what came of it, return the exit code. Raises UserError, BackendError."""
    settings = load_settings()
    definitions = chosen_targets(options.targets_file, options.targets)
    targets = make_targets(definitions, settings, options.out)
    if options.judge is not None:
        named_backend(JUDGE, options.judge, settings)
    items, told = load_suite(options.suite, options.suite_options)
    plan = Plan(
        folder=options.out,
        suite=options.suite,
        options=told,
        items=items,
        targets=tuple(targets),
        repeats=options.repeats,
        concurrency=options.concurrency,
        budget=options.budget,
        retry_errors=options.retry_errors,
    )
    progress = RunProgress(quiet=options.as_json)
    with ExitStack() as stack:
        cache = (
            stack.enter_context(Cache(options.cache or settings.data_dir / CACHE_NAME)) if options.use_cache else None
        )

        async def whole() -> Summary:
            async with open_judge(options.judge, settings) as judge:
                return await run(plan, cache=cache, judge=judge, progress=progress)

        summary = asyncio.run(whole())
    _tell(options, summary)
    if summary.stopped:
        return ENDED
    return COMPLETE if summary.complete else INCOMPLETE


def _tell(options: RunOptions, summary: Summary) -> None:
    spent = options.budget.spent
    facts: dict[str, Any] = {
        "folder": str(options.out),
        "complete": summary.complete,
        "stopped": summary.stopped or None,
        "asked": summary.asked,
        "cached": summary.cached,
        "before": summary.before,
        "left": summary.left,
        "statuses": summary.statuses,
        "spent": {"calls": spent.calls, "tokens": spent.tokens, "cost": spent.cost},
        "seconds": round(summary.seconds, 3),
    }
    if options.as_json:
        print(json.dumps(facts, indent=2))
    else:
        parts = [f"{summary.asked:,} asked now in {duration(summary.seconds)}"]
        if summary.cached:
            parts.append(f"{summary.cached:,} known from earlier runs")
        if summary.before:
            parts.append(f"{summary.before:,} answered before")
        parts.append(
            f"{spent.calls:,.0f} calls and {spent.tokens:,.0f} tokens in all"
            + (f", cost {spent.cost:.4f}" if spent.cost else "")
        )
        print(f"{options.out}: {', '.join(parts)}")
        print(
            "outcomes: "
            + (", ".join(f"{count:,} {status}" for status, count in sorted(summary.statuses.items())) or "none")
        )
    if summary.stopped:
        print(f"Stopped: {summary.stopped}. {summary.left:,} questions are left.", file=sys.stderr)
        print("To go on: run the same command again; what is answered is not asked again.", file=sys.stderr)
    if summary.statuses.get("errored"):
        print("To ask again what errored: the same command with --retry-errors.", file=sys.stderr)
    if summary.statuses.get("ungraded"):
        print(f"To check again what could not be graded: k2think eval regrade {options.out}", file=sys.stderr)
