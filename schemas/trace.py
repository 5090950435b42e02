"""The trace: one record per attempt at a step, the events of a job, and the whole as it is shown."""

from enum import StrEnum
from typing import Any

from pydantic import Field

from .base import Frozen, Mutable
from .completion import ChatMessage, TokenUsage
from .jobs import JobStatus, SolveRequest, SolveResult
from .outcomes import StepFailure, StepStatus


class LeftCall(Frozen):
    """A model call of an attempt that came to nothing, while another one of the same attempt went on."""

    backend: str
    """Name of the backend."""
    model: str
    """Model name."""
    reason: str
    """Code of the error after which another backend was asked, or `hedge_lost`."""
    usage: TokenUsage
    """Tokens paid for it, as far as they are known."""
    duration_s: float
    """Seconds from the call to its end."""


class CallTrace(Mutable):
    """One model call, filled in while it streams, so that a cancelled or broken call still leaves its record."""

    backend: str = ""
    """Name of the backend; empty = no model was called."""
    model: str = ""
    """Model name."""
    prompt: list[ChatMessage] = Field(default_factory=list[ChatMessage])
    """The messages as sent."""
    parameters: dict[str, Any] = Field(default_factory=dict[str, Any])
    """Decoding parameters as sent."""
    raw_text: str = ""
    """Visible text as it came, unparsed."""
    reasoning: str = ""
    """Reasoning text."""
    answer: str | None = None
    """The extracted answer; None = none, or not a generator's call."""
    usage: TokenUsage = TokenUsage()
    """Tokens; counted by us from the deltas when the stream did not end."""
    usage_estimated: bool = False
    """True when the engine did not tell."""
    finish_reason: str | None = None
    """Why the completion ended; None = it did not."""
    time_to_first_token_s: float | None = None
    """Seconds from the call to the first delta; None = none came."""
    duration_s: float = 0.0
    """Seconds from the call to its end."""
    retries: int = 0
    """Calls refused before their first token (429, 503, connect) that were tried again inside this attempt."""
    limit_wait_s: float | None = None
    """Seconds that the call waited for its backend's limits, before it began and not in its duration; None = it has none."""
    engine_queue_s: float | None = None
    """Seconds in the engine's queue, as told by it."""
    engine_prompt_s: float | None = None
    """Seconds of prompt processing, as told by the engine; None = not told."""
    engine_completion_s: float | None = None
    """Seconds of decoding, as told by the engine; None = not told."""
    cached_prompt_tokens: int | None = None
    """Of the prompt's tokens, those that the engine had from earlier calls; None = not told."""
    draft_acceptance: float | None = None
    """Share of speculated tokens accepted, 0..1; None = no speculation or not told."""
    accepted_length: float | None = None
    """Mean tokens that one verification of a draft brought, the model's own included, from 1; None = as above."""
    rate_limits: dict[str, str] = Field(default_factory=dict[str, str])
    """Rate-limit headers of the response."""

    left_calls: list[LeftCall] = Field(default_factory=list[LeftCall])
    """Calls of the same attempt that came to nothing, oldest first. What is told above is about the last one alone."""

    @property
    def wasted(self) -> TokenUsage:
        """Tokens of the calls that came to nothing."""
        return sum((call.usage for call in self.left_calls), TokenUsage())

    @property
    def called(self) -> bool:
        """Whether a model was called at all."""
        return bool(self.backend)

    @property
    def tokens_per_s(self) -> float | None:
        """Completion tokens per second of decoding: the engine's seconds, else ours from the first token; None = not known."""
        decoding_s = self.engine_completion_s
        if decoding_s is None:
            decoding_s = self.duration_s - (self.time_to_first_token_s or 0.0)
        return self.usage.completion / decoding_s if self.usage.completion and decoding_s > 0 else None


class AttemptOutcome(StrEnum):
    """How an attempt ended."""

    running = "running"
    done = "done"
    failed = "failed"
    """With an error; the step may be tried again."""
    cancelled = "cancelled"
    """The job or the step was no longer wanted."""
    released = "released"
    """Handed back by a worker that shut down."""
    lost = "lost"
    """Its lease ran out: the worker died or stood still."""
    stale = "stale"
    """It finished after its lease had passed to another; its result was thrown away."""


class AttemptTrace(Frozen):
    """One attempt at a step."""

    step: str
    """Name of the step."""
    attempt: int
    """The fencing token."""
    worker: str
    """Id of the worker process."""
    outcome: AttemptOutcome
    """How it ended."""
    queued_at: float
    """Unix time in seconds at which the step was ready."""
    claimed_at: float
    """Unix time in seconds of the claim; `claimed_at - queued_at` is the queue wait."""
    finished_at: float | None
    """Unix time in seconds of the end; None = still running."""
    error: StepFailure | None
    """What went wrong; None = nothing."""
    call: CallTrace | None
    """The model call; None = no model was called."""


class StepTrace(Frozen):
    """One step with its attempts."""

    name: str
    """Name, unique in the job."""
    kind: str
    """Kind of the message body."""
    status: StepStatus
    """State."""
    created_at: float
    """Unix time in seconds of its creation."""
    finished_at: float | None
    """Unix time in seconds; None = not yet."""
    result: dict[str, Any] | None
    """The result as stored; None = none."""
    failure: StepFailure | None
    """Why it failed; None = it did not."""
    attempts: tuple[AttemptTrace, ...]
    """Oldest first."""


class EventKind(StrEnum):
    """What a progress event tells."""

    accepted = "accepted"
    step_started = "step_started"
    step_finished = "step_finished"
    step_failed = "step_failed"
    step_retried = "step_retried"
    step_cancelled = "step_cancelled"
    finished = "finished"


class JobEvent(Frozen):
    """Something that happened to a job, in order. Holds no model text: that is screened first."""

    seq: int
    """Number of the event, unique in the database, growing; a reader resumes after the last it saw."""
    job_id: str
    """The job."""
    at: float
    """Unix time in seconds."""
    kind: EventKind
    """What happened."""
    step: str | None = None
    """The step concerned; None = the job as a whole."""
    detail: dict[str, Any] = {}
    """Small facts: attempt, worker, status, code."""


class JobSummary(Frozen):
    """A job as lists show it."""

    job_id: str
    """UUIDv7 of the job."""
    tenant: str
    """Owner of the job."""
    status: JobStatus
    """State."""
    created_at: float
    """Unix time in seconds of its acceptance."""
    finished_at: float | None
    """Unix time in seconds; None = not finished."""
    problem: str
    """The problem, shortened."""
    answer: str | None
    """The final answer; None = none."""
    error_code: str | None
    """Why there is no answer; None = there is, or not yet."""


class JobTrace(Frozen):
    """Everything about a job."""

    job_id: str
    """UUIDv7 of the job."""
    tenant: str
    """Owner of the job."""
    status: JobStatus
    """State."""
    created_at: float
    """Unix time in seconds of its acceptance."""
    started_at: float | None
    """Unix time in seconds of the first claim; None = not yet."""
    finished_at: float | None
    """Unix time in seconds; None = not finished."""
    request: SolveRequest
    """As accepted."""
    result: SolveResult | None
    """None = not finished."""
    steps: tuple[StepTrace, ...]
    """In order of creation."""
    events: tuple[JobEvent, ...]
    """In order."""
