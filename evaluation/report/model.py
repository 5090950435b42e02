"""What a report holds. Markdown, HTML and JSON are three ways to write the same values; nothing is computed while writing."""

from typing import Literal

from ...schemas.base import Frozen
from ...schemas.evaluation import Manifest, OverlapKind, Row, Status, TargetSpec
from ..statistics import Estimate


class Caution(Frozen):
    """Something that a reader must know before believing a figure."""

    code: str
    """Stable name."""
    loud: bool
    """True = a figure misleads without it; False = it limits what can be concluded."""
    text: str
    """What is the case, and what that means."""
    target: str | None = None
    """Target that it is about; None = the whole."""


class Counts(Frozen):
    """What became of the questions (a problem, once). All but `ungraded` and `missing` are in the denominator."""

    expected: int
    """Problems times repeats."""
    right: int
    """Graded, and right."""
    wrong: int
    """Graded, and wrong."""
    unparsed: int
    """Ended without a final answer; counts as wrong."""
    truncated: int
    """Cut off before a final answer; counts as wrong."""
    refused: int
    """Withheld; counts as wrong."""
    errored: int
    """No text came after all retries; counts as wrong."""
    ungraded: int
    """The check crashed."""
    missing: int
    """No outcome: not asked yet, or its line is lost."""
    tried_again: int
    """Further outcomes that another stands for: paid for, not counted as answers."""


class SubsetLine(Frozen):
    """One subset of the suite."""

    name: str
    """As the suite calls it."""
    problems: int
    """Problems with a verdict."""
    weight: float
    """Share of the problems: its weight in the micro average. In the macro average all weigh the same."""
    accuracy: Estimate | None
    """None = no problem of it has a verdict."""


class BestOf(Frozen):
    """Several samples of each problem: what a vote and an oracle make of them, beside what was chosen."""

    n: int
    """Samples of a problem."""
    of: str
    """Whose samples, in words."""
    one: Estimate | None
    """Mean over the samples, one taken by lot; None = unknown, since early stops depend on the samples."""
    majority: Estimate | None
    """Majority@n; None = no vote can be held (answers are free texts), or all are open."""
    oracle: Estimate | None
    """Oracle@n: at least one of n is right."""
    oracle_is_least: bool = False
    """True = early stops left samples out, and the oracle is at least this."""
    chosen: Estimate | None = None
    """What the target answered; None = the samples are separate questions, among which nothing chose."""
    over_vote: Estimate | None = None
    """Difference between what it answered and majority@n."""
    room: Estimate | None = None
    """Share of the way from the single sample to the oracle that it goes; None = see `room_note`."""
    room_note: str = ""
    """Which single sample and which oracle that is, or why it is unknown."""
    left_out: int = 0
    """Problems without a figure here: too few samples with a verdict, or a vote still open."""


class RoleSpent(Frozen):
    """What one role cost."""

    role: str
    """planner, generator, verifier, safety, grader, or `all`."""
    calls: int
    """Model calls."""
    prompt: int
    """Prompt tokens."""
    completion: int
    """Completion tokens, reasoning included."""
    reasoning: int
    """Of these, the reasoning's."""
    seconds: float
    """Seconds of the calls, added up."""
    cost: float | None
    """In the currency of the price list; None = at least one call has no known price."""


class Spending(Frozen):
    """All that was paid for: losers, discarded samples and tries again included."""

    roles: tuple[RoleSpent, ...]
    """One each."""
    total: RoleSpent
    """Their sum."""
    questions: int
    """Questions with an outcome."""
    tokens_per_question: float
    """Prompt and completion tokens of all roles."""
    wall_s_per_question: float
    """Mean wall-clock seconds from asking to the end."""
    discarded: int
    """Completion tokens of samples that were not chosen."""
    known_cost: float
    """Sum of the costs that are known."""


class Verifier(Frozen):
    """How far the judge can be trusted."""

    comparisons: int
    """Verdicts asked for."""
    alike: int
    """Of these, between equal answers: they say nothing, and count in `usable` only."""
    usable: Estimate | None
    """Share that could be read."""
    ties: Estimate | None
    """Of the usable between different answers, the share that names no winner."""
    first_shown: Estimate | None
    """Of the verdicts with a winner, the share for the candidate shown first; 50 % = no bias over all."""
    position_swap: Estimate | None
    """Of pairs judged in both orders, the share whose winner moved with the position."""
    flip: Estimate | None
    """Of pairs judged in both orders, the share whose two verdicts differ at all, ties included."""
    agreement: Estimate | None
    """Of verdicts with a winner between a right and a wrong candidate, the share for the right one."""
    repeats: Estimate | None
    """Of pairs of repeats that judged the same two answers, with a winner in one at least, the share with the same winner."""


class Stability(Frozen):
    """The same problem asked again."""

    pairs: int
    """Pairs of repeats."""
    answer_flip: Estimate | None
    """Share of pairs whose final answers differ; None = answers are free texts."""
    verdict_flip: Estimate | None
    """Share of pairs of which one is right and one wrong."""


class PublishedLine(Frozen):
    """A figure that somebody published, beside ours."""

    model: str
    """Model, as its publisher calls it."""
    same_model: bool
    """Whether it is the target's model."""
    row: Row
    """Which row it would be."""
    value: float
    """0..1."""
    settings: str
    """How it was measured, as far as its source tells."""
    source: str
    """Paper or page."""
    differs: bool
    """Whether the same model in the same row is outside our interval."""
    note: str
    """What to make of it."""


