"""The records of an evaluation: what was asked of whom, what came back, what it cost. Append-only, one JSON line each."""

from enum import StrEnum

from pydantic import Field, JsonValue

from .base import Frozen
from .completion import TokenUsage
from .scores import Task


class Item(Frozen):
    """A problem of a suite."""

    task: Task
    """With truth and checks."""
    subset: str = Field(min_length=1)
    """Family, subject or contest within the suite: the macro average is over these."""
    published: str | None = None
    """Date of publication, `YYYY-MM-DD`; None = not known. LiveCodeBench's windows are cut by it."""


class Row(StrEnum):
    """Which of the three labelled rows of a report a result belongs to: they are never compared unlabelled."""

    single = "single"
    """One sample of the model, nothing around it."""
    self_scaffold = "self_scaffold"
    """The whole system with the model itself as planner and judge."""
    outside_scaffold = "outside_scaffold"
    """The whole system with a named outside model as planner or judge."""


class Status(StrEnum):
    """What became of one answer. All of them stay in the denominator."""

    graded = "graded"
    """An answer was found and checked."""
    unparsed = "unparsed"
    """The text ended, but holds no final answer; counts as wrong."""
    truncated = "truncated"
    """Cut off at the token limit before a final answer; counts as wrong."""
    refused = "refused"
    """The safety filter, or the provider's, withheld it; counts as wrong."""
    errored = "errored"
    """No text came: the call or the job failed after all retries; counts as wrong, and is counted apart."""
    ungraded = "ungraded"
    """The check itself crashed: neither right nor wrong, told apart and never dropped in silence."""


class Graded(Frozen):
    """One text and what grading says of it."""

    status: Status
    """What became of it."""
    answer: str | None = None
    """The final answer, normalised, as it votes; None = none."""
    value: float = 0.0
    """Reward, 0..1."""
    correct: bool = False
    """Whether it is right."""
    reason: str = ""
    """Code from grading, or of the error."""
    text: str = ""
    """The visible text after the reasoning."""
    seed: int | None = None
    """Seed of its sampler; None = the server chose."""
    usage: TokenUsage = TokenUsage()
    """Tokens of this sample alone."""
    finish_reason: str | None = None
    """As the server told; None = it did not."""


class Comparison(Frozen):
    """One comparison by the verifier."""

    first: int = Field(ge=0)
    """Index of the candidate shown first."""
    second: int = Field(ge=0)
    """Index of the candidate shown second."""
    choice: int | None
    """Index of the candidate that it chose; None = a tie, or no usable verdict."""
    usable: bool
    """Whether the verdict could be read."""


class Spent(Frozen):
    """What one role cost for one item, losers, discarded samples and retries included."""

    calls: int = 0
    """Model calls."""
    usage: TokenUsage = TokenUsage()
    """Tokens."""
    seconds: float = 0.0
    """Time of the calls in seconds, added up."""
    cost: float | None = None
    """In the currency of the price list; None = no price is known."""


class Outcome(Frozen):
    """One item given once to one target: the line that a run appends when it is paid for."""

    item: str
    """Id of the task."""
    target: str
    """Name of the target."""
    repeat: int = Field(ge=0)
    """0, 1, …: the same item asked again of the same target, other seeds."""
    final: Graded
    """What the target answered in the end; the row's accuracy is made of these."""
    candidates: tuple[Graded, ...] = ()
    """All samples in order, the chosen one too; one for a single sample. Majority@N and oracle@N are computed from them."""
    chosen: int | None = None
    """Index of the candidate that `final` is; None = none."""
    comparisons: tuple[Comparison, ...] = ()
    """Verdicts of the verifier, in order."""
    planned: bool = False
    """Whether a plan was given to the generator."""
    stopped_early: bool = False
    """Whether samples were cancelled or never begun because the vote was decided."""
    spent: dict[str, Spent] = {}
    """By role: `planner`, `generator`, `verifier`, `safety`, `grader`. Nothing that was paid for is left out."""
    seconds: float = 0.0
    """Wall-clock seconds from asking to the end."""
    at: float = 0.0
    """Unix time in seconds of the end."""
    judged_at: float | None = None
    """Unix time in seconds at which a judge was paid for answers that another run had paid for; None = all was paid by `at`."""


