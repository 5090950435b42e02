"""Keys, files, batches, webhooks and workers; what doors note on jobs."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Bring the schema from `down_revision` to `revision`."""
    op.create_table(
        "batches",
        sa.Column("id", sa.Text(), nullable=False, comment="batch_UUIDv7: sorts by time."),
        sa.Column("tenant", sa.Text(), nullable=False, comment="Owner."),
        sa.Column(
            "idempotency_key",
            sa.Text(),
            nullable=True,
            comment="The caller's key, unique per tenant; NULL = none given.",
        ),
        sa.Column("request_digest", sa.Text(), nullable=False, comment="SHA-256 of the request, hex."),
        sa.Column("endpoint", sa.Text(), nullable=False, comment="URL of all its lines."),
        sa.Column("input_file_id", sa.Text(), nullable=False, comment="The input; it may have been deleted since."),
        sa.Column("completion_window", sa.Text(), nullable=False, comment="As asked for, such as 24h."),
        sa.Column("metadata", sa.Text(), nullable=False, comment="The caller's own notes as JSON."),
        sa.Column(
            "output_expires_after_s",
            sa.Integer(),
            nullable=True,
            comment="Seconds that the output files live; NULL = for ever.",
        ),
        sa.Column("status", sa.Text(), nullable=False, comment="BatchStatus."),
        sa.Column("model", sa.Text(), nullable=True, comment="Model of the first line; NULL = not read yet."),
        sa.Column(
            "errors", sa.Text(), nullable=True, comment="Why validation failed, as a JSON list; NULL = it did not."
        ),
        sa.Column(
            "output_file_id",
            sa.Text(),
            nullable=True,
            comment="Lines with an answer; NULL = none yet, or no such line.",
        ),
        sa.Column(
            "error_file_id", sa.Text(), nullable=True, comment="Lines without; NULL = none yet, or no such line."
        ),
        sa.Column("total", sa.Integer(), nullable=False, comment="Lines; 0 until validated."),
        sa.Column("completed", sa.Integer(), nullable=False, comment="Lines that have an answer."),
        sa.Column("failed", sa.Integer(), nullable=False, comment="Lines that ended without."),
        sa.Column("usage", sa.Text(), nullable=True, comment="Tokens of all its answers, as JSON; NULL = not ended."),
        sa.Column("lease_owner", sa.Text(), nullable=True, comment="Process that works on it; NULL = none."),
        sa.Column("lease_until", sa.Double(), nullable=True, comment="When its claim runs out; NULL = none."),
        sa.Column(
            "fence", sa.Integer(), nullable=False, comment="Claims so far: what an older claim writes is refused."
        ),
        sa.Column("created_at", sa.Double(), nullable=False, comment="Creation."),
        sa.Column("expires_at", sa.Double(), nullable=False, comment="End of the completion window."),
        sa.Column("in_progress_at", sa.Double(), nullable=True, comment="End of validation; NULL = not yet."),
        sa.Column("finalizing_at", sa.Double(), nullable=True, comment="When all lines had ended; NULL = not yet."),
        sa.Column("completed_at", sa.Double(), nullable=True, comment="NULL = not completed."),
        sa.Column("failed_at", sa.Double(), nullable=True, comment="NULL = not failed."),
        sa.Column("expired_at", sa.Double(), nullable=True, comment="NULL = not expired."),
        sa.Column("cancelling_at", sa.Double(), nullable=True, comment="When cancelling was asked for; NULL = never."),
        sa.Column("cancelled_at", sa.Double(), nullable=True, comment="NULL = not cancelled."),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("tenant", "idempotency_key", name="uq_batches_idempotency"),
        comment="Batches of requests from a file.",
    )
    with op.batch_alter_table("batches", schema=None) as batch_op:
        batch_op.create_index(
            "ix_batches_open",
            ["id"],
            unique=False,
            sqlite_where=sa.text("status IN ('validating', 'in_progress', 'finalizing', 'cancelling')"),
            postgresql_where=sa.text("status IN ('validating', 'in_progress', 'finalizing', 'cancelling')"),
        )
        batch_op.create_index("ix_batches_tenant", ["tenant", "id"], unique=False)

    op.create_table(
        "deliveries",
        sa.Column("id", sa.Text(), nullable=False, comment="evt_UUIDv7: the webhook's id, the same in every try."),
        sa.Column("tenant", sa.Text(), nullable=False, comment="Whose notice it is."),
        sa.Column("subject", sa.Text(), nullable=False, comment="job or batch."),
        sa.Column(
            "subject_id", sa.Text(), nullable=False, comment="Id of the job or batch; it is sent once that has ended."
        ),
        sa.Column("created_at", sa.Double(), nullable=False, comment="When it was asked for."),
        sa.Column("due_at", sa.Double(), nullable=False, comment="When to look or to try next."),
        sa.Column("attempts", sa.Integer(), nullable=False, comment="Tries so far."),
        sa.Column("delivered_at", sa.Double(), nullable=True, comment="When the target took it; NULL = not yet."),
        sa.Column("given_up_at", sa.Double(), nullable=True, comment="When it was given up; NULL = not."),
        sa.Column("last_error", sa.Text(), nullable=True, comment="What the last try came to; NULL = no try failed."),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("subject", "subject_id", name="uq_deliveries_subject"),
        comment="Webhooks: written with what they will tell of, sent after it has ended.",
    )
    with op.batch_alter_table("deliveries", schema=None) as batch_op:
        batch_op.create_index(
            "ix_deliveries_open",
            ["due_at"],
            unique=False,
            sqlite_where=sa.text("delivered_at IS NULL AND given_up_at IS NULL"),
            postgresql_where=sa.text("delivered_at IS NULL AND given_up_at IS NULL"),
        )

    op.create_table(
        "files",
        sa.Column("id", sa.Text(), nullable=False, comment="file-UUIDv7: sorts by time."),
        sa.Column("tenant", sa.Text(), nullable=False, comment="Owner."),
        sa.Column(
            "filename", sa.Text(), nullable=False, comment="As uploaded, for display only: never part of a path."
        ),
        sa.Column("purpose", sa.Text(), nullable=False, comment="batch or batch_output."),
        sa.Column("bytes", sa.BigInteger(), nullable=False, comment="Size."),
        sa.Column("sha256", sa.Text(), nullable=False, comment="Of the content, hex."),
        sa.Column(
            "idempotency_key",
            sa.Text(),
            nullable=True,
            comment="The caller's key, unique per tenant; NULL = none given.",
        ),
        sa.Column("created_at", sa.Double(), nullable=False, comment="When it was complete."),
        sa.Column("expires_at", sa.Double(), nullable=True, comment="When it is deleted; NULL = never."),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("tenant", "idempotency_key", name="uq_files_idempotency"),
        comment="Uploaded and produced files. The content lies in the files folder under the id.",
    )
    with op.batch_alter_table("files", schema=None) as batch_op:
        batch_op.create_index("ix_files_expires_at", ["expires_at"], unique=False)
        batch_op.create_index("ix_files_tenant", ["tenant", "id"], unique=False)

    op.create_table(
        "keys",
        sa.Column(
            "id", sa.Text(), nullable=False, comment="Public part of the key, by which it is listed and revoked."
        ),
        sa.Column("tenant", sa.Text(), nullable=False, comment="Whose key it is."),
        sa.Column("name", sa.Text(), nullable=False, comment="What its owner calls it."),
        sa.Column("scope", sa.Text(), nullable=False, comment="KeyScope: what it opens."),
        sa.Column(
            "digest",
            sa.Text(),
            nullable=False,
            comment="SHA-256 of the SHA-256 of the key, hex. The key itself is kept nowhere.",
        ),
        sa.Column("created_at", sa.Double(), nullable=False, comment="When it was made."),
        sa.Column("expires_at", sa.Double(), nullable=True, comment="From when on it opens nothing; NULL = never."),
        sa.Column("revoked_at", sa.Double(), nullable=True, comment="When it was revoked; NULL = valid."),
        sa.PrimaryKeyConstraint("id"),
        comment="API keys. 256 random bits each, so a plain hash is enough.",
    )
    with op.batch_alter_table("keys", schema=None) as batch_op:
        batch_op.create_index("ix_keys_tenant", ["tenant", "created_at"], unique=False)

    op.create_table(
        "tenants",
        sa.Column("tenant", sa.Text(), nullable=False, comment="Name of the tenant."),
        sa.Column("created_at", sa.Double(), nullable=False, comment="When it was made."),
        sa.Column(
            "requests_per_minute",
            sa.Integer(),
            nullable=True,
            comment="Requests that create something, per minute; NULL = no limit.",
        ),
        sa.Column("jobs_in_flight", sa.Integer(), nullable=True, comment="Unfinished jobs at once; NULL = no limit."),
        sa.Column(
            "tokens_per_day",
            sa.BigInteger(),
            nullable=True,
            comment="Tokens of jobs finished in a UTC day; NULL = no limit.",
        ),
        sa.Column(
            "stored_bytes", sa.BigInteger(), nullable=True, comment="Bytes of all files together; NULL = no limit."
        ),
        sa.Column(
            "webhook_url",
            sa.Text(),
            nullable=True,
            comment="Where notices go; NULL = to the settings' own target, if any.",
        ),
        sa.Column(
            "webhook_secret",
            sa.Text(),
            nullable=True,
            comment="whsec_… that signs them; set with the URL.",
        ),
        sa.PrimaryKeyConstraint("tenant"),
        comment="Limits and webhook target of each tenant. A tenant without a row has none of its own.",
    )
    op.create_table(
        "workers",
        sa.Column("worker", sa.Text(), nullable=False, comment="Id of the process."),
        sa.Column(
            "role",
            sa.Text(),
            nullable=False,
            comment="planner, generator, verifier, safety, intake, all, sweeper or gateway.",
        ),
        sa.Column("host", sa.Text(), nullable=False, comment="Machine."),
        sa.Column("pid", sa.Integer(), nullable=False, comment="Process id on that machine."),
        sa.Column("version", sa.Text(), nullable=False, comment="Version of k2think."),
        sa.Column(
            "backend", sa.Text(), nullable=True, comment="Named backend that a generator is bound to; NULL = none."
        ),
        sa.Column("capacity", sa.Integer(), nullable=False, comment="Steps that it runs at once; 0 = it runs none."),
        sa.Column("running", sa.Integer(), nullable=False, comment="Steps that it ran at its last sign of life."),
        sa.Column("draining", sa.Boolean(), nullable=False, comment="Whether it was told to stop."),
        sa.Column("started_at", sa.Double(), nullable=False, comment="Start."),
        sa.Column("seen_at", sa.Double(), nullable=False, comment="Last sign of life."),
        sa.Column(
            "metrics", sa.Text(), nullable=False, comment="Its counters and histograms since its start, as JSON."
        ),
        sa.PrimaryKeyConstraint("worker"),
        comment="Processes at work, by their own signs of life; a row goes some time after the last one.",
    )
    with op.batch_alter_table("workers", schema=None) as batch_op:
        batch_op.create_index("ix_workers_seen_at", ["seen_at"], unique=False)

    op.create_table(
        "batch_requests",
        sa.Column("batch_id", sa.Text(), nullable=False, comment="The batch."),
        sa.Column(
            "line",
            sa.Integer(),
            autoincrement=False,
            nullable=False,
            comment="Number of the line in the input, from 1.",
        ),
        sa.Column("custom_id", sa.Text(), nullable=False, comment="The caller's id, unique in the batch."),
        sa.Column("offset", sa.BigInteger(), nullable=False, comment="Where the line begins in the input, in bytes."),
        sa.Column("length", sa.Integer(), nullable=False, comment="Bytes of the line."),
        sa.Column("status", sa.Text(), nullable=False, comment="pending, submitted, completed or failed."),
        sa.Column("job_id", sa.Text(), nullable=True, comment="The line's job; NULL = not submitted, or never to be."),
        sa.Column(
            "error", sa.Text(), nullable=True, comment="What its error line says, as JSON; NULL = what the job came to."
        ),
        sa.ForeignKeyConstraint(["batch_id"], ["batches.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("batch_id", "line"),
        sa.UniqueConstraint("batch_id", "custom_id", name="uq_batch_requests_custom_id"),
        comment="The lines of the batches: each is answered exactly once.",
    )
    with op.batch_alter_table("batch_requests", schema=None) as batch_op:
        batch_op.create_index("ix_batch_requests_job", ["job_id"], unique=False)
        batch_op.create_index("ix_batch_requests_status", ["batch_id", "status", "line"], unique=False)

    with op.batch_alter_table("jobs", schema=None) as batch_op:
        batch_op.add_column(
            sa.Column(
                "door",
                sa.Text(),
                nullable=True,
                comment="DoorNote as JSON: what the door needs to show the job again; NULL = nothing.",
            )
        )
        batch_op.add_column(
            sa.Column(
                "tokens",
                sa.BigInteger(),
                nullable=True,
                comment="Tokens of the result, prompt and completion; NULL = not finished.",
            )
        )
        batch_op.create_index("ix_jobs_tenant_finished_at", ["tenant", "finished_at"], unique=False)
        batch_op.create_index(
            "ix_jobs_unfinished_tenant",
            ["tenant"],
            unique=False,
            sqlite_where=sa.text("status IN ('queued', 'running')"),
            postgresql_where=sa.text("status IN ('queued', 'running')"),
        )


def downgrade() -> None:
    """Bring the schema from `revision` back to `down_revision`."""
    with op.batch_alter_table("jobs", schema=None) as batch_op:
        batch_op.drop_index(
            "ix_jobs_unfinished_tenant",
            sqlite_where=sa.text("status IN ('queued', 'running')"),
            postgresql_where=sa.text("status IN ('queued', 'running')"),
        )
        batch_op.drop_index("ix_jobs_tenant_finished_at")
        batch_op.drop_column("tokens")
        batch_op.drop_column("door")

    with op.batch_alter_table("batch_requests", schema=None) as batch_op:
        batch_op.drop_index("ix_batch_requests_status")
        batch_op.drop_index("ix_batch_requests_job")

    op.drop_table("batch_requests")
    with op.batch_alter_table("workers", schema=None) as batch_op:
        batch_op.drop_index("ix_workers_seen_at")

    op.drop_table("workers")
    op.drop_table("tenants")
    with op.batch_alter_table("keys", schema=None) as batch_op:
        batch_op.drop_index("ix_keys_tenant")

    op.drop_table("keys")
    with op.batch_alter_table("files", schema=None) as batch_op:
        batch_op.drop_index("ix_files_tenant")
        batch_op.drop_index("ix_files_expires_at")

    op.drop_table("files")
    with op.batch_alter_table("deliveries", schema=None) as batch_op:
        batch_op.drop_index(
            "ix_deliveries_open",
            sqlite_where=sa.text("delivered_at IS NULL AND given_up_at IS NULL"),
            postgresql_where=sa.text("delivered_at IS NULL AND given_up_at IS NULL"),
        )

    op.drop_table("deliveries")
    with op.batch_alter_table("batches", schema=None) as batch_op:
        batch_op.drop_index("ix_batches_tenant")
        batch_op.drop_index(
            "ix_batches_open",
            sqlite_where=sa.text("status IN ('validating', 'in_progress', 'finalizing', 'cancelling')"),
            postgresql_where=sa.text("status IN ('validating', 'in_progress', 'finalizing', 'cancelling')"),
        )

    op.drop_table("batches")
