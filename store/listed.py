"""A job's problem as lists show it: its beginning, withheld where the request's screening did not let it pass."""

from typing import Any

from sqlalchemy import and_

from ..schemas.outcomes import ScreenVerdict, StepStatus
from ..schemas.withheld import WITHHELD
from .rows import load_mapping
from .tables import jobs, steps

__all__ = ["LISTED_JOBS", "PROBLEM_COLUMNS", "shown_problem"]

LISTED_JOBS = jobs.outerjoin(steps, and_(steps.c.job_id == jobs.c.id, steps.c.name == "screen_input"))
"""What to select from."""
PROBLEM_COLUMNS = (jobs.c.problem, steps.c.status.label("screening"), steps.c.result.label("screened"))
"""What `shown_problem` needs of a row."""


def shown_problem(row: Any) -> str:
    """Return the beginning of the problem of a selected row, or that it is withheld; as in schemas/withheld.py."""
    if row.screening not in (StepStatus.done, StepStatus.failed):
        return row.problem
    passed = row.screened is not None and load_mapping(row.screened).get("verdict") == ScreenVerdict.safe.value
    return row.problem if passed else WITHHELD
