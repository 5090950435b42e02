"""What a batch leaves behind: one line per request, in the output file or in the error file, in the order of the input.

Both files are written to the end and put in place before the row that tells of them: a process that dies in between
leaves content that no row knows, which the housekeeping takes away.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic_core import to_json

from ...schemas.batches import BatchUsage, LineStatus, OutputTokensDetails
from ...schemas.completion import TokenUsage
from ...schemas.doors import DoorNote
from ...schemas.jobs import SolveResult
from ...store.batch_lines import Outcome
from ...store.batch_runs import Batch, output_file
from ...store.files import NewFile, new_file_id
from ..files.storage import NewContent
from ..models import completion, error_of

CANCELLED: Mapping[str, Any] = {
    "code": "batch_cancelled",
    "message": "The batch was cancelled before this request had an answer.",
}
EXPIRED: Mapping[str, Any] = {
    "code": "batch_expired",
    "message": "This request could not be executed before the completion window expired.",
}
GONE: Mapping[str, Any] = {
    "code": "job_deleted",
    "message": "The job of this request was deleted before the batch had ended: send the request again.",
}


@dataclass(slots=True)
class Output:
    """The two files in the making. Writing blocks: it is done in a thread. Used in a `with` block."""

    folder: Path
    """The files folder."""
    batch: Batch
    answers: NewContent = field(init=False)
    """Lines with an answer."""
    errors: NewContent = field(init=False)
    """Lines without."""
    used: TokenUsage = field(default_factory=TokenUsage)
    """Tokens of the answers."""

    def __enter__(self) -> "Output":
        """Open both. Raises OSError."""
        self.answers = NewContent(self.folder)
        self.errors = NewContent(self.folder)
        return self

    def __exit__(self, *failure: Any) -> None:
        """Delete what was not put in place."""
        self.answers.__exit__(*failure)
        self.errors.__exit__(*failure)

    def write(self, outcomes: Sequence[Outcome]) -> None:
        """Append lines. Raises OSError."""
        for outcome in outcomes:
            line, used = result_line(self.batch.id, outcome)
            if outcome.status is LineStatus.completed:
                self.used += used
                self.answers.write(line)
            else:
                self.errors.write(line)

    def put(self) -> tuple[NewFile | None, NewFile | None]:
        """Put both in place; return what their rows say: of the output and of the errors, None = it is empty."""
        return self._put(self.answers, "output"), self._put(self.errors, "errors")

    @property
    def usage(self) -> BatchUsage:
        """The tokens as the batch tells them."""
        return BatchUsage(
            input_tokens=self.used.prompt,
            output_tokens=self.used.completion,
            output_tokens_details=OutputTokensDetails(reasoning_tokens=self.used.reasoning),
            total_tokens=self.used.total,
        )

    def _put(self, content: NewContent, what: str) -> NewFile | None:
        if not content.size:
            return None
        file_id = new_file_id()
        content.put(file_id)
        name = f"{self.batch.id}_{what}.jsonl"
        return output_file(self.batch, file_id, name, size=content.size, sha256=content.sha256)


def result_line(batch_id: str, outcome: Outcome) -> tuple[bytes, TokenUsage]:
    """Return the line of a request, with its end, and the tokens that were paid for it."""
    line: dict[str, Any] = {
        "id": _request_id(batch_id, outcome.line),
        "custom_id": outcome.custom_id,
        "response": None,
        "error": None,
    }
    used = TokenUsage()
    if outcome.error is not None:
        line["error"] = json.loads(outcome.error)
    elif outcome.result is None:
        line["error"] = GONE
    else:
        result = SolveResult.model_validate_json(outcome.result)
        model = DoorNote.model_validate_json(outcome.door).model if outcome.door else ""
        used = result.usage.total
        failure = error_of(result)
        status, body = (200, completion(model, [result])) if failure is None else failure
        line["response"] = {"status_code": status, "request_id": result.job_id, "body": body}
    return to_json(line) + b"\n", used


def _request_id(batch_id: str, line: int) -> str:
    """Return an id that stays the same, however often the output is begun anew."""
    return f"batch_req_{hashlib.sha256(f'{batch_id}/{line}'.encode()).hexdigest()[:32]}"
