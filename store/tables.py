"""The tables. SQL is the truth of every job: what is not committed here has not happened.

    jobs ──< steps ──< attempts      one row per start of a step, with the model call it made (the trace)
      ├────< events                  what happened, in order, without model text
      └────< comparisons             the judge's verdicts

Times are Unix times in seconds. Structured values are JSON in text columns: they are read whole, never queried. Every
change of a job's steps is made under the lock of the job's row (PostgreSQL) or of the database (SQLite), so the order
of locks is always job first, then steps.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    text,
)

metadata = MetaData()

UNFINISHED_SQL = "status IN ('queued', 'running')"
"""Condition on jobs, worded as in the partial index so that the planner finds it. Constants in conditions are text, not
parameters, everywhere in the store: partial indexes need that, and a list of parameters is expanded anew each time."""


def _job_column(*, primary_key: bool) -> "Column[str]":
    return Column(
        "job_id",
        Text,
        ForeignKey("jobs.id", ondelete="CASCADE"),
        primary_key=primary_key,
        nullable=False,
        comment="The job.",
    )


jobs = Table(
    "jobs",
    metadata,
    Column("id", Text, primary_key=True, comment="UUIDv7: sorts by time of acceptance."),
    Column("tenant", Text, nullable=False, comment="Owner of the job."),
    Column("idempotency_key", Text, comment="The caller's key, unique per tenant; NULL = none given."),
    Column("request_digest", Text, nullable=False, comment="SHA-256 of the request without its idempotency key, hex."),
    Column("status", Text, nullable=False, comment="JobStatus."),
    Column("priority", Integer, nullable=False, comment="Queue priority, 0 first."),
    Column("attached", Boolean, nullable=False, comment="Whether the job is cancelled when its client leaves."),
    Column("created_at", Double, nullable=False, comment="Acceptance."),
    Column("started_at", Double, comment="First claim of any step; NULL = not yet."),
    Column("finished_at", Double, comment="End; NULL = not finished."),
    Column("deadline_at", Double, nullable=False, comment="When the job expires."),
    Column("wake_at", Double, comment="When to ask the state machine again at the latest; NULL = finished."),
    Column("error_code", Text, comment="Why there is no answer; NULL = there is, or not finished."),
    Column("reply_to", Text, comment="Id of the Celery task that waits for the result; NULL = nobody waits."),
    Column("replied_at", Double, comment="When the result was sent to reply_to; NULL = not yet."),
    Column("traceparent", Text, comment="W3C trace context of the submitter; NULL = not traced."),
    Column("door", Text, comment="DoorNote as JSON: what the door needs to show the job again; NULL = nothing."),
    Column("tokens", BigInteger, comment="Tokens of the result, prompt and completion; NULL = not finished."),
    Column("problem", Text, nullable=False, comment="Beginning of the problem, for lists."),
    Column("answer", Text, comment="Beginning of the final answer, for lists; NULL = none."),
    Column("equivalences", Text, nullable=False, comment="JSON list of [i, j, same] for candidates i < j."),
    Column("request", Text, nullable=False, comment="SolveRequest as JSON."),
    Column("result", Text, comment="SolveResult as JSON, written once; NULL = not finished."),
    UniqueConstraint("tenant", "idempotency_key", name="uq_jobs_idempotency"),
    Index("ix_jobs_tenant", "tenant", "id"),
    Index("ix_jobs_status", "status", "id"),
    Index(
        "ix_jobs_unfinished_wake_at",
        "wake_at",
        sqlite_where=text(UNFINISHED_SQL),
        postgresql_where=text(UNFINISHED_SQL),
    ),
    Index(
        "ix_jobs_unfinished_tenant", "tenant", sqlite_where=text(UNFINISHED_SQL), postgresql_where=text(UNFINISHED_SQL)
    ),
    Index("ix_jobs_tenant_finished_at", "tenant", "finished_at"),
    Index(
        "ix_jobs_unreplied",
        "finished_at",
        sqlite_where=text("reply_to IS NOT NULL AND replied_at IS NULL"),
        postgresql_where=text("reply_to IS NOT NULL AND replied_at IS NULL"),
    ),
    comment="One row per accepted request.",
)

steps = Table(
    "steps",
    metadata,
    _job_column(primary_key=True),
    Column("name", Text, primary_key=True, comment="Unique in the job, derived from what the step is about."),
    Column("seq", Integer, nullable=False, comment="Order of creation within the job, from 0."),
    Column("kind", Text, nullable=False, comment="Kind of the message body."),
    Column("queue", Text, nullable=False, comment="Queue that its messages go to."),
    Column("priority", Integer, nullable=False, comment="Queue priority, 0 first."),
    Column("status", Text, nullable=False, comment="StepStatus."),
    Column("attempts", Integer, nullable=False, comment="Claims so far; the number of the newest one is the fence."),
    Column(
        "released",
        Integer,
        nullable=False,
        comment="Of the attempts, those that count for nothing: handed back, or told to wait.",
    ),
    Column("due_at", Double, nullable=False, comment="When a ready step that nobody claimed is published again."),
    Column("lease_until", Double, comment="When the claim runs out; NULL = not running."),
    Column("worker", Text, comment="Worker that holds or last held the lease; NULL = none yet."),
    Column("created_at", Double, nullable=False, comment="Creation."),
    Column("ready_at", Double, nullable=False, comment="Since when (or from when, in a back-off) it can be claimed."),
    Column("published_at", Double, comment="Last publication of its message; NULL = never."),
    Column("claimed_at", Double, comment="Last claim; NULL = none."),
    Column("finished_at", Double, comment="End; NULL = not finished."),
    Column("failure_code", Text, comment="Code of the failure; NULL = not failed."),
    Column("failure", Text, comment="StepFailure as JSON; NULL = not failed."),
    Column("body", Text, nullable=False, comment="Message body as JSON."),
    Column("result", Text, comment="StepResult as JSON; NULL = not done."),
    Index("ix_steps_ready", "due_at", sqlite_where=text("status = 'ready'"), postgresql_where=text("status = 'ready'")),
    Index(
        "ix_steps_leases",
        "lease_until",
        sqlite_where=text("status = 'running'"),
        postgresql_where=text("status = 'running'"),
    ),
    Index(
        "ix_steps_workers",
        "worker",
        sqlite_where=text("status = 'running'"),
        postgresql_where=text("status = 'running'"),
    ),
    Index(
        "ix_steps_dead",
        "finished_at",
        sqlite_where=text("failure_code = 'dead_letter'"),
        postgresql_where=text("failure_code = 'dead_letter'"),
    ),
    comment="What the state machine asked the agents to do.",
)

attempts = Table(
    "attempts",
    metadata,
    Column("job_id", Text, primary_key=True, comment="The job."),
    Column("step", Text, primary_key=True, comment="Name of the step."),
    Column("attempt", Integer, primary_key=True, autoincrement=False, comment="The fencing token, from 1."),
    Column("worker", Text, nullable=False, comment="Id of the worker process."),
    Column("outcome", Text, nullable=False, comment="AttemptOutcome."),
    Column("queued_at", Double, nullable=False, comment="When the step was ready."),
    Column("claimed_at", Double, nullable=False, comment="Claim; minus queued_at = queue wait."),
    Column("finished_at", Double, comment="End; NULL = still running."),
    Column("error", Text, comment="StepFailure as JSON; NULL = nothing went wrong."),
    Column("backend", Text, nullable=False, comment="Backend that was called; empty = no model was called."),
    Column("model", Text, nullable=False, comment="Model name."),
    Column("prompt_tokens", Integer, nullable=False, comment="Tokens of the prompt."),
    Column("completion_tokens", Integer, nullable=False, comment="Tokens generated, reasoning included."),
    Column("reasoning_tokens", Integer, nullable=False, comment="Of the completion, tokens of the reasoning."),
    Column("usage_estimated", Boolean, nullable=False, comment="Whether the tokens are our own count."),
    Column("finish_reason", Text, comment="Why the completion ended; NULL = it did not."),
    Column("time_to_first_token_s", Double, comment="Seconds to the first delta; NULL = none came."),
    Column("duration_s", Double, nullable=False, comment="Seconds of the call."),
    Column("retries", Integer, nullable=False, comment="Refused calls tried again inside the attempt."),
    Column("engine_queue_s", Double, comment="Seconds in the engine's queue; NULL = not told."),
    Column("draft_acceptance", Double, comment="Share of speculated tokens accepted, 0..1; NULL = not told."),
    Column(
        "limit_wait_s", Double, comment="Seconds that the call waited for shared limits; NULL = its backend has none."
    ),
    Column("engine_prompt_s", Double, comment="Seconds of prompt processing, as told by the engine; NULL = not told."),
    Column("engine_completion_s", Double, comment="Seconds of decoding, as told by the engine; NULL = not told."),
    Column(
        "cached_prompt_tokens", Integer, comment="Of the prompt, tokens that the server had cached; NULL = not told."
    ),
    Column("accepted_length", Double, comment="Mean tokens per verification of a draft, from 1; NULL = not told."),
    Column("left_calls", Text, comment="Calls of the attempt that came to nothing, as JSON; NULL = none."),
    Column("wasted_prompt_tokens", Integer, nullable=False, server_default="0", comment="Tokens of their prompts."),
    Column(
        "wasted_completion_tokens", Integer, nullable=False, server_default="0", comment="Tokens that they generated."
    ),
    Column("rate_limits", Text, comment="Rate-limit headers as JSON; NULL = no call."),
    Column("parameters", Text, comment="Decoding parameters as JSON; NULL = no call."),
    Column("answer", Text, comment="Extracted answer; NULL = none."),
    Column("prompt", Text, comment="Messages as sent, as JSON; NULL = no call."),
    Column("raw_text", Text, comment="Visible text as it came; NULL = no call."),
    Column("reasoning", Text, comment="Reasoning text; NULL = no call."),
    ForeignKeyConstraint(["job_id", "step"], ["steps.job_id", "steps.name"], ondelete="CASCADE"),
    comment="One row per start of a step, with its model call: the trace and the token ledger.",
)

events = Table(
    "events",
    metadata,
    Column(
        "seq",
        BigInteger().with_variant(Integer, "sqlite"),
        primary_key=True,
        autoincrement=True,
        comment="Grows; within a job in order of commit.",
    ),
    _job_column(primary_key=False),
    Column("at", Double, nullable=False, comment="When."),
    Column("kind", Text, nullable=False, comment="EventKind."),
    Column("step", Text, comment="The step concerned; NULL = the job as a whole."),
    Column("detail", Text, nullable=False, comment="Small facts as JSON, never model text."),
    Index("ix_events_job", "job_id", "seq"),
    comment="What happened to a job, for those who watch it.",
    sqlite_autoincrement=True,
)

comparisons = Table(
    "comparisons",
    metadata,
    _job_column(primary_key=True),
    Column("first", Integer, primary_key=True, autoincrement=False, comment="Index of the candidate shown first."),
    Column("second", Integer, primary_key=True, autoincrement=False, comment="Index of the candidate shown second."),
    Column("winner", Integer, comment="Index of the preferred candidate; NULL = tie."),
    Column("usable", Boolean, nullable=False, comment="Whether the verdict could be read."),
    Column("reason", Text, nullable=False, comment="The judge's reason."),
    Column("at", Double, nullable=False, comment="When the verdict came."),
    comment="The judge's verdicts, one row per pair and order.",
)
