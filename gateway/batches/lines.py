"""One line of a batch's input: understood, and made into a job."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_core import from_json

from ...schemas.batches import BatchLine
from ...schemas.chat import ChatBody
from ...schemas.errors import InvalidRequest, UserError, explain
from ...schemas.jobs import SolveRequest
from ...schemas.policy import Priority
from ...schemas.settings import Settings
from ...workers.submit import resolve
from ..body import check_json
from ..models import requests_of

DEADLINE_MAX_S = 604_800.0
"""Longest that a job may take (policy.deadline_s)."""
DEADLINE_GRACE_S = 60.0
"""After the end of the completion window, by which the batch's own runner has ended the jobs, they expire by themselves."""
_CODES = {"custom_id": "invalid_custom_id", "method": "invalid_method", "url": "invalid_url", "body": "invalid_body"}
_ANSWERED_WHOLE = "the answer of a line comes as a whole: leave it out"
_ONE_ANSWER = (
    "a line has one answer: write several lines, each with a custom_id and, where it matters, a seed of its own"
)


class LineFault(Exception):
    """What is wrong with a line."""

    def __init__(self, code: str, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        """Machine-readable name."""
        self.param = param
        """Field of the line; None = the line as a whole."""


def read_line(raw: bytes, *, endpoint: str) -> tuple[str, ChatBody]:
    """Return the custom_id and the body of a line. Raises LineFault."""
    try:
        check_json(raw)
    except InvalidRequest as exc:
        words = str(exc).replace("the body", "the line", 1).replace("line 1 column", "column")
        raise LineFault("invalid_json_line", words) from exc
    parsed: Any = from_json(raw)
    try:
        line = BatchLine.model_validate(parsed)
    except ValidationError as exc:
        place = exc.errors(include_url=False, include_input=False, include_context=False)[0]["loc"]
        param = str(place[0])[:64] if place else None
        raise LineFault(_CODES.get(param or "", "invalid_line"), explain(exc), param=param) from exc
    if line.url != endpoint:
        raise LineFault(
            "invalid_url", f"url: every line must have the batch's endpoint, {endpoint}, and no other", param="url"
        )
    return line.custom_id, _body(line.body)


def request_of(body: ChatBody, settings: Settings, *, expires_at: float, now: float) -> SolveRequest:
    """Return the job of a line: behind all interactive ones, and alive as long as the batch unless the body says less.

    Raises InvalidRequest and UnknownModel.
    """
    rest_s = min(DEADLINE_MAX_S, max(0.0, expires_at - now) + DEADLINE_GRACE_S)
    (request,) = requests_of(body, settings, defaults={"deadline_s": rest_s, "priority": Priority.batch})
    policy = request.policy
    if policy.priority is not Priority.batch:
        raise InvalidRequest(
            "k2think.policy.priority: lines of a batch run at the priority batch: leave it out",
            param="k2think.policy.priority",
        )
    policy = policy.model_copy(update={"deadline_s": min(policy.deadline_s, rest_s)})
    return resolve(request.model_copy(update={"policy": policy}), settings)


def check_line(raw: bytes, settings: Settings, *, endpoint: str, expires_at: float, now: float) -> tuple[str, str]:
    """Check that a line can become a job; return its custom_id and its model. Raises LineFault."""
    custom_id, body = read_line(raw, endpoint=endpoint)
    try:
        request_of(body, settings, expires_at=expires_at, now=now)
    except UserError as exc:
        raise body_fault(exc) from exc
    return custom_id, body.model


def body_fault(error: UserError) -> LineFault:
    """Return the fault of a body that cannot become a job."""
    param = getattr(error, "param", None)
    code = "invalid_body" if isinstance(error, InvalidRequest) else error.code
    return LineFault(code, f"body: {error}", param=f"body.{param}" if param else "body")


def _body(fields: Mapping[str, Any]) -> ChatBody:
    try:
        body = ChatBody.model_validate(fields)
    except ValidationError as exc:
        place = exc.errors(include_url=False, include_input=False, include_context=False)[0]["loc"]
        param = f"body.{str(place[0])[:64]}" if place else "body"
        raise LineFault("invalid_body", f"body: {explain(exc)}", param=param) from exc
    except InvalidRequest as exc:
        raise body_fault(exc) from exc
    for name, wrong, reason in (
        ("stream", body.stream, _ANSWERED_WHOLE),
        ("stream_options", "stream_options" in body.model_fields_set, _ANSWERED_WHOLE),
        ("n", body.n != 1, _ONE_ANSWER),
    ):
        if wrong:
            raise LineFault("invalid_body", f"body.{name}: {reason}", param=f"body.{name}")
    return body
