"""Files and batches on the wire, as OpenAI's API has them (api-reference/files and api-reference/batch)."""

import re
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from .base import Frozen

ENDPOINTS = ("/v1/chat/completions",)
"""What the lines of a batch may ask for."""
WINDOW_MAX_S = 604_800
"""Longest completion window: 7 days, as long as a job may take."""
EXPIRY_MIN_S = 3_600
EXPIRY_MAX_S = 2_592_000
METADATA_MAX = 16
CUSTOM_ID_CHARS_MAX = 512
PROBLEMS_MAX = 100
"""Faults of an input file that are told; reading ends there."""
_WINDOW = re.compile(r"([1-9][0-9]{0,5})([smhd])")
_UNIT_S = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


class FilePurpose(StrEnum):
    """What a file is for."""

    batch = "batch"
    """Input of a batch, uploaded."""
    batch_output = "batch_output"
    """Answers or errors of a batch, written here."""


class BatchStatus(StrEnum):
    """State of a batch: validating → in_progress → finalizing → completed, or one of the ways to end without."""

    validating = "validating"
    in_progress = "in_progress"
    finalizing = "finalizing"
    """All lines have ended; the output is being written."""
    cancelling = "cancelling"
    """What runs is being stopped; the output of what was done follows."""
    completed = "completed"
    failed = "failed"
    """The input file is not well-formed; no line was run."""
    expired = "expired"
    """The completion window ended before the last line."""
    cancelled = "cancelled"

    @property
    def final(self) -> bool:
        """Whether nothing can follow."""
        return self in (BatchStatus.completed, BatchStatus.failed, BatchStatus.expired, BatchStatus.cancelled)


class LineStatus(StrEnum):
    """State of one line of a batch."""

    pending = "pending"
    submitted = "submitted"
    """It has a job."""
    completed = "completed"
    """It has an answer, which goes to the output file."""
    failed = "failed"
    """It ended without, which goes to the error file."""


class _Wire(BaseModel):
    """What is answered: all fields are there, null or not."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, frozen=True, hide_input_in_errors=True)


class FileObject(_Wire):
    """A file."""

    id: str
    """file- and 32 hexadecimal digits."""
    object: Literal["file"] = "file"
    """Always file."""
    bytes: int
    """Size."""
    created_at: int
    """Unix time in seconds."""
    expires_at: int | None
    """When it is deleted, Unix time in seconds; null = never."""
    filename: str
    """As uploaded, for display."""
    purpose: FilePurpose
    """What it is for."""
    status: Literal["processed"] = "processed"
    """Always processed (OpenAI keeps the field for old clients)."""
    status_details: None = None
    """Always null."""


class FileList(_Wire):
    """One page of files."""

    object: Literal["list"] = "list"
    """Always list."""
    data: list[FileObject]
    """The files."""
    first_id: str | None
    """Id of the first one; null = the page is empty."""
    last_id: str | None
    """Id of the last one, for `after`; null = the page is empty."""
    has_more: bool
    """Whether more follow."""


class FileDeleted(_Wire):
    """The answer to a deletion."""

    id: str
    """The file that was."""
    object: Literal["file"] = "file"
    """Always file."""
    deleted: Literal[True] = True
    """Always true."""


class ExpiresAfter(Frozen):
    """When a file is deleted."""

    anchor: Literal["created_at"]
    """From when on the seconds count."""
    seconds: int = Field(ge=EXPIRY_MIN_S, le=EXPIRY_MAX_S)
    """An hour to 30 days."""


_MetadataKey = Annotated[str, Field(min_length=1, max_length=64)]
_MetadataText = Annotated[str, Field(max_length=512)]


class BatchBody(Frozen):
    """Body of POST /v1/batches."""

    input_file_id: str = Field(max_length=100)
    """An uploaded file of purpose batch."""
    endpoint: str = Field(max_length=100)
    """URL of every line; only /v1/chat/completions is served."""
    completion_window: str = Field(max_length=20)
    """24h, or as an extension any whole number of seconds, minutes, hours or days, such as 30m; 7d at most."""
    metadata: dict[_MetadataKey, _MetadataText] | None = Field(default=None, max_length=METADATA_MAX)
    """The caller's own notes: at most 16 keys of 64 characters, values of 512."""
    output_expires_after: ExpiresAfter | None = None
    """When the output and error files are deleted; null = never."""

    @field_validator("endpoint")
    @classmethod
    def _is_served(cls, endpoint: str) -> str:
        if endpoint not in ENDPOINTS:
            raise ValueError(f"{endpoint[:64]!r} is not served in batches; use {' or '.join(ENDPOINTS)}")
        return endpoint

    @field_validator("completion_window")
    @classmethod
    def _is_a_window(cls, window: str) -> str:
        window_s(window)
        return window


