"""What a caller sends and gets: the request, the job's status, the result."""

from enum import StrEnum
from typing import Self

from pydantic import Field, field_validator, model_validator

from .base import Frozen
from .checks import Checks
from .completion import ChatMessage, FinishReason, TokenUsage
from .policy import Policy, Selection

PROBLEM_CHARS_MAX = 1_000_000
MESSAGES_MAX = 1_000
CUT_OFF = "cut_off"
"""Error code of a job whose candidates all reached their token limit."""


class JobStatus(StrEnum):
    """State of a job: queued → running → one of the five final ones."""

    queued = "queued"
    running = "running"
    succeeded = "succeeded"
    refused = "refused"
    """The safety agent withheld the request or the answer."""
    failed = "failed"
    cancelled = "cancelled"
    expired = "expired"
    """The deadline passed."""

    @property
    def final(self) -> bool:
        """Whether nothing can follow."""
        return self not in (JobStatus.queued, JobStatus.running)


class SolveRequest(Frozen):
    """A job to solve: a problem, or a conversation whose last user turn is the problem."""

    problem: str | None = Field(default=None, max_length=PROBLEM_CHARS_MAX)
    """The problem in words; None when `messages` is given."""
    messages: tuple[ChatMessage, ...] = Field(default=(), max_length=MESSAGES_MAX)
    """A conversation, oldest first; empty when `problem` is given."""
    policy: Policy = Policy()
    """How to solve it; the text "paper" stands for the paper's own policy."""
    checks: Checks = Checks()
    """The task's own checks."""
    metadata: dict[str, str] = Field(default_factory=dict, max_length=64)
    """The caller's own notes, returned untouched: at most 64 keys of 64 characters, values of 512."""
    idempotency_key: str | None = Field(default=None, min_length=1, max_length=255)
    """A second request of the same tenant with the same key returns the first one's job; None = every request is new."""

    @field_validator("problem")
    @classmethod
    def _problem_not_empty(cls, value: str | None) -> str | None:
        if value is not None and not value.strip():
            raise ValueError("the problem is empty: write what is to be solved")
        return value

    @field_validator("metadata")
    @classmethod
    def _metadata_small(cls, value: dict[str, str]) -> dict[str, str]:
        for key, text in value.items():
            if len(key) > 64 or len(text) > 512:
                raise ValueError(f"metadata {key[:64]!r} is too long: keys have at most 64 characters, values 512")
        return value

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        if (self.problem is None) == (not self.messages):
            raise ValueError("give either `problem` or `messages`, not both and not neither")
        if self.messages:
            if self.messages[-1].role != "user" or not self.messages[-1].content.strip():
                raise ValueError("the last message must be a user turn with text: it is the problem")
            if sum(len(message.content) for message in self.messages) > PROBLEM_CHARS_MAX:
                raise ValueError(f"the messages are too long: at most {PROBLEM_CHARS_MAX:,} characters together")
        return self

    @property
    def conversation(self) -> tuple[ChatMessage, ...]:
        """The request as messages, whichever form it came in."""
        return self.messages or (ChatMessage(role="user", content=self.problem or ""),)

    @property
    def is_chat(self) -> bool:
        """Whether a free text, without a parsed final answer, is a valid outcome."""
        return bool(self.messages)


class Comparison(Frozen):
    """One judged pair, in one order."""

    first: int
    """Index of the candidate shown first."""
    second: int
    """Index of the candidate shown second."""
    winner: int | None
    """Index of the preferred candidate; None = tie."""
    usable: bool
    """False when the verdict could not be read (counted as a tie)."""
    reason: str
    """The judge's reason."""


class SelectionReport(Frozen):
    """How the winner was chosen."""

    method: Selection
    """The rule that was applied."""
    clusters: tuple[tuple[int, ...], ...] = ()
    """Candidate indices grouped by equal answers, the largest first."""
    votes: int = 0
    """Candidates that gave the winning answer."""
    comparisons: tuple[Comparison, ...] = ()
    """The judged pairs, in order."""
    winner: int | None = None
    """Index of the winner; None = there was none."""
    disqualified: dict[int, str] = {}
    """Candidates that lost before any judging: index → reason."""


class UsageReport(Frozen):
    """Everything paid for, at the moment when the result was written. The attempts' rows are the full ledger."""

    planner: TokenUsage = TokenUsage()
    """The planner's tokens."""
    generator: TokenUsage = TokenUsage()
    """The generators' tokens, all candidates together."""
    verifier: TokenUsage = TokenUsage()
    """The verifier's tokens, all comparisons together."""
    safety: TokenUsage = TokenUsage()
    """The guard model's tokens; none where rules alone screen."""
    total: TokenUsage = TokenUsage()
    """All agents together."""
    calls: dict[str, int] = {}
    """Model calls by agent, retries and cancelled ones included."""
    wasted_tokens: int = 0
    """Completion tokens of calls whose text was thrown away: cancelled, failed or superseded attempts."""


class Timings(Frozen):
    """Where the time went; all in seconds."""

    queue: float = 0.0
    """From acceptance to the first step's start."""
    plan: float = 0.0
    """From the plan's message to its result."""
    generate: float = 0.0
    """From the first candidate's message to the last result that was waited for."""
    verify: float = 0.0
    """From the first comparison's message to the last verdict."""
    screen: float = 0.0
    """Input and output screening together."""
    total: float = 0.0
    """From acceptance to the result."""


class JobError(Frozen):
    """Why a job has no answer."""

    code: str
    """Machine-readable: `no_answer`, `cut_off`, `checks_failed`, `refused`, `expired`, `cancelled`, or a code of the error tree."""
    message: str
    """What happened, why, and what to do."""


class SolveResult(Frozen):
    """What a job came to. Written once."""

    job_id: str
    """UUIDv7 of the job; empty when the request was never accepted."""
    status: JobStatus
    """A final status."""
    answer: str | None = None
    """The extracted final answer; None when there is none (a free text may have only `content`)."""
    content: str | None = None
    """The answer text."""
    reasoning: str | None = None
    """The winner's reasoning."""
    finish_reason: FinishReason | None = None
    """Why the winner's completion ended; None = there is no winner."""
    plan: str | None = None
    """The plan that the winner was given; None = none."""
    selection: SelectionReport | None = None
    """How the winner was chosen; None = it never came to that."""
    usage: UsageReport = UsageReport()
    """Tokens and calls."""
    timings: Timings = Timings()
    """Seconds by stage."""
    error: JobError | None = None
    """Why there is no answer; None when succeeded."""
    metadata: dict[str, str] = {}
    """The caller's own notes."""
