"""One target's part of the report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from ...schemas.evaluation import Cleanliness, ContaminationReport, Status
from ..published import Published
from ..statistics import Estimate, Floats, Resamples, Subsets, accuracy, weighted_mean
from .best_of import best_of
from .examples import examples_of, reasons_of
from .model import CleanOnly, Counts, PublishedLine, SubsetLine, TargetReport
from .sheet import Sheet, label_of
from .spending import spending_of
from .verifier import stability_of, verifier_of


def target_report(
    sheet: Sheet,
    others: Sequence[Sheet],
    resamples: Resamples,
    *,
    suite: str,
    contamination: ContaminationReport | None = None,
    published: Sequence[Published] = (),
) -> TargetReport:
    """Work out all figures of a target. `others`: the targets of its part, itself included."""
    values, subsets, once = sheet.values, sheet.problems.subsets, sheet.once
    macro = accuracy(values, subsets, once=once)
    micro = accuracy(values, subsets, weighing="micro", once=once)
    averages = resamples.averages(values)
    return TargetReport(
        name=sheet.name,
        run=sheet.run.name,
        spec=sheet.spec,
        row=sheet.row,
        label=label_of(sheet.spec),
        model=sheet.model,
        samples=sheet.samples,
        repeats=sheet.repeats,
        macro=macro,
        micro=micro,
        bootstrap=None if macro is None else resamples.estimate(macro.value, averages, values),
        if_wrong=weighted_mean(sheet.bound(right=False), subsets, "macro"),
        if_right=weighted_mean(sheet.bound(right=True), subsets, "macro"),
        counts=counts_of(sheet),
        subsets=tuple(_subset_lines(values, subsets, once=once)),
        best_of=best_of(sheet, others, resamples),
        spending=spending_of(sheet),
        verifier=verifier_of(sheet),
        stability=stability_of(sheet),
        clean_only=_clean_only(sheet, contamination),
        published=tuple(_beside(sheet, micro, figure) for figure in published if figure.suite == suite),
        reasons=reasons_of(sheet),
        examples=examples_of(sheet),
    )


def counts_of(sheet: Sheet) -> Counts:
    """Count what became of the questions."""
    outcomes = sheet.outcomes
    statuses = Counter(outcome.final.status for outcome in outcomes)
    right = sum(outcome.final.correct for outcome in outcomes if outcome.final.status is Status.graded)
    return Counts(
        expected=sheet.expected,
        right=right,
        wrong=statuses[Status.graded] - right,
        unparsed=statuses[Status.unparsed],
        truncated=statuses[Status.truncated],
        refused=statuses[Status.refused],
        errored=statuses[Status.errored],
        ungraded=statuses[Status.ungraded],
        missing=max(0, sheet.expected - len(outcomes)),
        tried_again=len(sheet.replaced),
    )


def _subset_lines(values: Floats, subsets: Subsets, *, once: bool) -> list[SubsetLine]:
    known = int((~np.isnan(values)).sum())
    lines: list[SubsetLine] = []
    for name, members in zip(subsets.names, subsets.members, strict=True):
        own = values[members]
        estimate = accuracy(own, Subsets.of([name] * members.size), once=once)
        problems = 0 if estimate is None else estimate.problems
        lines.append(SubsetLine(name=name, problems=problems, weight=problems / max(known, 1), accuracy=estimate))
    return lines


def _clean_only(sheet: Sheet, found: ContaminationReport | None) -> CleanOnly:
    manifest = sheet.run.manifest
    told = None if manifest is None or sheet.spec is None else manifest.training_data.get(sheet.spec.name)
    ids = sheet.problems.ids
    if found is None:
        return CleanOnly(declared=told, looked_at=(), unknown=len(ids))
    declared = found.declared or told
    by_item = {item.item: item.status for item in found.items}
    statuses = [_status(by_item.get(problem), declared=declared is not None) for problem in ids]
    numbers = Counter(statuses)
    return CleanOnly(
        declared=declared,
        looked_at=tuple(data.data for data in found.looked_at if data.sha256 is not None),
        counted=found.counted,
        clean=numbers[Cleanliness.clean],
        contaminated=numbers[Cleanliness.contaminated],
        unknown=numbers[Cleanliness.unknown],
        on_clean=_only(sheet, statuses, Cleanliness.clean),
        on_contaminated=_only(sheet, statuses, Cleanliness.contaminated),
        on_unknown=_only(sheet, statuses, Cleanliness.unknown),
    )


def _status(found: Cleanliness | None, *, declared: bool) -> Cleanliness:
    """Return what is known of a problem: without a declaration nothing is clean, whatever a file says."""
    if found is None or (found is Cleanliness.clean and not declared):
        return Cleanliness.unknown
    return found


def _only(sheet: Sheet, statuses: Sequence[Cleanliness], wanted: Cleanliness) -> Estimate | None:
    mask = np.array([status is wanted for status in statuses])
    values = np.where(mask, sheet.values, np.nan)
    return accuracy(values, sheet.problems.subsets, weighing="micro", once=sheet.once)


def _beside(sheet: Sheet, micro: Estimate | None, figure: Published) -> PublishedLine:
    same_model, same_row = figure.is_of(sheet.model), figure.row == sheet.row
    value = figure.percent / 100
    differs = False
    if not same_model:
        note = "another model: for orientation only"
    elif not same_row:
        note = "another row of this model: not the same measurement"
    elif micro is None or micro.low is None or micro.high is None:
        note = "nothing to compare it with"
    else:
        differs = not micro.low <= value <= micro.high
        note = (
            f"outside our interval, by {_beyond(value, micro.low, micro.high)} points"
            if differs
            else "inside our interval"
        )
    return PublishedLine(
        model=figure.model,
        same_model=same_model,
        row=figure.row,
        value=value,
        settings=figure.settings,
        source=figure.source,
        differs=differs,
        note="; ".join(filter(None, (note, figure.note))),
    )


def _beyond(value: float, low: float, high: float) -> str:
    return f"{100 * max(low - value, value - high):.1f}"
