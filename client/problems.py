"""What the caller gives, as a request that the gateway understands."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from ..schemas.checks import Checks
from ..schemas.completion import ChatMessage
from ..schemas.errors import InvalidRequest, explain
from ..schemas.jobs import SolveRequest
from ..schemas.policy import Policy

Problem = str | Sequence[ChatMessage | Mapping[str, str]]
"""A problem in words, or a conversation whose last turn is the user's: {"role": …, "content": …}, oldest first."""
PolicyLike = Policy | Mapping[str, Any] | str
"""A policy, its fields, or a preset's name such as "paper"."""
ChecksLike = Checks | Mapping[str, Any]
"""The task's own checks, or their fields."""


def solve_request(
    problem: Problem,
    *,
    policy: PolicyLike | None = None,
    checks: ChecksLike | None = None,
    metadata: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Return the body of a job, with what was given and nothing else. Raises InvalidRequest for what cannot be."""
    optional = {"policy": policy, "checks": checks, "metadata": metadata}
    fields: dict[str, Any] = {"problem" if isinstance(problem, str) else "messages": problem}
    fields |= {
        name: dict(value) if isinstance(value, Mapping) else value
        for name, value in optional.items()
        if value is not None
    }
    try:
        return SolveRequest.model_validate(fields).model_dump(mode="json", exclude_unset=True)
    except ValidationError as exc:
        raise InvalidRequest(explain(exc)) from exc
