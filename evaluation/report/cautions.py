"""What a reader must know before believing a figure: the questions that an honest critic would ask, put to every report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ...schemas.evaluation import Row
from .model import Caution, Part, RunLine, TargetReport
from .pairs import MANY_PAIRS
from .sheet import Sheet
from .spending import unaccounted

DOMINATES = 0.5
"""Weight of one subset in the micro average from which it is that subset's figure."""
FEW_PROBLEMS = 30
"""Below so many problems the report says that nothing small can be seen."""
THIN_SUBSET = 10
"""Below so many problems a subset moves the macro average by chance."""
MANY_TRUNCATED = 0.05
MANY_ERRORED = 0.01
MANY_UNUSABLE = 0.05
MUCH_SWAPPED = 0.1
PAIRS_SHOWN = 3
_ROLES_OF_A_SCAFFOLD = ("planner", "verifier")


def of_runs(runs: Sequence[RunLine], parts: Sequence[Part]) -> Iterator[Caution]:
    """Warn of what concerns the report as a whole."""
    for run in runs:
        for fault in run.faults:
            yield Caution(code="damaged", loud=True, text=f"run {run.name}: {fault}.")
        if run.expected is not None and run.outcomes < run.expected:
            missing = run.expected - run.outcomes
            text = f"run {run.name} is not finished: {missing:,} of {run.expected:,} questions have no outcome."
            yield Caution(code="unfinished", loud=True, text=text)
        if not run.outcomes:
            yield Caution(
                code="empty", loud=True, text=f"run {run.name} holds no outcome: there is nothing to report of it."
            )
    for what, values in (
        ("suites", [part.suite for part in parts]),
        ("problems (hash of the data)", [part.data_sha256 for part in parts]),
        ("graders (hash of the sources)", [part.grader_sha256 for part in parts]),
        ("judges of free answers", [part.judge for part in parts]),
    ):
        if len(set(values)) > 1:
            text = f"the runs differ in their {what}: they stand in parts of their own, and nothing is compared across them."
            yield Caution(code="not_comparable", loud=True, text=text)


def of_target(report: TargetReport, sheet: Sheet) -> Iterator[Caution]:
    """Warn of what concerns one target."""
    for code, loud, text in (
        *_of_row(report, sheet),
        *_of_counts(report, sheet),
        *_of_figures(report),
        *_of_origin(report),
    ):
        yield Caution(code=code, loud=loud, text=text, target=report.name)


def of_part(part: Part) -> Iterator[Caution]:
    """Warn of what concerns the comparison of targets."""
    sizes = {
        name: max(line.problems for target in part.targets for line in target.subsets if line.name == name)
        for name in part.subsets
    }
    whole = max(sum(sizes.values()), 1)
    for name, size in sizes.items():
        if len(sizes) > 1 and size / whole > DOMINATES:
            text = (
                f"subset {name} is {size / whole:.0%} of the problems: the micro average is mostly its figure. "
                "The headline gives every subset the same weight."
            )
            yield Caution(code="dominated", loud=True, text=text)
    thin = [name for name, size in sizes.items() if size < THIN_SUBSET]
    if thin and len(sizes) > 1:
        text = f"{len(thin)} of {len(sizes)} subsets have fewer than {THIN_SUBSET} problems, and weigh as much as the others."
        yield Caution(code="thin_subsets", loud=False, text=text)
    if part.problems < FEW_PROBLEMS:
        text = f"{part.problems} problems: an interval of this width hides differences of many points."
        yield Caution(code="few_problems", loud=False, text=text)
    if other := [f"{pair.ours} − {pair.theirs}" for pair in part.pairs if pair.same_prompts is False]:
        shown = ", ".join(other[:PAIRS_SHOWN]) + (", …" if len(other) > PAIRS_SHOWN else "")
        text = f"the prompts are not the same in {len(other)} of {len(part.pairs)} pairs ({shown}): their difference may come from that."
        yield Caution(code="prompts_differ", loud=True, text=text)
    if len(part.pairs) >= MANY_PAIRS:
        text = (
            f"{len(part.pairs)} pairs are compared: by chance about one in twenty differs at p < 0.05. "
            "Read the column that is adjusted for it (Holm)."
        )
        yield Caution(code="many_pairs", loud=True, text=text)


def _of_row(report: TargetReport, sheet: Sheet) -> Iterator[tuple[str, bool, str]]:
    outside = report.spec.outside_models if report.spec is not None else ()
    if report.row is None:
        yield "row_unknown", True, "its row is unknown: whether a scaffold or another model took part cannot be told."
    if report.row is Row.outside_scaffold and not outside:
        yield (
            "outside_unnamed",
            True,
            "an outside model plans or judges, and is not named: whose figure this is cannot be told.",
        )
    if report.row in (Row.single, Row.self_scaffold) and outside:
        yield (
            "outside_hidden",
            True,
            f"is labelled {report.row}, yet {', '.join(outside)} took part: it is no row of this model alone.",
        )
    if report.row is Row.single:
        several = sum(1 for outcome in sheet.outcomes if len(outcome.candidates) > 1)
        helped = sum(
            1
            for outcome in sheet.outcomes
            if outcome.planned
            or outcome.comparisons
            or any(outcome.spent[role].calls for role in _ROLES_OF_A_SCAFFOLD if role in outcome.spent)
        )
        if several or helped:
            yield (
                "not_single",
                True,
                f"is labelled a single sample, yet {several:,} answers were chosen among several samples "
                f"and {helped:,} had a plan or a judge: best-of-N is not a single sample.",
            )


