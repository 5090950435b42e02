"""docs/evidence.md, printed from packed runs: every figure in it is computed here, none is typed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...schemas.errors import InvalidRequest
from ..records import Run
from ..report.build import build_report, compare
from ..report.model import BestOf, PairReport, Part, TargetReport
from ..report.words import moment, number, p_value, percent, points, seconds, share, short, times
from .plan import CLAIMS, ROOM_ASKED, SAMPLES, Claim
from .run import CONTROL, MAIN

HEAD = """# The evidence

What each pillar of K2-Think brings, measured on k2think-mini, the small model that this repository trains and ships. This
page is printed by `k2think eval evidence` from the runs in `docs/evidence/`; `make evidence` makes the runs anew. Shares are per
cent, intervals 95 %, differences in points and paired by problem; the average over the families is the headline (macro), since
their numbers of problems differ."""

LIMITS = """## What this cannot show

- k2think-mini has 1.2 million parameters and solves eight narrow families of problems. A pillar that helps it need not help a
  model of 32 billion parameters, nor the other way round.
- Problems, generator of the training data and grader have the same author. Fresh problems are disjoint from training by their
  underlying key, not by their kind: this measures interpolation within families.
- The problems of the report side were not looked at while anything was chosen; choices were made on the development side,
  which the code keeps apart. Nothing hinders anyone who changes that code. What this page said of the model before this one
  did shape its recipe (GRPO was made longer), so every model is measured on problems drawn with a seed of its own; of
  a family with few problems (divisors) most are met again.
- Tokens are k2think-mini's (characters, nearly). Seconds are those of two shared CPU cores under load and say little about
  other machines."""

ROWS = {
    "base": "lightly pre-trained, one sample",
    "sft": "after SFT, one sample",
    "mini": "after SFT and GRPO, one sample: the shipped model",
    "sft-whole": "after SFT, one sample of the whole distribution (top-p 1)",
    "mini-whole": "after SFT and GRPO, one sample of the whole distribution (top-p 1)",
    "sft-vote": f"after SFT, {SAMPLES} samples, the vote alone",
    "sft-consensus": f"after SFT, {SAMPLES} samples, consensus, then pairwise comparison",
    "shuffled": "as *mini*, with another family's plan (control)",
    "plan": "as *mini*, with its own plan",
    "vote": f"{SAMPLES} samples, the vote alone",
    "pairwise": f"{SAMPLES} samples, pairwise comparison alone",
    "consensus": f"{SAMPLES} samples, consensus, then pairwise comparison",
    "both": f"plan, and {SAMPLES} samples with consensus, then pairwise comparison",
    "early": "the same with early stop",
}
"""Targets in the order of the page, in words."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What the page is made of."""

    runs: Mapping[str, Run]
    """The main run and the control."""
    targets: Mapping[str, TargetReport]
    """By name, of both."""
    main: Part
    """The main run's part of the report."""


def figures_of(runs: Mapping[str, Run]) -> Figures:
    """Work out all figures. Raises InvalidRequest when a run or a target is missing."""
    missing = [name for name in (MAIN, CONTROL) if name not in runs]
    if missing:
        raise InvalidRequest(f"there is no run {', '.join(missing)} among {', '.join(runs) or 'none'}")
    parts = {name: build_report([runs[name]]).parts[0] for name in (MAIN, CONTROL)}
    targets = {target.name: target for part in parts.values() for target in part.targets}
    if lacking := [name for name in ROWS if name not in targets]:
        raise InvalidRequest(f"the runs have no target {', '.join(lacking)}: they were not made by this version")
    return Figures(runs, targets, parts[MAIN])


def document(runs: Mapping[str, Run], *, speculation: Mapping[str, Any] | None, notes: str) -> str:
    """Return the page. `speculation`: what benchmarks/speculation.py printed; `notes`: reasons sought, written by hand."""
    figures = figures_of(runs)
    parts = (
        [HEAD],
        _rows(figures),
        _claims(figures),
        _best_of(figures),
        _verifier(figures),
        _families(figures),
        _spent(figures),
        _speculation(speculation),
        ["## Reasons, as far as they were sought", notes.strip()] if notes.strip() else [],
        [LIMITS],
        _origin(figures),
    )
    return "\n\n".join(text for part in parts for text in part) + "\n"