class BatchLine(Frozen):
    """A line of the input, once it is JSON."""

    custom_id: str = Field(min_length=1, max_length=CUSTOM_ID_CHARS_MAX, pattern=r"^[^\x00-\x1f\x7f]*$")
    """The caller's name of the request, unique in the file: its answer carries it. Without control characters."""
    method: Literal["POST"]
    """Always POST."""
    url: str
    """The batch's endpoint."""
    body: dict[str, Any]
    """What would be posted there."""


class BatchProblem(_Wire):
    """One fault of an input file."""

    code: str
    """Machine-readable name."""
    line: int | None
    """Number of the line, from 1; null = the file as a whole."""
    message: str
    """What is wrong, and what to do."""
    param: str | None
    """Field of the line; null = the line as a whole."""


class BatchProblems(_Wire):
    """Why the validation of a batch failed."""

    object: Literal["list"] = "list"
    """Always list."""
    data: list[BatchProblem]
    """The first 100 faults, in order of lines."""


class RequestCounts(_Wire):
    """How far a batch is."""

    total: int
    """Lines; 0 until validated."""
    completed: int
    """Lines that have an answer."""
    failed: int
    """Lines that ended without."""


class InputTokensDetails(_Wire):
    """What the prompt tokens are made of."""

    cached_tokens: int = 0
    """Always 0: no backend tells it for every call."""


class OutputTokensDetails(_Wire):
    """What the generated tokens are made of."""

    reasoning_tokens: int
    """Of the generated tokens, those of reasoning."""


class BatchUsage(_Wire):
    """Tokens of all answers of a batch."""

    input_tokens: int
    """Tokens of the prompts, all agents."""
    input_tokens_details: InputTokensDetails = InputTokensDetails()
    """What they are made of."""
    output_tokens: int
    """Tokens generated, all agents."""
    output_tokens_details: OutputTokensDetails
    """What they are made of."""
    total_tokens: int
    """Both together."""


class BatchObject(_Wire):
    """A batch. All times are Unix times in seconds, null where it has not come to that."""

    id: str
    """batch_ and 32 hexadecimal digits."""
    object: Literal["batch"] = "batch"
    """Always batch."""
    endpoint: str
    """URL of every line."""
    model: str | None
    """Model of the first line; null = not read yet."""
    errors: BatchProblems | None
    """Why validation failed; null = it did not."""
    input_file_id: str
    """The input."""
    completion_window: str
    """As asked for."""
    status: BatchStatus
    """Where it is."""
    output_file_id: str | None
    """Lines with an answer; null = none yet, or no such line."""
    error_file_id: str | None
    """Lines without; null = none yet, or no such line."""
    created_at: int
    """Creation."""
    in_progress_at: int | None
    """End of validation."""
    expires_at: int
    """End of the completion window."""
    finalizing_at: int | None
    """When all lines had ended."""
    completed_at: int | None
    """When its output was complete."""
    failed_at: int | None
    """When validation failed."""
    expired_at: int | None
    """When the window was over."""
    cancelling_at: int | None
    """When cancelling was asked for."""
    cancelled_at: int | None
    """When that was done."""
    request_counts: RequestCounts
    """How far it is."""
    usage: BatchUsage | None
    """Tokens of all answers; null until the output is complete."""
    metadata: dict[str, str] | None
    """The caller's own notes."""


class BatchList(_Wire):
    """One page of batches."""

    object: Literal["list"] = "list"
    """Always list."""
    data: list[BatchObject]
    """The batches."""
    first_id: str | None
    """Id of the first one; null = the page is empty."""
    last_id: str | None
    """Id of the last one, for `after`; null = the page is empty."""
    has_more: bool
    """Whether more follow."""


def window_s(text: str) -> int:
    """Return the seconds of a completion window such as 24h; raise ValueError."""
    found = _WINDOW.fullmatch(text)
    seconds = int(found[1]) * _UNIT_S[found[2]] if found else 0
    if not 0 < seconds <= WINDOW_MAX_S:
        raise ValueError(f"{text[:20]!r} cannot be read: write 24h, or a whole number with s, m, h or d, 7d at most")
    return seconds
