"""The form of every HTTP error answer: OpenAI's error object."""

from .base import Frozen


class ErrorObject(Frozen):
    """What went wrong."""

    message: str
    """What happened, why, and what to do."""
    type: str
    """Class of the error, such as invalid_request_error, rate_limit_error or server_error."""
    param: str | None = None
    """Parameter that is wrong; None = the request as a whole, or not the request."""
    code: str | None = None
    """Machine-readable name; None = none."""


class ErrorBody(Frozen):
    """Body of an error answer."""

    error: ErrorObject
    """The error."""
