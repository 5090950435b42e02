"""Opening a database to look at what is in it, rather than to work with it."""

from __future__ import annotations

from ..schemas.errors import NotFound
from ..schemas.settings import Settings
from .database import Database, database_of
from .migrate import SchemaState, check, require_current


def open_existing(settings: Settings) -> Database:
    """Open the database of these settings. Raises NotFound when there is none yet, SchemaMismatch for another version's."""
    if check(settings.sqlalchemy_url) is SchemaState.empty:
        place = "the configured database" if settings.database_url else f"the data folder {settings.data_dir}"
        raise NotFound(
            f"there are no jobs yet: nothing was ever run on {place} (K2THINK_DATA_DIR and K2THINK_DATABASE_URL name it)"
        )
    require_current(settings.sqlalchemy_url)
    return database_of(settings, create_folder=False)