def _of_counts(report: TargetReport, sheet: Sheet) -> Iterator[tuple[str, bool, str]]:
    counts = report.counts
    answered = max(counts.expected - counts.missing, 1)
    bounds = _bounds(report, counts.ungraded + counts.missing)
    if counts.missing:
        yield "missing", True, f"{counts.missing:,} of {counts.expected:,} questions have no outcome; {bounds}."
    if counts.ungraded:
        # Said once, where questions are missing, too.
        more = "" if counts.missing else f"; {bounds}"
        yield "ungraded", True, f"the check of {counts.ungraded:,} answers crashed: they are left out{more}."
    if counts.errored:
        loud = counts.errored / answered > MANY_ERRORED
        yield (
            "errored",
            loud,
            f"{counts.errored:,} of {answered:,} questions failed after all retries and count as wrong.",
        )
    if counts.truncated / answered > MANY_TRUNCATED:
        yield (
            "truncated",
            True,
            f"{counts.truncated / answered:.0%} of the answers were cut off at the token limit and count as wrong.",
        )
    if counts.tried_again:
        yield (
            "tried_again",
            False,
            f"{counts.tried_again:,} further outcomes are not counted as answers; what they cost is.",
        )
    if sheet.strangers:
        yield (
            "strangers",
            True,
            f"{sheet.strangers:,} outcomes are about problems that the suite does not have: left out.",
        )
    if hidden := unaccounted(sheet):
        yield (
            "ledger",
            True,
            f"the costs of {hidden:,} outcomes are less than the work that they show: tokens and calls are too low.",
        )


def _of_figures(report: TargetReport) -> Iterator[tuple[str, bool, str]]:
    for found in report.best_of:
        if (
            found.over_vote is not None
            and found.majority is not None
            and (found.over_vote.low is None or found.over_vote.low <= 0)
        ):
            yield (
                "no_better_than_vote",
                False,
                f"what it chose is not shown to be better than a plain vote of the same {found.n} samples.",
            )
        if found.oracle_is_least:
            yield "oracle_is_least", False, f"early stops left samples out: oracle@{found.n} is at least what is shown."
        if found.majority is None:
            yield (
                "no_vote",
                False,
                f"no vote can be held among the {found.n} samples: answers are free texts, or votes are open.",
            )
    judge = report.verifier
    if judge is not None:
        if judge.usable is not None and judge.usable.value < 1 - MANY_UNUSABLE:
            yield (
                "unusable_verdicts",
                True,
                f"{1 - judge.usable.value:.0%} of the judge's verdicts could not be read; they are ties.",
            )
        if judge.flip is None:
            yield "one_order", True, "the judge saw each pair in one order only: how much the order decides is unknown."
        elif judge.position_swap is not None and judge.position_swap.value > MUCH_SWAPPED:
            text = f"in {judge.position_swap.value:.0%} of the pairs the judge's choice moved with the order of the candidates."
            yield "position_bias", True, text
        if judge.agreement is not None and (judge.agreement.low or 0.0) <= 0.5:
            yield "judge_guesses", True, "the judge is not shown to find the right answer more often than a coin would."
    for line in report.published:
        if line.differs:
            yield (
                "differs_from_published",
                True,
                f"{line.source} has {100 * line.value:.1f} % for {line.model} in this row, {line.note.partition(';')[0]} "
                f"({line.settings}).",
            )


def _of_origin(report: TargetReport) -> Iterator[tuple[str, bool, str]]:
    clean = report.clean_only
    if clean.declared is None:
        yield "training_data_unknown", False, "its training data is not declared: contamination is unknown."
    elif not clean.looked_at:
        yield (
            "contamination_not_searched",
            False,
            "its declared training data was not searched for the problems (`k2think eval contamination`).",
        )
    if clean.contaminated:
        yield (
            "contaminated",
            True,
            f"{clean.contaminated:,} of the problems are in its training data: see the figures for clean ones only.",
        )
    if report.spec is None:
        return
    unknown = [
        words
        for words, value in (
            ("revision of the model", report.spec.revision),
            ("server", report.spec.server),
            ("hash of the prompts", report.spec.template_sha256),
        )
        if value is None
    ]
    if unknown:
        yield "origin_unknown", False, f"not known: {', '.join(unknown)}; the figure cannot be made again exactly."
    if report.repeats == 1 and report.spec.sampling.get("temperature") != 0:
        yield (
            "one_repeat",
            False,
            "each problem was asked once: how much chance moves the answers is in the interval, but not seen apart.",
        )
    if report.spending.total.cost is None and report.spending.total.calls:
        yield "cost_unknown", False, "no price is known for a part of its calls: the cost is unknown."


def _bounds(report: TargetReport, number: int) -> str:
    if report.if_wrong is None or report.if_right is None:
        return "no bound can be given"
    return f"if these {number:,} were all wrong the figure would be {100 * report.if_wrong:.1f} %, if all right {100 * report.if_right:.1f} %"
