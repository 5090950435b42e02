"""Makes the runs of the evidence, one after the other; what was paid for in an earlier try is not asked again."""

from __future__ import annotations

from pathlib import Path

from ...schemas.errors import ConfigurationError
from ...schemas.settings import Settings
from ..budget import Budget
from ..progress import RunProgress
from ..run import Plan, Summary, run
from ..suites.mini import mini
from ..suites.options import SuiteOptions
from ..targets.opening import make_targets
from .plan import BASE, PROBLEMS, REPORT_SEED, SFT, control_targets, main_targets, with_foreign_plans

MAIN, CONTROL = "main", "control"
"""Folders of the two runs."""
CONCURRENCY = 32
"""Problems under way at once: enough to keep the embedded engine's batch full."""


async def make_runs(
    folder: Path, settings: Settings, *, problems: int = PROBLEMS, report: bool = True, quiet: bool = False
) -> list[Summary]:
    """Run everything into `folder`. `report`: on the problems that are kept for this; else on the others, to try the way.

    Raises ConfigurationError when the models of the training's stages are not there, and what `run` raises.
    """
    for stage in (BASE, SFT):
        if not stage.is_dir():
            raise ConfigurationError(
                f"{stage} is missing: the evidence compares the stages of training. They belong to k2think's checkout; "
                "`k2think train mini` makes them anew"
            )
    options = SuiteOptions(n=problems, report=report, seed=REPORT_SEED if report else None)
    items = mini(options)
    done: list[Summary] = []
    for name, targets, asked in (
        (MAIN, main_targets(), items),
        (CONTROL, control_targets(), with_foreign_plans(items)),
    ):
        plan = Plan(
            folder=folder / name,
            suite="mini" if name == MAIN else "mini, each problem with another family's plan",
            options=options.told(),
            items=asked,
            targets=tuple(make_targets(targets, settings, folder / name)),
            repeats=1,
            concurrency=CONCURRENCY,
            budget=Budget(),
            retry_errors=True,
        )
        done.append(await run(plan, cache=None, judge=None, progress=RunProgress(quiet=quiet)))
    return done
