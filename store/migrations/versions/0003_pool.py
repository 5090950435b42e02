"""What a call of the generator pool tells: its limits, the engine's own times, drafts, and the calls that were left."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Bring the schema from `down_revision` to `revision`."""
    with op.batch_alter_table("attempts") as table:
        table.add_column(
            sa.Column(
                "limit_wait_s",
                sa.Double(),
                nullable=True,
                comment="Seconds that the call waited for shared limits; NULL = its backend has none.",
            )
        )
        table.add_column(
            sa.Column(
                "engine_prompt_s",
                sa.Double(),
                nullable=True,
                comment="Seconds of prompt processing, as told by the engine; NULL = not told.",
            )
        )
        table.add_column(
            sa.Column(
                "engine_completion_s",
                sa.Double(),
                nullable=True,
                comment="Seconds of decoding, as told by the engine; NULL = not told.",
            )
        )
        table.add_column(
            sa.Column(
                "cached_prompt_tokens",
                sa.Integer(),
                nullable=True,
                comment="Of the prompt, tokens that the server had cached; NULL = not told.",
            )
        )
        table.add_column(
            sa.Column(
                "accepted_length",
                sa.Double(),
                nullable=True,
                comment="Mean tokens per verification of a draft, from 1; NULL = not told.",
            )
        )
        table.add_column(
            sa.Column(
                "left_calls",
                sa.Text(),
                nullable=True,
                comment="Calls of the attempt that came to nothing, as JSON; NULL = none.",
            )
        )
        table.add_column(
            sa.Column(
                "wasted_prompt_tokens",
                sa.Integer(),
                nullable=False,
                server_default="0",
                comment="Tokens of their prompts.",
            )
        )
        table.add_column(
            sa.Column(
                "wasted_completion_tokens",
                sa.Integer(),
                nullable=False,
                server_default="0",
                comment="Tokens that they generated.",
            )
        )
    if op.get_bind().dialect.name == "postgresql":  # SQLite keeps no comments
        op.alter_column(
            "steps", "released", comment="Of the attempts, those that count for nothing: handed back, or told to wait."
        )
