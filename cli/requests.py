"""Building a request from command-line options; shared by `solve` and `batch`."""

import json
from typing import Any, cast

from pydantic import ValidationError

from ..schemas.errors import InvalidRequest, explain
from ..schemas.policy import Policy


def parse_policy(
    text: str | None,
    *,
    n: int | None = None,
    no_plan: bool = False,
    backend: str | None = None,
    seed: int | None = None,
    extra: dict[str, Any] | None = None,
) -> Policy:
    """Build a policy from a preset's name or a JSON object, and options that override it. Raises InvalidRequest."""
    fields = _fields(text)
    fields.update(extra or {})
    if n is not None:
        fields["n"] = n
    if no_plan:
        fields["plan"] = "off"
    if backend is not None:
        fields["backend"] = backend
    if seed is not None:
        sampling = fields.get("sampling")
        fields["sampling"] = {**(cast(dict[str, Any], sampling) if isinstance(sampling, dict) else {}), "seed": seed}
    try:
        return Policy.model_validate(fields)
    except ValidationError as exc:
        raise InvalidRequest(f"the policy is not valid: {explain(exc)}") from exc


def _fields(text: str | None) -> dict[str, Any]:
    if text is None:
        return {}
    if not text.lstrip().startswith("{"):
        return {"preset": text}
    try:
        return cast(dict[str, Any], json.loads(text))
    except ValueError as exc:
        raise InvalidRequest(f"--policy is neither a name (default, paper) nor a JSON object: {exc}") from exc
