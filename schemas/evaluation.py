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
    """Seconds of the calls, added up."""
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
    created_at: float
    """Unix time in seconds."""
