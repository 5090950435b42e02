"""Grading again what a run has the texts of: what crashed, in place; or everything, into a run of its own."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from ..grading.fingerprint import grader_sha256
from ..schemas.errors import InvalidRequest
from ..schemas.evaluation import Item, Manifest, Outcome, Status
from ..schemas.settings import load_settings
from .grade import regrade
from .judge import CountedJudge, open_judge
from .preflight import check_grading
from .records import OutcomeLog, Run, read_run, write_items, write_manifest
from .run import CHECKS_AT_ONCE

GRADED, STILL_CRASHES = 0, 1


@dataclass(frozen=True, slots=True)
class Regraded:
    """What came of grading again."""

    graded: int
    """Outcomes that were looked at."""
    changed: int
    """Of those, the ones that have another verdict now."""
    crashed: int
    """Of those, the ones on which the check crashed again."""


def regrade_command(folder: Path, *, out: Path | None, judge: str | None, as_json: bool) -> int:
    """Grade, tell what came of it, return the exit code. Raises UserError, BackendError."""
    settings = load_settings()

    async def whole() -> Regraded:
        async with open_judge(judge, settings) as opened:
            return await regrade_run(folder, out=out, judge=opened)

    done = asyncio.run(whole())
    if as_json:
        facts = {"graded": done.graded, "changed": done.changed, "ungraded": done.crashed}
        print(json.dumps({"folder": str(out or folder), **facts}, indent=2))
    else:
        print(
            f"{out or folder}: {done.graded:,} graded, {done.changed:,} with another verdict than before, "
            f"{done.crashed:,} still not graded"
        )
    return STILL_CRASHES if done.crashed else GRADED


async def regrade_run(folder: Path, *, out: Path | None = None, judge: CountedJudge | None) -> Regraded:
    """Grade what crashed, in place, or everything into `out`. Raises InvalidRequest, NotFound, ConfigurationError."""
    run = read_run(folder)
    manifest = run.manifest
    if manifest is None or not run.items:
        raise InvalidRequest(f"{folder} cannot be graded: {'; '.join(run.faults)}")
    if out is not None and await asyncio.to_thread(_occupied, out):
        raise InvalidRequest(f"{out} is not empty: name a new folder with --out")
    await check_grading(run.items)
    name = None if judge is None else judge.name
    return await (_in_place(run, manifest, name, judge) if out is None else _into(out, run, manifest, name, judge))


def _occupied(folder: Path) -> bool:
    return folder.exists() and (not folder.is_dir() or any(folder.iterdir()))


async def _in_place(run: Run, manifest: Manifest, judge: str | None, opened: CountedJudge | None) -> Regraded:
    if grader_sha256() != manifest.grader_sha256 or judge != manifest.judge:
        raise InvalidRequest(
            f"{run.folder} was graded by another grader or judge (judge then: {manifest.judge or 'none'}, now: {judge or 'none'}), and one "
            "run must not mix two: grade all of it anew into another folder with --out"
        )
    wanted = [outcome for outcome in run.outcomes if outcome.final.status is Status.ungraded]
    with OutcomeLog(run.folder) as log:
        graded = await _graded(run, wanted, opened)
        for outcome in graded:
            log.append(outcome)
    return _counts(wanted, graded)


async def _into(out: Path, run: Run, manifest: Manifest, judge: str | None, opened: CountedJudge | None) -> Regraded:
    if manifest.judge != judge:
        print(f"the judge was {manifest.judge or 'none'}, and is {judge or 'none'}", file=sys.stderr)
    graded = await _graded(run, run.outcomes, opened)
    write_items(out, run.items)
    write_manifest(out, manifest.model_copy(update={"grader_sha256": grader_sha256(), "judge": judge}))
    whole = [
        outcome.model_copy(update={"spent": {**earlier.spent, **outcome.spent}, "at": earlier.at})
        for earlier, outcome in zip(run.outcomes, graded, strict=True)
    ]
    with OutcomeLog(out) as log:
        # What does not stand was paid for, too.
        for outcome in replace(run, outcomes=tuple(whole)).everything:
            log.append(outcome)
    return _counts(run.outcomes, graded)


async def _graded(run: Run, outcomes: tuple[Outcome, ...] | list[Outcome], judge: CountedJudge | None) -> list[Outcome]:
    items: dict[str, Item] = {item.task.id: item for item in run.items}
    gate = asyncio.Semaphore(CHECKS_AT_ONCE)

    async def one(outcome: Outcome) -> Outcome:
        item = items.get(outcome.item)
        if item is None:
            return outcome
        async with gate:
            return await regrade(item, outcome, judge=judge)

    return list(await asyncio.gather(*(one(outcome) for outcome in outcomes)))


def _crashed(outcome: Outcome) -> bool:
    return any(one.status is Status.ungraded for one in (outcome.final, *outcome.candidates))


def _counts(before: tuple[Outcome, ...] | list[Outcome], after: list[Outcome]) -> Regraded:
    changed = sum(
        (old.final.status, old.final.correct) != (new.final.status, new.final.correct)
        for old, new in zip(before, after, strict=True)
    )
    return Regraded(len(after), changed, sum(_crashed(outcome) for outcome in after))