def _rows(figures: Figures) -> Iterator[str]:
    yield "## Who was asked"
    incomplete = [name for name in ROWS if figures.targets[name].counts.missing]
    if incomplete:
        yield f"**Not finished:** {', '.join(incomplete)} lack answers; the figures are of what there is."
    yield _table(
        ("row", "what it is", "accuracy (macro)", "micro", "no answer", "errors"),
        [
            (
                name,
                words,
                percent(target.macro),
                percent(target.micro),
                number(target.counts.unparsed + target.counts.truncated + target.counts.refused),
                number(target.counts.errored + target.counts.ungraded),
            )
            for name, words in ROWS.items()
            for target in (figures.targets[name],)
        ],
        words=2,
    )
    yield (
        f"{figures.main.problems:,} problems. *No answer*: unparsed, cut off or refused, all counted as wrong. *Errors* are "
        "counted as wrong too, save where the check itself crashed. Samples are drawn at T = 1, top-p 0.95, unless the row says "
        "otherwise."
    )


def _claims(figures: Figures) -> Iterator[str]:
    yield "## What each pillar brings"
    rows: list[Sequence[str]] = []
    for claim in CLAIMS:
        pair = _pair(figures, claim)
        rows.append(
            (
                claim.about,
                f"{claim.ours} − {claim.theirs}",
                points(pair.difference),
                p_value(pair.mcnemar_p),
                f"{pair.gained} : {pair.lost}",
                times(pair.tokens_ratio),
                verdict(claim, pair),
            )
        )
    head = ("pillar", "rows", "difference", "p (McNemar)", "only ours : only theirs right", "tokens", "finding")
    yield _table(head, rows, words=2)
    yield (
        f"{len(CLAIMS)} comparisons: by chance alone one interval in twenty leaves zero out. *Tokens*: all that was paid "
        "for, planner, judge and samples that lost included, as a multiple of the row compared with."
    )


def verdict(claim: Claim, pair: PairReport) -> str:
    """Return what a comparison says about its claim, by its interval alone."""
    found = pair.difference
    if found.low is None or found.high is None:
        return "too few problems to tell"
    if claim.equal:
        return "no difference shown" if found.low <= 0 <= found.high else "**a difference**"
    if found.high < 0:
        return "**a loss**"
    if found.low <= 0:
        return "**no gain shown**"
    if claim.at_least is not None and found.value < claim.at_least:
        return f"a gain, but below the {100 * claim.at_least:.0f} points asked for"
    return "a gain"


def _best_of(figures: Figures) -> Iterator[str]:
    yield f"## Best of {SAMPLES}, beside a vote and an oracle"
    rows: list[Sequence[str]] = []
    for name in ("sft-vote", "sft-consensus", "vote", "pairwise", "consensus", "both"):
        best = _of_own_samples(figures.targets[name])
        closed = best.room is not None and best.room.value >= ROOM_ASKED
        rows.append(
            (
                name,
                percent(best.one),
                percent(best.majority),
                percent(best.oracle),
                percent(best.chosen),
                points(best.over_vote),
                percent(best.room),
                "yes" if closed else "**no**",
            )
        )
    head = ("row", "one of its samples", f"majority@{SAMPLES}", f"oracle@{SAMPLES}", "chosen", "over the vote")
    yield _table((*head, "room closed", f"at least {share(ROOM_ASKED)} %"), rows)
    yield f"*Room closed*: (chosen − single sample) / (oracle@{SAMPLES} − single sample); {_of_own_samples(figures.targets['vote']).room_note}."


def _verifier(figures: Figures) -> Iterator[str]:
    judged = figures.targets["pairwise"].verifier
    yield "## The verifier"
    if judged is None:
        yield "It was never asked."
        return
    yield _table(
        (
            "comparisons",
            "usable",
            "ties",
            "for the one shown first",
            "winner moved with the order",
            "for the right one",
        ),
        [
            (
                number(judged.comparisons),
                percent(judged.usable),
                percent(judged.ties),
                percent(judged.first_shown),
                percent(judged.position_swap),
                percent(judged.agreement),
            )
        ],
        words=0,
    )
    yield "From the row *pairwise*. *For the right one*: among comparisons of a right with a wrong candidate that named a winner."


def _families(figures: Figures) -> Iterator[str]:
    yield "## By family"
    shown = ("base", "sft", "mini", "plan", "vote", "both")
    by_name = {name: {line.name: line.accuracy for line in figures.targets[name].subsets} for name in shown}
    sizes = {line.name: line.problems for line in figures.targets["mini"].subsets}
    yield _table(
        ("family", "problems", *shown),
        [
            (family, number(sizes.get(family, 0)), *(percent(by_name[name].get(family)) for name in shown))
            for family in figures.main.subsets
        ],
    )


