"""What every process does before it begins: see that the database is there and of this version."""

import time

from ..schemas.errors import StoreUnavailable
from ..schemas.settings import Settings
from ..store.migrate import require_current
from .outage import DATABASE, WAIT_MAX_S, outage_of


def wait_for_schema(settings: Settings) -> None:
    """Wait until the database answers, then hold its schema against ours. Raises SchemaMismatch."""
    outage = outage_of(DATABASE)
    while True:
        try:
            require_current(settings.sqlalchemy_url)
        except StoreUnavailable as exc:
            outage.lost(exc)
            time.sleep(WAIT_MAX_S)
        else:
            outage.back()
            return
