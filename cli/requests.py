"""Building a request from command-line options; shared by `solve` and `batch`."""

import json
from typing import Any, cast

from pydantic import ValidationError

from ..schemas.errors import InvalidRequest, explain
from ..schemas.jobs import SolveRequest
from ..schemas.policy import Policy
from ..schemas.settings import Settings


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


def check_settings(settings: Settings, policy: Policy) -> None:
    """Refuse what cannot work before anything is started: unknown backends, missing model folders, packages and keys.

    Raises ConfigurationError, InvalidRequest.
    """
    from ..agents.backends.registry import create_backend
    from ..schemas.messages import AgentKind
    from ..workers.submit import resolve

    resolve(SolveRequest(problem="-", policy=policy), settings)
    if settings.broker_url is not None:
        return
    for agent in AgentKind:
        role = settings.role(agent)
        if role is not None:
            create_backend(settings.resolve(role), name=str(role.backend), cerebras_api_key=settings.cerebras_api_key)
    if policy.backend is not None:
        for name in settings.serving(policy.backend):
            create_backend(settings.backend(name), name=name, cerebras_api_key=settings.cerebras_api_key)


def _fields(text: str | None) -> dict[str, Any]:
    if text is None:
        return {}
    if not text.lstrip().startswith("{"):
        return {"preset": text}
    try:
        return cast(dict[str, Any], json.loads(text))
    except ValueError as exc:
        raise InvalidRequest(f"--policy is neither a name (default, paper) nor a JSON object: {exc}") from exc
