"""Jobs, steps, attempts, events and comparisons: the first schema."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "jobs",
        sa.Column("id", sa.Text(), nullable=False, comment="UUIDv7: sorts by time of acceptance."),
        sa.Column("tenant", sa.Text(), nullable=False, comment="Owner of the job."),
        sa.Column(
            "idempotency_key",
            sa.Text(),
            nullable=True,
            comment="The caller's key, unique per tenant; NULL = none given.",
        ),
        sa.Column(
            "request_digest",
            sa.Text(),
            nullable=False,
            comment="SHA-256 of the request without its idempotency key, hex.",
        ),
        sa.Column("status", sa.Text(), nullable=False, comment="JobStatus."),
        sa.Column("priority", sa.Integer(), nullable=False, comment="Queue priority, 0 first."),
        sa.Column(
            "attached", sa.Boolean(), nullable=False, comment="Whether the job is cancelled when its client leaves."
        ),
        sa.Column("created_at", sa.Double(), nullable=False, comment="Acceptance."),
        sa.Column("started_at", sa.Double(), nullable=True, comment="First claim of any step; NULL = not yet."),
        sa.Column("finished_at", sa.Double(), nullable=True, comment="End; NULL = not finished."),
        sa.Column("deadline_at", sa.Double(), nullable=False, comment="When the job expires."),
        sa.Column(
            "wake_at",
            sa.Double(),
            nullable=True,
            comment="When to ask the state machine again at the latest; NULL = finished.",
        ),
        sa.Column(
            "error_code", sa.Text(), nullable=True, comment="Why there is no answer; NULL = there is, or not finished."
        ),
        sa.Column(
            "reply_to",
            sa.Text(),
            nullable=True,
            comment="Id of the Celery task that waits for the result; NULL = nobody waits.",
        ),
        sa.Column(
            "replied_at", sa.Double(), nullable=True, comment="When the result was sent to reply_to; NULL = not yet."
        ),
        sa.Column(
            "traceparent", sa.Text(), nullable=True, comment="W3C trace context of the submitter; NULL = not traced."
        ),
        sa.Column("problem", sa.Text(), nullable=False, comment="Beginning of the problem, for lists."),
        sa.Column("answer", sa.Text(), nullable=True, comment="Beginning of the final answer, for lists; NULL = none."),
        sa.Column("equivalences", sa.Text(), nullable=False, comment="JSON list of [i, j, same] for candidates i < j."),
        sa.Column("request", sa.Text(), nullable=False, comment="SolveRequest as JSON."),
        sa.Column(
            "result", sa.Text(), nullable=True, comment="SolveResult as JSON, written once; NULL = not finished."
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("tenant", "idempotency_key", name="uq_jobs_idempotency"),
        comment="One row per accepted request.",
    )
    op.create_index("ix_jobs_status", "jobs", ["status", "id"], unique=False)
    op.create_index("ix_jobs_tenant", "jobs", ["tenant", "id"], unique=False)
    op.create_index(
        "ix_jobs_unfinished_wake_at",
        "jobs",
        ["wake_at"],
        unique=False,
        sqlite_where=sa.text("status IN ('queued', 'running')"),
        postgresql_where=sa.text("status IN ('queued', 'running')"),
    )
    op.create_index(
        "ix_jobs_unreplied",
        "jobs",
        ["finished_at"],
        unique=False,
        sqlite_where=sa.text("reply_to IS NOT NULL AND replied_at IS NULL"),
        postgresql_where=sa.text("reply_to IS NOT NULL AND replied_at IS NULL"),
    )
    op.create_table(
        "comparisons",
        sa.Column("job_id", sa.Text(), nullable=False, comment="The job."),
        sa.Column(
            "first", sa.Integer(), autoincrement=False, nullable=False, comment="Index of the candidate shown first."
        ),
        sa.Column(
            "second", sa.Integer(), autoincrement=False, nullable=False, comment="Index of the candidate shown second."
        ),
        sa.Column("winner", sa.Integer(), nullable=True, comment="Index of the preferred candidate; NULL = tie."),
        sa.Column("usable", sa.Boolean(), nullable=False, comment="Whether the verdict could be read."),
        sa.Column("reason", sa.Text(), nullable=False, comment="The judge's reason."),
        sa.Column("at", sa.Double(), nullable=False, comment="When the verdict came."),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", "first", "second"),
        comment="The judge's verdicts, one row per pair and order.",
    )
    op.create_table(
        "events",
        sa.Column(
            "seq",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=True,
            nullable=False,
            comment="Grows; within a job in order of commit.",
        ),
        sa.Column("job_id", sa.Text(), nullable=False, comment="The job."),
        sa.Column("at", sa.Double(), nullable=False, comment="When."),
        sa.Column("kind", sa.Text(), nullable=False, comment="EventKind."),
        sa.Column("step", sa.Text(), nullable=True, comment="The step concerned; NULL = the job as a whole."),
        sa.Column("detail", sa.Text(), nullable=False, comment="Small facts as JSON, never model text."),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("seq"),
        comment="What happened to a job, for those who watch it.",
        sqlite_autoincrement=True,
    )
    op.create_index("ix_events_job", "events", ["job_id", "seq"], unique=False)
    op.create_table(
        "steps",
        sa.Column("job_id", sa.Text(), nullable=False, comment="The job."),
        sa.Column("name", sa.Text(), nullable=False, comment="Unique in the job, derived from what the step is about."),
        sa.Column("seq", sa.Integer(), nullable=False, comment="Order of creation within the job, from 0."),
        sa.Column("kind", sa.Text(), nullable=False, comment="Kind of the message body."),
        sa.Column("queue", sa.Text(), nullable=False, comment="Queue that its messages go to."),
        sa.Column("priority", sa.Integer(), nullable=False, comment="Queue priority, 0 first."),
        sa.Column("status", sa.Text(), nullable=False, comment="StepStatus."),
        sa.Column(
            "attempts",
            sa.Integer(),
            nullable=False,
            comment="Claims so far; the number of the newest one is the fence.",
        ),
        sa.Column(
            "released",
            sa.Integer(),
            nullable=False,
            comment="Of the attempts, those handed back by a worker that stopped.",
        ),
        sa.Column(
            "due_at", sa.Double(), nullable=False, comment="When a ready step that nobody claimed is published again."
        ),
        sa.Column("lease_until", sa.Double(), nullable=True, comment="When the claim runs out; NULL = not running."),
        sa.Column(
            "worker", sa.Text(), nullable=True, comment="Worker that holds or last held the lease; NULL = none yet."
        ),
        sa.Column("created_at", sa.Double(), nullable=False, comment="Creation."),
        sa.Column(
            "ready_at",
            sa.Double(),
            nullable=False,
            comment="Since when (or from when, in a back-off) it can be claimed.",
        ),
        sa.Column("published_at", sa.Double(), nullable=True, comment="Last publication of its message; NULL = never."),
        sa.Column("claimed_at", sa.Double(), nullable=True, comment="Last claim; NULL = none."),
        sa.Column("finished_at", sa.Double(), nullable=True, comment="End; NULL = not finished."),
        sa.Column("failure_code", sa.Text(), nullable=True, comment="Code of the failure; NULL = not failed."),
        sa.Column("failure", sa.Text(), nullable=True, comment="StepFailure as JSON; NULL = not failed."),
        sa.Column("body", sa.Text(), nullable=False, comment="Message body as JSON."),
        sa.Column("result", sa.Text(), nullable=True, comment="StepResult as JSON; NULL = not done."),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", "name"),
        comment="What the state machine asked the agents to do.",
    )
    op.create_index(
        "ix_steps_dead",
        "steps",
        ["finished_at"],
        unique=False,
        sqlite_where=sa.text("failure_code = 'dead_letter'"),
        postgresql_where=sa.text("failure_code = 'dead_letter'"),
    )
    op.create_index(
        "ix_steps_leases",
        "steps",
        ["lease_until"],
        unique=False,
        sqlite_where=sa.text("status = 'running'"),
        postgresql_where=sa.text("status = 'running'"),
    )
    op.create_index(
        "ix_steps_ready",
        "steps",
        ["due_at"],
        unique=False,
        sqlite_where=sa.text("status = 'ready'"),
        postgresql_where=sa.text("status = 'ready'"),
    )
    op.create_index(
        "ix_steps_workers",
        "steps",
        ["worker"],
        unique=False,
        sqlite_where=sa.text("status = 'running'"),
        postgresql_where=sa.text("status = 'running'"),
    )
    op.create_table(
        "attempts",
        sa.Column("job_id", sa.Text(), nullable=False, comment="The job."),
        sa.Column("step", sa.Text(), nullable=False, comment="Name of the step."),
        sa.Column("attempt", sa.Integer(), autoincrement=False, nullable=False, comment="The fencing token, from 1."),
        sa.Column("worker", sa.Text(), nullable=False, comment="Id of the worker process."),
        sa.Column("outcome", sa.Text(), nullable=False, comment="AttemptOutcome."),
        sa.Column("queued_at", sa.Double(), nullable=False, comment="When the step was ready."),
        sa.Column("claimed_at", sa.Double(), nullable=False, comment="Claim; minus queued_at = queue wait."),
        sa.Column("finished_at", sa.Double(), nullable=True, comment="End; NULL = still running."),
        sa.Column("error", sa.Text(), nullable=True, comment="StepFailure as JSON; NULL = nothing went wrong."),
        sa.Column(
            "backend", sa.Text(), nullable=False, comment="Backend that was called; empty = no model was called."
        ),
        sa.Column("model", sa.Text(), nullable=False, comment="Model name."),
        sa.Column("prompt_tokens", sa.Integer(), nullable=False, comment="Tokens of the prompt."),
        sa.Column("completion_tokens", sa.Integer(), nullable=False, comment="Tokens generated, reasoning included."),
        sa.Column(
            "reasoning_tokens", sa.Integer(), nullable=False, comment="Of the completion, tokens of the reasoning."
        ),
        sa.Column("usage_estimated", sa.Boolean(), nullable=False, comment="Whether the tokens are our own count."),
        sa.Column("finish_reason", sa.Text(), nullable=True, comment="Why the completion ended; NULL = it did not."),
        sa.Column(
            "time_to_first_token_s", sa.Double(), nullable=True, comment="Seconds to the first delta; NULL = none came."
        ),
        sa.Column("duration_s", sa.Double(), nullable=False, comment="Seconds of the call."),
        sa.Column("retries", sa.Integer(), nullable=False, comment="Refused calls tried again inside the attempt."),
        sa.Column(
            "engine_queue_s", sa.Double(), nullable=True, comment="Seconds in the engine's queue; NULL = not told."
        ),
        sa.Column(
            "draft_acceptance",
            sa.Double(),
            nullable=True,
            comment="Share of speculated tokens accepted, 0..1; NULL = not told.",
        ),
        sa.Column("rate_limits", sa.Text(), nullable=True, comment="Rate-limit headers as JSON; NULL = no call."),
        sa.Column("parameters", sa.Text(), nullable=True, comment="Decoding parameters as JSON; NULL = no call."),
        sa.Column("answer", sa.Text(), nullable=True, comment="Extracted answer; NULL = none."),
        sa.Column("prompt", sa.Text(), nullable=True, comment="Messages as sent, as JSON; NULL = no call."),
        sa.Column("raw_text", sa.Text(), nullable=True, comment="Visible text as it came; NULL = no call."),
        sa.Column("reasoning", sa.Text(), nullable=True, comment="Reasoning text; NULL = no call."),
        sa.ForeignKeyConstraint(["job_id", "step"], ["steps.job_id", "steps.name"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", "step", "attempt"),
        comment="One row per start of a step, with its model call: the trace and the token ledger.",
    )


def downgrade() -> None:
    """Drop the tables."""
    op.drop_table("attempts")
    op.drop_index(
        "ix_steps_workers",
        table_name="steps",
        sqlite_where=sa.text("status = 'running'"),
        postgresql_where=sa.text("status = 'running'"),
    )
    op.drop_index(
        "ix_steps_ready",
        table_name="steps",
        sqlite_where=sa.text("status = 'ready'"),
        postgresql_where=sa.text("status = 'ready'"),
    )
    op.drop_index(
        "ix_steps_leases",
        table_name="steps",
        sqlite_where=sa.text("status = 'running'"),
        postgresql_where=sa.text("status = 'running'"),
    )
    op.drop_index(
        "ix_steps_dead",
        table_name="steps",
        sqlite_where=sa.text("failure_code = 'dead_letter'"),
        postgresql_where=sa.text("failure_code = 'dead_letter'"),
    )
    op.drop_table("steps")
    op.drop_index("ix_events_job", table_name="events")
    op.drop_table("events")
    op.drop_table("comparisons")
    op.drop_index(
        "ix_jobs_unreplied",
        table_name="jobs",
        sqlite_where=sa.text("reply_to IS NOT NULL AND replied_at IS NULL"),
        postgresql_where=sa.text("reply_to IS NOT NULL AND replied_at IS NULL"),
    )
    op.drop_index(
        "ix_jobs_unfinished_wake_at",
        table_name="jobs",
        sqlite_where=sa.text("status IN ('queued', 'running')"),
        postgresql_where=sa.text("status IN ('queued', 'running')"),
    )
    op.drop_index("ix_jobs_tenant", table_name="jobs")
    op.drop_index("ix_jobs_status", table_name="jobs")
    op.drop_table("jobs")
