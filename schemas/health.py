"""What /health/ready tells: one line per check, in words that anyone may read."""

from .base import Frozen


class HealthCheck(Frozen):
    """One thing that jobs need."""

    name: str
    """What was looked at: database, redis, schema, or the role of a process."""
    ok: bool
    """Whether it is there."""
    detail: str
    """What was found. Names no machine, address or version."""


class Health(Frozen):
    """Whether requests are worth sending here."""

    ready: bool
    """Whether all checks are well."""
    checks: tuple[HealthCheck, ...]
    """Each check, always in the same order."""


class Alive(Frozen):
    """That the process answers."""

    alive: bool = True
    """Always true: a process that is not alive does not answer."""