class CleanOnly(Frozen):
    """Accuracy by what is known of the problems' part in the training data."""

    declared: str | None
    """What is declared about the training data; None = nothing, which reads unknown, never clean."""
    looked_at: tuple[str, ...]
    """Data that was searched; empty = none was."""
    counted: tuple[OverlapKind, ...] = ()
    """Kinds of match that count."""
    clean: int = 0
    """Problems known to be clean."""
    contaminated: int = 0
    """Problems with a match."""
    unknown: int = 0
    """Problems of which nothing is known."""
    on_clean: Estimate | None = None
    """Micro average over the clean ones; None = there are none."""
    on_contaminated: Estimate | None = None
    """Over the contaminated ones."""
    on_unknown: Estimate | None = None
    """Over the others."""


class Reason(Frozen):
    """Why answers are not right."""

    status: Status
    """What became of them."""
    reason: str
    """Code of grading, or of the error."""
    answers: int
    """How many."""


class Example(Frozen):
    """One answer that is not right, for a reader who doubts the grader. Which ones are shown is fixed by the problems' ids."""

    problem: str
    """Id of the problem."""
    subset: str
    """Its subset."""
    repeat: int
    """Which repeat."""
    status: Status
    """What became of it."""
    reason: str
    """Code of grading, or of the error."""
    prompt: str
    """The problem, cut to what can be read."""
    truth: str
    """What the answer was compared with, as JSON, cut."""
    answer: str | None
    """The final answer as it was understood; None = none."""
    text: str
    """End of the text that holds it."""


class TargetReport(Frozen):
    """One target: one row of one model."""

    name: str
    """Unique in its part."""
    run: str
    """Name of the run's folder."""
    spec: TargetSpec | None
    """From the manifest; None = the manifest is missing."""
    row: Row | None
    """None = unknown."""
    label: str
    """The row in words, outside models named."""
    model: str
    """Model that writes the answers."""
    samples: int
    """N of best-of-N; 1 = a single sample."""
    repeats: int
    """How often each problem was to be asked."""
    macro: Estimate | None
    """The headline: every subset weighs the same. None = nothing was graded."""
    micro: Estimate | None
    """Every problem weighs the same: see the subsets' weights."""
    bootstrap: Estimate | None
    """The headline with an interval from resampling problems, as a check on the first."""
    if_wrong: float | None
    """The headline if all ungraded and missing answers were wrong."""
    if_right: float | None
    """The headline if all ungraded and missing answers were right."""
    counts: Counts
    """What became of the questions."""
    subsets: tuple[SubsetLine, ...]
    """By subset."""
    best_of: tuple[BestOf, ...]
    """Vote and oracle; empty = there was one sample of each problem."""
    spending: Spending
    """All that was paid for."""
    verifier: Verifier | None
    """None = nothing was compared."""
    stability: Stability | None
    """None = each problem was asked once."""
    clean_only: CleanOnly
    """What is known of contamination."""
    published: tuple[PublishedLine, ...]
    """Others' figures for this suite."""
    reasons: tuple[Reason, ...]
    """Why answers are not right, the most frequent first."""
    examples: tuple[Example, ...]
    """A few answers that are not right, of each kind."""


class PairReport(Frozen):
    """Two targets on the same problems."""

    ours: str
    """Target."""
    theirs: str
    """Target that it is compared with."""
    difference: Estimate
    """Macro average of ours - theirs, paired by problem."""
    micro: Estimate
    """The same with every problem of the same weight."""
    p: float | None
    """Two-sided, with the interval of the macro difference; McNemar's where the difference is the same for all problems, None where that has none."""
    p_holm: float | None
    """The same, adjusted for all pairs of the part."""
    mcnemar_p: float | None
    """Exact McNemar test over all problems; None = a problem was asked more than once."""
    gained: int
    """Problems that ours solves more often."""
    lost: int
    """Problems that theirs solves more often."""
    tokens_ratio: float | None
    """Tokens a question, ours over theirs; None = theirs are not known."""
    same_prompts: bool | None
    """Whether the prompts around the problem have the same hash; None = a hash is unknown."""
    caveats: tuple[str, ...]
    """What else differs between the two."""


class Part(Frozen):
    """Runs of the same problems with the same grader and judge: only these are compared."""

    suite: str
    """Name of the suite."""
    data_sha256: str | None
    """Hash of the problems; None = unknown."""
    grader_sha256: str | None
    """Hash of the grader; None = unknown."""
    judge: str | None
    """Who judged free answers; None = nobody, or unknown."""
    problems: int
    """Problems of the suite."""
    subsets: tuple[str, ...]
    """Subsets of the suite."""
    targets: tuple[TargetReport, ...]
    """By model, then row."""
    pairs: tuple[PairReport, ...]
    """Rows of the same model, and models in the same row."""
    warnings: tuple[Caution, ...]
    """The loud ones first."""


class RunLine(Frozen):
    """One run that was read."""

    name: str
    """Name of its folder."""
    manifest: Manifest | None
    """All that decides its figures; None = missing or unreadable."""
    outcomes: int
    """Questions with an outcome."""
    expected: int | None
    """Questions to be asked; None = unknown."""
    faults: tuple[str, ...]
    """What is wrong with its files."""


class Report(Frozen):
    """The whole report."""

    kind: Literal["k2think.evaluation.report"] = "k2think.evaluation.report"
    """What the file is."""
    version: Literal[1] = 1
    """Of this form."""
    k2think_version: str
    """Version that made the report."""
    runs: tuple[RunLine, ...]
    """What was read."""
    parts: tuple[Part, ...]
    """What is compared with each other."""
    warnings: tuple[Caution, ...]
    """About the report as a whole."""
