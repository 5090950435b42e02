"""The report's tables, as text: what Markdown and HTML both print."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ...schemas.evaluation import Row
from .model import BestOf, Part, RoleSpent, TargetReport
from .words import NOTHING, money, number, p_value, percent, points, seconds, share, times

ROW_TITLES = {
    Row.single: "single sample",
    Row.self_scaffold: "scaffold, the model itself plans and judges",
    Row.outside_scaffold: "scaffold with a named outside model",
}
NOT_RUN = "not run"


@dataclass(frozen=True, slots=True)
class Table:
    """One table."""

    key: str
    """Stable name."""
    title: str
    """Heading."""
    note: str
    """What the figures mean."""
    head: tuple[str, ...]
    """Titles of the columns."""
    rows: tuple[tuple[str, ...], ...]
    """Cells."""
    words: int = 1
    """So many columns from the left hold words; the others hold figures."""
    lead: str = ""
    """Title of the row to stress; empty = none."""


def tables_of(part: Part) -> list[Table]:
    """Return the tables of a part; those without a row are left out."""
    makers: tuple[Callable[[Part], Table], ...] = (
        _accuracy,
        _counts,
        _pairs,
        _samples,
        _subsets,
        _spending,
        _verifier,
        _stability,
        _contamination,
        _published,
        _reasons,
    )
    return [table for maker in makers if (table := maker(part)).rows]


def _accuracy(part: Part) -> Table:
    rows: list[tuple[str, ...]] = []
    for model in dict.fromkeys(target.model for target in part.targets):
        own = [target for target in part.targets if target.model == model]
        for row in (*ROW_TITLES, None):
            found = [target for target in own if target.row is row]
            rows.extend(_accuracy_row(target) for target in found)
            if row is not None and not found:
                rows.append((model, ROW_TITLES[row], NOT_RUN, *[NOTHING] * 6))
    return Table(
        key="accuracy",
        title="Accuracy",
        note="Per cent right, with 95 % intervals by problem. The headline is the macro average: every subset weighs the same. "
        "Unparsed, cut off, refused and failed answers are wrong, not left out. "
        "Best-of-N stands beside a vote and an oracle of the same samples. "
        "≥: early stops left samples out. Tokens: of all roles, discarded samples included.",
        head=(
            "Model",
            "Row",
            "Target",
            "N",
            "Accuracy (macro)",
            "Micro",
            "Majority@N",
            "Oracle@N",
            "Tokens a question",
        ),
        rows=tuple(rows),
        words=3,
    )


def _accuracy_row(target: TargetReport) -> tuple[str, ...]:
    beside = target.best_of[0] if target.best_of else None
    at = f" (@{beside.n})" if beside is not None and target.samples == 1 else ""
    return (
        target.model,
        target.label,
        target.name,
        str(target.samples),
        percent(target.macro),
        percent(target.micro),
        NOTHING if beside is None else percent(beside.majority) + at,
        NOTHING if beside is None else _oracle(beside) + at,
        number(target.spending.tokens_per_question),
    )


def _counts(part: Part) -> Table:
    return Table(
        key="counts",
        title="What became of the questions",
        note="A question is a problem asked once. What is right, wrong, without an answer, cut off, refused or failed is in the denominator. "
        "Left out are answers whose check crashed and questions without an outcome; the bounds say what the macro average would be if these were all wrong or all right.",
        head=(
            *("Target", "Questions", "Right", "Wrong", "No answer found", "Cut off", "Refused", "Failed"),
            *("Check crashed", "Missing", "Tried again", "If left out were wrong … right"),
        ),
        rows=tuple(
            (
                target.name,
                *(
                    number(value)
                    for counts in (target.counts,)
                    for value in (
                        *(counts.expected, counts.right, counts.wrong, counts.unparsed, counts.truncated),
                        *(counts.refused, counts.errored, counts.ungraded, counts.missing, counts.tried_again),
                    )
                ),
                f"{share(target.if_wrong)} … {share(target.if_right)}",
            )
            for target in part.targets
        ),
    )


def _pairs(part: Part) -> Table:
    return Table(
        key="pairs",
        title="Differences",
        note="Points of the macro average, paired by problem, with 95 % intervals from resampling problems. p: the same resamples, "
        f"two-sided, or McNemar's where all problems differ alike; Holm: adjusted for the {len(part.pairs)} pairs here. McNemar: exact, over all problems, where each was asked once. "
        "A model's scaffold is not compared with another model's single sample.",
        head=("Compared", "Also differs", "Macro", "p", "p (Holm)", "Micro", "p (McNemar)", "Gained / lost", "Tokens"),
        rows=tuple(
            (
                f"{pair.ours} − {pair.theirs}",
                "; ".join(pair.caveats) or NOTHING,
                points(pair.difference),
                p_value(pair.p),
                p_value(pair.p_holm),
                points(pair.micro),
                p_value(pair.mcnemar_p),
                f"{pair.gained:,} / {pair.lost:,}",
                times(pair.tokens_ratio),
            )
            for pair in part.pairs
        ),
        words=2,
    )


def _samples(part: Part) -> Table:
    return Table(
        key="samples",
        title="Several samples: the vote, the oracle and the room between",
        note="Majority@N: a plain vote, ties by lot. Oracle@N: at least one of N is right; nothing that chooses can be better. "
        "Over the vote: what was chosen less majority@N, in points. Room closed: how far from the single sample to the oracle.",
        head=(
            *("Target", "Samples", "Room: from … to", "N", "One sample", "Majority@N", "Oracle@N"),
            *("Chosen", "Over the vote", "Room closed", "Problems left out"),
        ),
        rows=tuple(
            (
                target.name,
                found.of,
                found.room_note or NOTHING,
                str(found.n),
                percent(found.one),
                percent(found.majority),
                _oracle(found),
                percent(found.chosen),
                points(found.over_vote),
                percent(found.room),
                number(found.left_out),
            )
            for target in part.targets
            for found in target.best_of
        ),
        words=3,
    )


def _oracle(found: BestOf) -> str:
    return ("≥ " if found.oracle_is_least else "") + percent(found.oracle)


def _subsets(part: Part) -> Table:
    def rows() -> Iterator[tuple[str, ...]]:
        for place, name in enumerate(part.subsets):
            lines = [target.subsets[place] for target in part.targets]
            weight = max((line.weight for line in lines), default=0.0)
            problems = max((line.problems for line in lines), default=0)
            yield (name, number(problems), f"{100 * weight:.1f} %", *(percent(line.accuracy) for line in lines))

    return Table(
        key="subsets",
        title="By subset",
        note=f"In the macro average each subset weighs {100 / max(len(part.subsets), 1):.1f} %; in the micro average it weighs its "
        "share of the problems.",
        head=("Subset", "Problems", "Weight in micro", *(target.name for target in part.targets)),
        rows=tuple(rows()) if part.targets else (),
    )


def _spending(part: Part) -> Table:
    rows: list[tuple[str, ...]] = []
    for target in part.targets:
        spent = target.spending
        rows.extend((target.name, role.role, *_spent(role), NOTHING, NOTHING, NOTHING) for role in spent.roles)
        known = f" (≥ {money(spent.known_cost)})" if spent.total.cost is None and spent.known_cost else ""
        *figures, cost = _spent(spent.total)
        rows.append(
            (
                *(target.name, "all", *figures, cost + known, number(spent.tokens_per_question)),
                *(seconds(spent.wall_s_per_question), number(spent.discarded)),
            )
        )
    return Table(
        key="spending",
        title="What it cost",
        note="All that was paid for: planner, judge, samples that were discarded or cancelled, tries again. Seconds: of the calls, added up. "
        "Cost: in the currency of the price list.",
        head=(
            *("Target", "Role", "Calls", "Prompt tokens", "Completion tokens", "Of it reasoning", "Seconds", "Cost"),
            *("Tokens a question", "Wall seconds a question", "Completion tokens discarded"),
        ),
        rows=tuple(rows),
        words=2,
        lead="all",
    )


def _spent(role: RoleSpent) -> tuple[str, ...]:
    counts = (role.calls, role.prompt, role.completion, role.reasoning)
    return (*map(number, counts), seconds(role.seconds), money(role.cost))


def _verifier(part: Part) -> Table:
    return Table(
        key="verifier",
        title="The judge",
        note="Per cent, with 95 % intervals by problem; verdicts between equal answers count in the first three columns only. Moved with the order: of pairs judged in both orders, those whose winner changed "
        "places. Flipped: those whose two verdicts differ at all. Right: of verdicts between a right and a wrong answer. "
        "Same again: of the same two answers judged in two repeats, with a winner in one at least.",
        head=(
            *("Target", "Verdicts", "Equal answers", "Usable", "Ties", "First shown wins", "Moved with the order"),
            *("Flipped", "Right", "Same again"),
        ),
        rows=tuple(
            (
                target.name,
                number(judge.comparisons),
                number(judge.alike),
                *map(percent, (judge.usable, judge.ties, judge.first_shown, judge.position_swap)),
                *map(percent, (judge.flip, judge.agreement, judge.repeats)),
            )
            for target in part.targets
            if (judge := target.verifier) is not None
        ),
    )


def _stability(part: Part) -> Table:
    return Table(
        key="stability",
        title="Asked again",
        note="Of pairs of answers to the same problem, the per cent that differ: in the answer, and in being right.",
        head=("Target", "Repeats", "Pairs", "Answer differs", "Right once, wrong once"),
        rows=tuple(
            (
                target.name,
                str(target.repeats),
                number(again.pairs),
                percent(again.answer_flip),
                percent(again.verdict_flip),
            )
            for target in part.targets
            if (again := target.stability) is not None
        ),
    )


def _contamination(part: Part) -> Table:
    def cell(problems: int, estimate: str) -> str:
        return f"{estimate} (n = {problems:,})" if problems else "none"

    return Table(
        key="contamination",
        title="Contamination",
        note="Micro averages by what is known of the problems' part in the training data. Training data that is not declared reads "
        "unknown, never clean; so does a problem without a match where not all that is declared could be searched.",
        head=(
            "Target",
            "Training data",
            "Searched",
            "Matches that count",
            "All",
            "Clean only",
            "Contaminated",
            "Unknown",
        ),
        rows=tuple(
            (
                target.name,
                found.declared or "unknown: not declared",
                ", ".join(found.looked_at) or "nothing",
                ", ".join(found.counted) or NOTHING,
                percent(target.micro),
                cell(found.clean, percent(found.on_clean)),
                cell(found.contaminated, percent(found.on_contaminated)),
                cell(found.unknown, percent(found.on_unknown)) if found.looked_at else f"{found.unknown:,} problems",
            )
            for target in part.targets
            for found in (target.clean_only,)
        ),
        words=4,
    )


def _published(part: Part) -> Table:
    return Table(
        key="published",
        title="Published by others",
        note="Per cent as their sources give it, beside our micro average. Nobody measured the two under the same conditions.",
        head=("Target", "Published for", "Row", "How", "Source", "What to make of it", "Published", "Ours (micro)"),
        rows=tuple(dict.fromkeys(_published_rows(part))),
        words=6,
    )


def _published_rows(part: Part) -> Iterator[tuple[str, ...]]:
    """Walk the figures: of a target's own model for that target, of other models once."""
    for own in (True, False):
        for target in part.targets:
            for line in target.published:
                if line.same_model is own:
                    yield (
                        target.name if own else NOTHING,
                        line.model,
                        ROW_TITLES[line.row],
                        line.settings,
                        line.source,
                        ("DIFFERS: " if line.differs else "") + line.note,
                        share(line.value),
                        percent(target.micro) if own else NOTHING,
                    )


def _reasons(part: Part) -> Table:
    return Table(
        key="reasons",
        title="Why answers are not right",
        note="Codes of the grader, or of the error.",
        head=("Target", "What became of it", "Reason", "Answers"),
        rows=tuple(
            (target.name, reason.status.value, reason.reason or NOTHING, number(reason.answers))
            for target in part.targets
            for reason in target.reasons
        ),
        words=3,
    )
