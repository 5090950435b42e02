"""Exit codes, and the one place where an error becomes a message."""

import os
import sys
from enum import IntEnum

from ..schemas.errors import K2ThinkError, SchemaMismatch, StoreFull, UserError
from ..schemas.jobs import JobStatus


class Exit(IntEnum):
    """What a script can tell from the exit code."""

    succeeded = 0
    failed = 1
    usage = 2
    """Bad arguments, input or settings; also a database of another version or without space."""
    refused = 3
    ended = 4
    """Cancelled or expired."""


EXIT_OF_STATUS: dict[JobStatus, Exit] = {
    JobStatus.succeeded: Exit.succeeded,
    JobStatus.failed: Exit.failed,
    JobStatus.refused: Exit.refused,
    JobStatus.cancelled: Exit.ended,
    JobStatus.expired: Exit.ended,
}


def fail(error: K2ThinkError) -> Exit:
    """Tell the user what happened, and return the exit code that goes with it."""
    print(f"Error: {error}", file=sys.stderr)
    return Exit.usage if isinstance(error, UserError | SchemaMismatch | StoreFull) else Exit.failed


def drop_output() -> None:
    """Let go of what standard output did not take, so that the interpreter does not try again when it ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
