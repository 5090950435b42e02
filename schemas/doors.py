"""What the doors remember of a job, and who stands before them."""

from enum import StrEnum
from typing import Any

from pydantic import Field

from .base import Frozen


class Door(StrEnum):
    """Where a job came in."""

    chat = "chat"
    """/v1/chat/completions"""
    responses = "responses"
    """/v1/responses"""
    jobs = "jobs"
    """/v1/jobs"""
    batches = "batches"
    """A line of a batch."""


class DoorNote(Frozen):
    """Kept with the job, so that any gateway can show it again in the caller's terms."""

    door: Door
    """Where the job came in."""
    model: str = "k2think"
    """Model name that the caller asked for."""
    index: int = 0
    """Index of the choice that the job is for, where a request asked for several."""
    details: dict[str, Any] = Field(default_factory=dict[str, Any])
    """What else the door wants to find again, such as the instructions of a response."""


class KeyScope(StrEnum):
    """What an API key opens."""

    api = "api"
    """Everything of its tenant: the API and the trace page."""
    metrics = "metrics"
    """/metrics alone, which tells of all tenants."""
