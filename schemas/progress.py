"""What passes between the store and the pure state machine: the job as it stands, and what shall happen next."""

from dataclasses import dataclass, field

from .jobs import JobError, JobStatus, SelectionReport, SolveRequest
from .messages import Body
from .outcomes import StepView


@dataclass(frozen=True, slots=True)
class JobView:
    """A job as the state machine sees it. Times are Unix times in seconds."""

    job_id: str
    """UUIDv7 of the job."""
    tenant: str
    """Owner of the job."""
    status: JobStatus
    """State."""
    request: SolveRequest
    """As accepted, with every None of the policy that depends on settings resolved."""
    created_at: float
    """Of the acceptance."""
    started_at: float | None
    """First claim of any step; None = not yet."""
    steps: dict[str, StepView] = field(default_factory=dict[str, StepView])
    """By name, in order of creation."""
    equivalences: dict[tuple[int, int], bool] = field(default_factory=dict[tuple[int, int], bool])
    """Whether candidates i < j gave the same answer, where that took more than the quick rules to tell."""
    wake_at: float | None = None
    """When the state machine is to be asked again at the latest; None = the job has ended, or that is not known."""
    traceparent: str | None = None
    """W3C trace context of the submitter; None = not traced."""
    reply_to: str | None = None
    """Celery task that waits for the result; None = nobody does."""

    @property
    def deadline_at(self) -> float:
        """When it expires."""
        return self.created_at + self.request.policy.deadline_s


@dataclass(frozen=True, slots=True)
class NewStep:
    """A step to create, or to leave alone when one of that name exists."""

    name: str
    """Unique in the job, derived from what the step is about: creating it twice changes nothing."""
    body: Body
    """The message's body."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How the job ends."""

    status: JobStatus
    """A final status."""
    winner: int | None = None
    """Index of the winning candidate; its answer may be shown only when status is succeeded."""
    selection: SelectionReport | None = None
    """How it was chosen; None = it never came to that."""
    error: JobError | None = None
    """Why there is no answer; None when succeeded."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What shall happen next. Applied in the same transaction as the result that led to it."""

    create: tuple[NewStep, ...] = ()
    """Steps to create and publish."""
    cancel: tuple[str, ...] = ()
    """Names of unfinished steps that are no longer wanted."""
    ending: Ending | None = None
    """How the job ends; None = it goes on."""
    wake_at: float | None = None
    """Unix time at which to ask again if nothing happens before (soft timeout, deadline); None when it ends."""
    undecided: tuple[tuple[int, int], ...] = ()
    """Pairs of candidates whose equivalence must be found out (outside any transaction) before a decision can be made;
    when not empty, everything else here is empty."""
