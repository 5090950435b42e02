"""Alembic's entry point: runs the scripts on the connection that `store/migrate.py` opened and holds the lock on."""

from alembic import context
from sqlalchemy import Connection, MetaData


def run(connection: Connection, metadata: MetaData) -> None:
    """Run the scripts in the caller's transaction."""
    context.configure(
        connection=connection, target_metadata=metadata, render_as_batch=connection.dialect.name == "sqlite"
    )
    context.run_migrations()


run(context.config.attributes["connection"], context.config.attributes["metadata"])
