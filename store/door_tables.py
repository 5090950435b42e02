"""The doors' tables: who may call, what was uploaded, batches and their lines, notices to send, and who is at work.

    tenants ──< keys                     who may call, and how much
    files ──< batches ──< batch_requests one row per line of the input file; its job is a row of `jobs`
    deliveries                           webhooks to send, until they are sent or given up
    workers                              processes at work, with their counters

Times are Unix times in seconds.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from .tables import metadata

__all__ = ["batch_requests", "batches", "deliveries", "files", "keys", "metadata", "tenants", "workers"]

OPEN_BATCH_SQL = "status IN ('validating', 'in_progress', 'finalizing', 'cancelling')"
"""Condition on batches that someone must still work on, worded as in the partial index."""
OPEN_DELIVERY_SQL = "delivered_at IS NULL AND given_up_at IS NULL"
"""Condition on deliveries that are still to be sent, worded as in the partial index."""

tenants = Table(
    "tenants",
    metadata,
    Column("tenant", Text, primary_key=True, comment="Name of the tenant."),
    Column("created_at", Double, nullable=False, comment="When it was made."),
    Column("requests_per_minute", Integer, comment="Requests that create something, per minute; NULL = no limit."),
    Column("jobs_in_flight", Integer, comment="Unfinished jobs at once; NULL = no limit."),
    Column("tokens_per_day", BigInteger, comment="Tokens of jobs finished in a UTC day; NULL = no limit."),
    Column("stored_bytes", BigInteger, comment="Bytes of all files together; NULL = no limit."),
    Column("webhook_url", Text, comment="Where notices go; NULL = to the settings' own target, if any."),
    Column("webhook_secret", Text, comment="whsec_… that signs them; set with the URL."),
    comment="Limits and webhook target of each tenant. A tenant without a row has none of its own.",
)

keys = Table(
    "keys",
    metadata,
    Column("id", Text, primary_key=True, comment="Public part of the key, by which it is listed and revoked."),
    Column("tenant", Text, nullable=False, comment="Whose key it is."),
    Column("name", Text, nullable=False, comment="What its owner calls it."),
    Column("scope", Text, nullable=False, comment="KeyScope: what it opens."),
    Column(
        "digest",
        Text,
        nullable=False,
        comment="SHA-256 of the SHA-256 of the key, hex. The key itself is kept nowhere.",
    ),
    Column("created_at", Double, nullable=False, comment="When it was made."),
    Column("expires_at", Double, comment="From when on it opens nothing; NULL = never."),
    Column("revoked_at", Double, comment="When it was revoked; NULL = valid."),
    Index("ix_keys_tenant", "tenant", "created_at"),
    comment="API keys. 256 random bits each, so a plain hash is enough.",
)

files = Table(
    "files",
    metadata,
    Column("id", Text, primary_key=True, comment="file-UUIDv7: sorts by time."),
    Column("tenant", Text, nullable=False, comment="Owner."),
    Column("filename", Text, nullable=False, comment="As uploaded, for display only: never part of a path."),
    Column("purpose", Text, nullable=False, comment="batch or batch_output."),
    Column("bytes", BigInteger, nullable=False, comment="Size."),
    Column("sha256", Text, nullable=False, comment="Of the content, hex."),
    Column("idempotency_key", Text, comment="The caller's key, unique per tenant; NULL = none given."),
    Column("created_at", Double, nullable=False, comment="When it was complete."),
    Column("expires_at", Double, comment="When it is deleted; NULL = never."),
    UniqueConstraint("tenant", "idempotency_key", name="uq_files_idempotency"),
    Index("ix_files_tenant", "tenant", "id"),
    Index("ix_files_expires_at", "expires_at"),
    comment="Uploaded and produced files. The content lies in the files folder under the id.",
)

batches = Table(
    "batches",
    metadata,
    Column("id", Text, primary_key=True, comment="batch_UUIDv7: sorts by time."),
    Column("tenant", Text, nullable=False, comment="Owner."),
    Column("idempotency_key", Text, comment="The caller's key, unique per tenant; NULL = none given."),
    Column("request_digest", Text, nullable=False, comment="SHA-256 of the request, hex."),
    Column("endpoint", Text, nullable=False, comment="URL of all its lines."),
    Column("input_file_id", Text, nullable=False, comment="The input; it may have been deleted since."),
    Column("completion_window", Text, nullable=False, comment="As asked for, such as 24h."),
    Column("metadata", Text, nullable=False, comment="The caller's own notes as JSON."),
    Column("output_expires_after_s", Integer, comment="Seconds that the output files live; NULL = for ever."),
    Column("status", Text, nullable=False, comment="BatchStatus."),
    Column("model", Text, comment="Model of the first line; NULL = not read yet."),
    Column("errors", Text, comment="Why validation failed, as a JSON list; NULL = it did not."),
    Column("output_file_id", Text, comment="Lines with an answer; NULL = none yet, or no such line."),
    Column("error_file_id", Text, comment="Lines without; NULL = none yet, or no such line."),
    Column("total", Integer, nullable=False, comment="Lines; 0 until validated."),
    Column("completed", Integer, nullable=False, comment="Lines that have an answer."),
    Column("failed", Integer, nullable=False, comment="Lines that ended without."),
    Column("usage", Text, comment="Tokens of all its answers, as JSON; NULL = not ended."),
    Column("lease_owner", Text, comment="Process that works on it; NULL = none."),
    Column("lease_until", Double, comment="When its claim runs out; NULL = none."),
    Column("fence", Integer, nullable=False, comment="Claims so far: what an older claim writes is refused."),
    Column("created_at", Double, nullable=False, comment="Creation."),
    Column("expires_at", Double, nullable=False, comment="End of the completion window."),
    Column("in_progress_at", Double, comment="End of validation; NULL = not yet."),
    Column("finalizing_at", Double, comment="When all lines had ended; NULL = not yet."),
    Column("completed_at", Double, comment="NULL = not completed."),
    Column("failed_at", Double, comment="NULL = not failed."),
    Column("expired_at", Double, comment="NULL = not expired."),
    Column("cancelling_at", Double, comment="When cancelling was asked for; NULL = never."),
    Column("cancelled_at", Double, comment="NULL = not cancelled."),
    UniqueConstraint("tenant", "idempotency_key", name="uq_batches_idempotency"),
    Index("ix_batches_tenant", "tenant", "id"),
    Index("ix_batches_open", "id", sqlite_where=text(OPEN_BATCH_SQL), postgresql_where=text(OPEN_BATCH_SQL)),
    comment="Batches of requests from a file.",
)

batch_requests = Table(
    "batch_requests",
    metadata,
    Column(
        "batch_id",
        Text,
        ForeignKey("batches.id", ondelete="CASCADE"),
        primary_key=True,
        nullable=False,
        comment="The batch.",
    ),
    Column("line", Integer, primary_key=True, autoincrement=False, comment="Number of the line in the input, from 1."),
    Column("custom_id", Text, nullable=False, comment="The caller's id, unique in the batch."),
    Column("offset", BigInteger, nullable=False, comment="Where the line begins in the input, in bytes."),
    Column("length", Integer, nullable=False, comment="Bytes of the line."),
    Column("status", Text, nullable=False, comment="pending, submitted, completed or failed."),
    Column("job_id", Text, comment="The line's job; NULL = not submitted, or never to be."),
    Column("error", Text, comment="What its error line says, as JSON; NULL = what the job came to."),
    UniqueConstraint("batch_id", "custom_id", name="uq_batch_requests_custom_id"),
    Index("ix_batch_requests_status", "batch_id", "status", "line"),
    Index("ix_batch_requests_job", "job_id"),
    comment="The lines of the batches: each is answered exactly once.",
)

deliveries = Table(
    "deliveries",
    metadata,
    Column("id", Text, primary_key=True, comment="evt_UUIDv7: the webhook's id, the same in every try."),
    Column("tenant", Text, nullable=False, comment="Whose notice it is."),
    Column("subject", Text, nullable=False, comment="job or batch."),
    Column("subject_id", Text, nullable=False, comment="Id of the job or batch; it is sent once that has ended."),
    Column("created_at", Double, nullable=False, comment="When it was asked for."),
    Column("due_at", Double, nullable=False, comment="When to look or to try next."),
    Column("attempts", Integer, nullable=False, comment="Tries so far."),
    Column("delivered_at", Double, comment="When the target took it; NULL = not yet."),
    Column("given_up_at", Double, comment="When it was given up; NULL = not."),
    Column("last_error", Text, comment="What the last try came to; NULL = no try failed."),
    UniqueConstraint("subject", "subject_id", name="uq_deliveries_subject"),
    Index(
        "ix_deliveries_open", "due_at", sqlite_where=text(OPEN_DELIVERY_SQL), postgresql_where=text(OPEN_DELIVERY_SQL)
    ),
    comment="Webhooks: written with what they will tell of, sent after it has ended.",
)

workers = Table(
    "workers",
    metadata,
    Column("worker", Text, primary_key=True, comment="Id of the process."),
    Column(
        "role", Text, nullable=False, comment="planner, generator, verifier, safety, intake, all, sweeper or gateway."
    ),
    Column("host", Text, nullable=False, comment="Machine."),
    Column("pid", Integer, nullable=False, comment="Process id on that machine."),
    Column("version", Text, nullable=False, comment="Version of k2think."),
    Column("backend", Text, comment="Named backend that a generator is bound to; NULL = none."),
    Column("capacity", Integer, nullable=False, comment="Steps that it runs at once; 0 = it runs none."),
    Column("running", Integer, nullable=False, comment="Steps that it ran at its last sign of life."),
    Column("draining", Boolean, nullable=False, comment="Whether it was told to stop."),
    Column("started_at", Double, nullable=False, comment="Start."),
    Column("seen_at", Double, nullable=False, comment="Last sign of life."),
    Column("metrics", Text, nullable=False, comment="Its counters and histograms since its start, as JSON."),
    Index("ix_workers_seen_at", "seen_at"),
    comment="Processes at work, by their own signs of life; a row goes some time after the last one.",
)
