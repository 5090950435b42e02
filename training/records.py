"""What training reads, typed: conversations to imitate (SFT) and problems to solve (RL: `schemas/scores.py: Task`), as JSON lines."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal, Self, TypeVar

from pydantic import BaseModel, Field, ValidationError, model_validator

from ..schemas.base import Frozen
from ..schemas.errors import InvalidRequest, explain
from ..schemas.scores import Domain, Task

Record = TypeVar("Record", bound=BaseModel)


class Turn(Frozen):
    """One message of a conversation."""

    role: Literal["system", "user", "assistant"]
    """Who speaks."""
    content: str
    """What is said; an assistant's reasoning stands in it, between `<think>` and `</think>`."""


class SftExample(Frozen):
    """One conversation whose assistant turns are to be imitated."""

    id: str = Field(min_length=1, max_length=200)
    """Stable within its source."""
    messages: tuple[Turn, ...] = Field(min_length=2)
    """At most one system turn, at the start; then user and assistant in turns, the last an assistant's."""
    source: str = Field(min_length=1, max_length=200)
    """Data set it is from, as the data set names itself."""
    domain: Domain | None = None
    """How its answer is checked; None = nothing can check it (chat, instructions)."""
    task_id: str | None = Field(default=None, min_length=1, max_length=200)
    """`Task.id` of the problem it solves; None = it belongs to no task."""
    reward: float | None = Field(default=None, ge=0.0, le=1.0)
    """What `grading.score` gave the last turn, 0..1; None = it was not checked."""
    tokens: int | None = Field(default=None, ge=0)
    """Length of the whole conversation in tokens, by the tokenizer that the set's manifest names; None = not counted."""

    @model_validator(mode="after")
    def _in_turns(self) -> Self:
        roles = [turn.role for turn in self.messages]
        spoken = roles[1:] if roles[0] == "system" else roles
        expected = ["user", "assistant"] * (len(spoken) // 2)
        if not spoken or spoken != expected:
            raise ValueError(
                "user and assistant must speak in turns, the assistant last; a system turn only at the start"
            )
        return self


def read_examples(path: Path) -> Iterator[SftExample]:
    """Yield the conversations of a JSONL file, in order. Raises InvalidRequest with the line that is wrong."""
    return read_records(path, SftExample)


def read_tasks(path: Path) -> Iterator[Task]:
    """Yield the problems of a JSONL file, in order. Raises InvalidRequest with the line that is wrong."""
    return read_records(path, Task)


def read_records(path: Path, kind: type[Record]) -> Iterator[Record]:
    """Yield the records of a JSONL file, in order; empty lines are passed over. Raises InvalidRequest."""
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield _record(line, kind, f"{path}, line {number}")
    except OSError as exc:
        raise InvalidRequest(f"{path} cannot be read: {exc.strerror or exc}") from exc
    except UnicodeDecodeError as exc:
        raise InvalidRequest(f"{path} is not UTF-8 text: is it compressed, or Parquet?") from exc


def _record(line: str, kind: type[Record], place: str) -> Record:
    try:
        return kind.model_validate_json(line)
    except ValidationError as exc:
        raise InvalidRequest(f"{place} is no {kind.__name__}: {explain(exc)}") from exc


def write_records(path: Path, records: Iterable[BaseModel]) -> int:
    """Write records as JSONL; return how many there were. The file appears only when it is complete."""
    scratch = path.with_name(f".{path.name}.part")
    count = 0
    with scratch.open("w", encoding="utf-8") as file:
        for record in records:
            file.write(record.model_dump_json(exclude_none=True) + "\n")
            count += 1
    scratch.replace(path)
    return count