def _spent(figures: Figures) -> Iterator[str]:
    yield "## What it costs"
    rows: list[Sequence[str]] = []
    for name in ROWS:
        spending = figures.targets[name].spending
        by_role = {role.role: role for role in spending.roles}
        each = {
            role: by_role[role].completion / max(spending.questions, 1) if role in by_role else 0.0
            for role in ("planner", "generator", "verifier")
        }
        calls = spending.total.calls / max(spending.questions, 1)
        rows.append(
            (
                name,
                f"{calls:.2f}",
                f"{spending.tokens_per_question:.0f}",
                *(f"{value:.0f}" if value else "–" for value in each.values()),
                seconds(spending.total.seconds / max(spending.questions, 1)),
            )
        )
    head = ("row", "calls a problem", "tokens, prompts too", "planner", "generator", "verifier", "seconds of calls")
    yield _table(head, rows)
    yield "Tokens by role are completions. Seconds of calls are added up, while many ran at once on the same two cores."


def _speculation(found: Mapping[str, Any] | None) -> Iterator[str]:
    yield "## Speculation in the embedded engine"
    if found is None:
        yield "Not measured in these runs: `benchmarks/speculation.py` prints what this section is made of."
        return
    cells: list[Mapping[str, Any]] = found["cells"]
    variants = [name for name in cells[0] if name not in ("streams", "plain")]
    rows = [
        (
            str(cell["streams"]),
            name,
            *(f"{cell[which]['tokens_per_s']:,.0f}" for which in ("plain", name)),
            *(f"{1000 * cell['streams'] / cell[which]['tokens_per_s']:.2f}" for which in ("plain", name)),
            *(f"{cell[which]['tokens_per_cpu_s']:,.0f}" for which in ("plain", name)),
            f"{cell[name]['ratio']:.2f}×",
            f"{cell[name]['ratio_cpu']:.2f}×",
            f"{cell[name]['same_text']} of {cell[name]['requests']}",
        )
        for cell in cells
        for name in variants
    ]
    head = (
        "streams",
        "speculation",
        "tokens/s plain",
        "with it",
        "ms a token of a stream, plain",
        "with it",
        "tokens/CPU-s plain",
        "with it",
        "clock",
        "CPU",
        "same text",
    )
    yield _table(head, rows, words=0)
    options, machine = found["options"], found["machine"]
    yield (
        f"`benchmarks/speculation.py` with the model {options['model'] or 'k2think-mini'}, {options['threads']} thread, "
        f"{machine['cores']} cores, load {machine['load_before']} before. The same seeds both ways; ratios are medians over the "
        "rounds. *Same text*: requests whose text did not change, which with f32 arithmetic is all of them, so the distribution "
        "of outputs is the same."
    )


def _origin(figures: Figures) -> Iterator[str]:
    yield "## Where the figures are from"
    lines: list[str] = []
    for name in (MAIN, CONTROL):
        run = figures.runs[name]
        manifest = run.manifest
        if manifest is None:
            lines.append(f"- `{name}`: its manifest is missing")
            continue
        options = ", ".join(f"{key} {value}" for key, value in manifest.suite_options.items())
        lines.append(
            f"- `{name}`: {moment(manifest.created_at)}, k2think {manifest.k2think_version}; {manifest.suite} ({options}); data "
            f"{short(manifest.data_sha256)}, grader {short(manifest.grader_sha256)}"
        )
        revisions = {f"{spec.model} {short(spec.revision)}" for spec in manifest.targets}
        lines.append(f"  - models: {', '.join(sorted(revisions))}")
        lines.extend(f"  - {fault}" for fault in run.faults)
    yield "\n".join(lines)


def _pair(figures: Figures, claim: Claim) -> PairReport:
    ours, theirs = (
        (figures.runs[CONTROL if name == "shuffled" else MAIN], name) for name in (claim.ours, claim.theirs)
    )
    # The control's problems are the same with a plan before them, which is the difference that is asked about.
    return compare(ours, theirs, anyway=ours[0] is not theirs[0])


def _of_own_samples(target: TargetReport) -> BestOf:
    return target.best_of[0]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], *, words: int = 1) -> str:
    rule = ["---" if place < words else "---:" for place in range(len(head))]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *rows))