class TargetSpec(Frozen):
    """Whom a run asks, without secrets, as the manifest shows it."""

    name: str = Field(min_length=1, max_length=100)
    """Name within the run."""
    row: Row
    """Which row of the report it is."""
    model: str
    """Model that writes the answers."""
    revision: str | None = None
    """Commit, digest or date of the model; None = unknown, and the report says so."""
    base_url: str | None = None
    """OpenAI-compatible endpoint, without credentials; None = the embedded stack."""
    policy: dict[str, JsonValue] | None = None
    """The policy, for our own system; None = a plain endpoint."""
    outside_models: tuple[str, ...] = ()
    """Planner and judge models that are not the model itself; must be named where there are any."""
    sampling: dict[str, JsonValue] = {}
    """Temperature, top-p, max_tokens, stop, base seed."""
    template_sha256: str | None = None
    """Hash of the prompts around the problem (ours) or of the chat template (where it is known)."""
    backends_sha256: dict[str, str] = {}
    """By role: hash of the kind, place, model, revision, prompts and deciding settings of its backend and of those that stand in for it. Roles that are missing are not known, as behind a gateway."""
    server: str | None = None
    """Name and version of the server, as it tells; None = it does not."""


class Manifest(Frozen):
    """All that decides a run's figures; written before the first call, and a resumed run must have the same."""

    suite: str
    """Name of the suite."""
    suite_options: dict[str, JsonValue] = {}
    """Seed, size, date window, subset."""
    data_sha256: str
    """Hash of the items: ids, prompts, truths and checks."""
    items: int
    """Number of items."""
    targets: tuple[TargetSpec, ...]
    """Whom it asks."""
    repeats: int = 1
    """How often each item is given to each target."""
    training_data: dict[str, str] = {}
    """By target: what is declared about its training data; a target that is missing here reads `unknown`."""
    k2think_version: str
    """Version of this package."""
    grader_sha256: str
    """Hash of the sources of `grading/`, so that figures of another grader are not compared."""
    judge: str | None = None
    """Backend and model that judged free answers which no rule could decide; None = none did, and such answers are wrong."""
    created_at: float
    """Unix time in seconds."""


class OverlapKind(StrEnum):
    """How a text of the training data meets an item; ordered from the surest sign to the weakest."""

    exact = "exact"
    """All words of the item, in order and without a gap, after normalisation."""
    ngram13 = "ngram13"
    """At least 13 words in a row."""
    ngram8 = "ngram8"
    """At least 8 words in a row."""
    fuzzy = "fuzzy"
    """Similar as a whole, with numbers and single letters taken as equal: Jaccard similarity of the pairs of words."""


class Overlap(Frozen):
    """One match of an item with a text of the training data."""

    kind: OverlapKind
    """The surest kind of match with this text."""
    data: str
    """File that the text is from."""
    place: str
    """Where in the file: `line 12, prompt`."""
    text: str
    """The words that match, normalised, at most 300 characters."""
    words: int = Field(default=0, ge=0)
    """Length of the longest run of words that both have, if it is at least 8; 0 = there is none."""
    coverage: float = Field(default=0.0, ge=0.0, le=1.0)
    """Share of the item's words that are in common runs of at least 8 words."""
    similarity: float | None = Field(default=None, ge=0.0, le=1.0)
    """Jaccard similarity as a whole; None = it was not near enough to be computed."""


class Cleanliness(StrEnum):
    """What is known of an item's part in the training data."""

    clean = "clean"
    """No match in data that is declared as what the model was trained on, all of which could be read."""
    contaminated = "contaminated"
    """A match of a kind that counts."""
    unknown = "unknown"
    """No match in what was looked at, which is not declared, or not all that is declared could be read."""


class ItemOverlap(Frozen):
    """What was found of one item."""

    item: str
    """Id of the task."""
    status: Cleanliness
    """What that means."""
    overlaps: tuple[Overlap, ...] = ()
    """The best matches, the surest first; kinds that do not count are listed, too."""
    matches: int = Field(default=0, ge=0)
    """Texts that match, of any kind; more than are listed, where there are many."""


class LookedAt(Frozen):
    """One file of training data, and how much of it was looked through."""

    data: str
    """Its path as given, or its name at the hub with the revision."""
    sha256: str | None = None
    """Hash of its bytes; None = it is of a kind that is not read."""
    records: int
    """Records that were read."""
    unreadable: int = 0
    """Records that could not be read, or 1 for a file without any; while there are some, no item is called clean."""


class ContaminationReport(Frozen):
    """One suite held against one model's training data: what `k2think eval contamination` writes."""

    suite: str
    """Name of the suite."""
    data_sha256: str
    """Hash of the items, as in a run's manifest."""
    target: str | None = None
    """Target whose training data this is; None = whichever it is joined with."""
    declared: str | None = None
    """What is declared about the training data, in words; None = nothing, and then no item reads `clean`."""
    counted: tuple[OverlapKind, ...]
    """Kinds of match that make an item `contaminated`."""
    ngram8_coverage_min: float = Field(ge=0.0, le=1.0)
    """Least coverage with which a match of kind `ngram8` counts: eight words in a row alone are often mere phrasing."""
    looked_at: tuple[LookedAt, ...]
    """The data."""
    items: tuple[ItemOverlap, ...]
    """One of each item of the suite, in its order."""
    k2think_version: str
    """Version of this package."""
