"""The model names that are served, and what each makes of a chat request."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from pydantic import ValidationError

from ..schemas.backend_settings import BUNDLED_MODEL, BackendKind, BackendSettings
from ..schemas.chat import CHOICE_SEED_STEP, ChatBody
from ..schemas.chat_answers import DEFAULT_MODEL, chat_completion, is_completion
from ..schemas.errors import InvalidRequest, NotFound, explain
from ..schemas.jobs import JobStatus, SolveRequest, SolveResult
from ..schemas.messages import AgentKind
from ..schemas.settings import Settings
from ..workers.submit import resolve
from .errors import error_object

PAPER_MODEL = "k2think-paper"
PASSING_CODES = frozenset(
    {
        "backend_rate_limited",
        "backend_overloaded",
        "backend_unreachable",
        "backend_stream_broken",
        "backend_stalled",
        "dead_letter",
        "expired",
        "screening_failed",
    }
)
"""Codes of failed jobs that may succeed when they are sent again."""
CHOICE_KEY_MARK = "\x1f"
"""Before the number of a further choice in its idempotency key: no header can hold it, so no two keys meet."""
SINGLE_SAMPLE: dict[str, Any] = {
    "n": 1,
    "plan": "off",
    "selection": "first",
    "templates": "plain",
    "as_is": True,
}
"""Policy of a backend's own model: one call with the conversation as it came."""
_FIELDS_OF_A_SINGLE_SAMPLE = frozenset({"sampling", "deadline_s", "priority", "token_budget"})
_SAMPLING_PARAMS = frozenset({"temperature", "top_p", "seed", "stop"})


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model name and what it stands for."""

    name: str
    """As callers write it."""
    policy: Mapping[str, Any]
    """Policy fields that it implies."""
    scaffold: bool = True
    """Whether there is a plan, several candidates and a choice; off = a single sample of a backend's model."""
    owner: str = "k2think"
    """`owned_by` in lists."""


class UnknownModel(NotFound):
    """No such model."""

    code = "model_not_found"
    param = "model"


def served_models(settings: Settings) -> tuple[ServedModel, ...]:
    """Return what is served, ours first."""
    models = {
        DEFAULT_MODEL: ServedModel(DEFAULT_MODEL, {}),
        PAPER_MODEL: ServedModel(PAPER_MODEL, {"preset": "paper"}),
    }
    role = settings.role(AgentKind.generator)
    if role is not None and (name := _model_name(settings.resolve(role))):
        models.setdefault(name, ServedModel(name, SINGLE_SAMPLE, scaffold=False, owner="generator"))
    for backend, own in settings.backends.items():
        if name := _model_name(own):
            policy = {**SINGLE_SAMPLE, "backend": backend}
            models.setdefault(name, ServedModel(name, policy, scaffold=False, owner=backend))
    return tuple(models.values())


def served_model(name: str, settings: Settings) -> ServedModel:
    """Return one by its name. Raises UnknownModel."""
    models = served_models(settings)
    for model in models:
        if model.name == name:
            return model
    known = ", ".join(model.name for model in models)
    raise UnknownModel(f"the model {name[:100]!r} does not exist; there are: {known}")


def requests_of(
    body: ChatBody,
    settings: Settings,
    *,
    idempotency_key: str | None = None,
    defaults: Mapping[str, Any] | None = None,
) -> tuple[SolveRequest, ...]:
    """Return one request for each choice. `defaults` are policy fields for what the body leaves open.

    Raises UnknownModel, InvalidRequest that names the parameter.
    """
    model = served_model(body.model, settings)
    if not model.scaffold:
        _refuse_scaffold(body)
    policy = body.policy_fields(defaults={**(defaults or {}), **model.policy}, answer_stop=model.scaffold)
    base_seed = _seed_of(policy)
    requests: list[SolveRequest] = []
    for index in range(body.n):
        if base_seed is not None and index:
            sampling = {**policy["sampling"], "seed": (base_seed + CHOICE_SEED_STEP * index) % 2**31}
            policy = {**policy, "sampling": sampling}
        key = idempotency_key
        if key is not None and index:
            key = f"{hashlib.sha256(key.encode()).hexdigest()}{CHOICE_KEY_MARK}{index}"
        fields = {
            "messages": body.conversation,
            "policy": policy,
            "checks": body.k2think.checks,
            "metadata": body.metadata,
            "idempotency_key": key,
        }
        try:
            requests.append(resolve(SolveRequest.model_validate(fields), settings))
        except ValidationError as exc:
            raise InvalidRequest(explain(exc), param=_param(exc)) from exc
        except InvalidRequest as exc:
            raise InvalidRequest(f"k2think.{exc}", param=f"k2think.{exc.param}") from exc
    return tuple(requests)


def completion(model: str, results: Sequence[SolveResult]) -> dict[str, Any]:
    """Return the `chat.completion` object of the results of all choices, at least one of which `is_completion`."""
    return chat_completion(model, results)


def error_of(result: SolveResult) -> tuple[int, dict[str, Any]] | None:
    """Return status and error object of a job that came to no completion; None = it did (refusals are completions)."""
    if is_completion(result):
        return None
    error = result.error
    code = error.code if error else result.status.value
    message = error.message if error else f"the job ended as {result.status.value} and no reason was recorded"
    if result.status is JobStatus.cancelled:
        return 409, error_object(message, "invalid_request_error", code=code)
    if result.status is JobStatus.expired or code in PASSING_CODES:
        return 503, error_object(message, "server_error", code=code)
    return 422, error_object(message, "invalid_request_error", code=code)


def _model_name(backend: BackendSettings) -> str | None:
    """The name that callers use; None = the server's only model, whose name is not known here."""
    if backend.backend is BackendKind.openvino:
        # A model folder: where it lies is nobody's business.
        return PurePath(backend.model).name if backend.model else BUNDLED_MODEL
    return backend.model


def _refuse_scaffold(body: ChatBody) -> None:
    if body.reasoning_effort is not None:
        raise InvalidRequest(
            f"reasoning_effort: {body.model!r} is asked for a single sample; efforts are k2think's",
            param="reasoning_effort",
        )
    for name in body.own_policy:
        if name not in _FIELDS_OF_A_SINGLE_SAMPLE:
            raise InvalidRequest(
                f"k2think.policy.{name}: {body.model!r} is asked for a single sample, without plan and choice",
                param=f"k2think.policy.{name}",
            )


def _seed_of(policy: Mapping[str, Any]) -> int | None:
    sampling = policy.get("sampling")
    seed = sampling.get("seed") if isinstance(sampling, Mapping) else None
    return seed if isinstance(seed, int) else None


def _param(exc: ValidationError) -> str:
    """Name the parameter in the caller's terms."""
    place = [str(part) for part in exc.errors()[0]["loc"]]
    if not place:
        return "messages"
    if place[:2] == ["policy", "sampling"] and len(place) > 2:
        name = place[2]
        if name == "max_tokens":
            return "max_completion_tokens"
        return name if name in _SAMPLING_PARAMS else ".".join(["k2think", *place])
    return ".".join(["k2think", *place]) if place[0] == "policy" else place[0]
