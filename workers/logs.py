"""structlog on standard error: console lines for people, JSON lines for machines. Keys and passwords never get in."""

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

from ..schemas.settings import LogFormat, Settings

_URL_PASSWORD = re.compile(r"(?<=://)([^/@\s:]*):([^/@\s]+)@")
_KEY = re.compile(
    r"\b(?:sk|csk|key|hf|ghp)[-_][A-Za-z0-9_-]{12,}|(?<=Bearer )\S+"
    # Our own keys, after their public part, and the secrets of webhooks.
    r"|(?<=\bk2_[a-z2-7]{10}_)\w+|(?<=\bwhsec_)[A-Za-z0-9+/_=-]+"
)
_QUIET = {
    "celery": logging.ERROR,
    "celery.worker.consumer.consumer": logging.ERROR,
    "celery.redirected": logging.ERROR,
    "kombu": logging.ERROR,
    "alembic": logging.WARNING,
    "amqp": logging.ERROR,
    "asyncio": logging.WARNING,
}
"""Loggers of libraries whose chatter is told better by our own lines."""


def configure_logs(settings: Settings, *, role: str) -> None:
    """Set up logging for this process; `role` is bound to every line."""
    level = getattr(logging, settings.log_level.upper())
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        redact,
    ]
    json_lines = settings.log_format is LogFormat.json
    renderer = (
        structlog.processors.JSONRenderer()
        if json_lines
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), pad_event_to=0)
    )
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name, quiet in _QUIET.items():
        logging.getLogger(name).setLevel(max(level, quiet))
    structlog.contextvars.bind_contextvars(role=role)


def quiet_logs() -> None:
    """Set up logging for a command whose output belongs to the user: errors only, on standard error."""
    structlog.configure(
        processors=[structlog.stdlib.add_log_level, redact, structlog.dev.ConsoleRenderer(colors=False)],
        wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )


def redact(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Take passwords in URLs and things that look like keys out of every text of a line."""
    for name, value in event.items():
        if isinstance(value, str):
            event[name] = redact_text(value)
    return event


def redact_text(text: str) -> str:
    """Return the text with passwords in URLs and things that look like keys replaced by ***."""
    return _KEY.sub("***", _URL_PASSWORD.sub(r"\1:***@", text))
