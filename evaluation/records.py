"""A run's folder: `manifest.json`, `items.jsonl` and `outcomes.jsonl`, written once, appended to, and read back whatever befell it.

A run may have been killed, or its files damaged: reading never fails on what a file holds, it says what is wrong with it.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, TypeVar

from pydantic import ValidationError

from ..schemas.base import Frozen
from ..schemas.errors import InvalidRequest, NotFound, explain
from ..schemas.evaluation import Item, Manifest, Outcome, Status

MANIFEST_NAME = "manifest.json"
ITEMS_NAME = "items.jsonl"
OUTCOMES_NAME = "outcomes.jsonl"
TRIED_AGAIN = (Status.errored, Status.ungraded)
"""What a later outcome of the same question may replace: there was no verdict. Any other first outcome stands."""
FAULTS_SHOWN = 5

Key = tuple[str, str, int]
"""Item, target, repeat."""
Line = TypeVar("Line", bound=Frozen)


@dataclass(frozen=True, slots=True)
class Run:
    """What a run's folder holds."""

    folder: Path
    """Where it was read."""
    manifest: Manifest | None
    """None = missing or unreadable; `faults` says which."""
    items: tuple[Item, ...]
    """The problems, in the order of the file."""
    outcomes: tuple[Outcome, ...]
    """One for each question that was answered: the outcome that stands."""
    replaced: tuple[Outcome, ...]
    """Earlier outcomes without a verdict that were tried again: not counted as answers, but paid for."""
    ignored: tuple[Outcome, ...]
    """Later outcomes of questions that had a verdict: not counted as answers either, but paid for."""
    faults: tuple[str, ...]
    """What is wrong with the files, in sentences; empty = nothing."""

    @property
    def name(self) -> str:
        """Name of the folder, by which reports call the run."""
        return self.folder.resolve().name

    @property
    def everything(self) -> tuple[Outcome, ...]:
        """All outcomes, in an order in which the same ones stand when they are written and read again."""
        return (*self.replaced, *self.outcomes, *self.ignored)

    @property
    def done(self) -> frozenset[Key]:
        """The questions that need not be asked again: those with an outcome, errors and crashes of the check included."""
        return frozenset(key_of(outcome) for outcome in self.outcomes)


def key_of(outcome: Outcome) -> Key:
    """Return what the outcome is the answer to."""
    return outcome.item, outcome.target, outcome.repeat


def data_sha256(items: Sequence[Item]) -> str:
    """Return the hash of the problems with their truths and checks; their order does not matter."""
    lines = sorted(json.dumps(item.model_dump(mode="json"), sort_keys=True) for item in items)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def read_run(folder: Path) -> Run:
    """Read a run, finished or not, damaged or not. Raises NotFound when there is no such folder."""
    if not folder.is_dir():
        raise NotFound(f"{folder}: there is no such folder; a run's folder is what `k2think eval run` wrote")
    faults: list[str] = []
    manifest = _read_manifest(folder / MANIFEST_NAME, faults)
    items = _first_of_each(_read_lines(folder / ITEMS_NAME, Item, faults), faults)
    outcomes, replaced, ignored = _standing(_read_lines(folder / OUTCOMES_NAME, Outcome, faults), faults)
    if manifest is not None and items and data_sha256(items) != manifest.data_sha256:
        faults.append(
            f"{ITEMS_NAME} is not what the manifest was written for ({len(items):,} problems, {manifest.items:,} "
            "expected; the hash differs): figures are of what the file holds now"
        )
    return Run(folder, manifest, items, outcomes, replaced, ignored, tuple(faults))


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write `manifest.json` whole or not at all."""
    _write_whole(folder / MANIFEST_NAME, manifest.model_dump_json(indent=2) + "\n")


def write_items(folder: Path, items: Sequence[Item]) -> None:
    """Write `items.jsonl` whole or not at all."""
    _write_whole(folder / ITEMS_NAME, "".join(f"{item.model_dump_json()}\n" for item in items))


class OutcomeLog:
    """`outcomes.jsonl`, open for appending by one process at a time.

    Opening cuts off a line that a kill left torn; an appended line survives the process at once, and the machine once `sync`
    or leaving has returned. Raises InvalidRequest when another process has the run open.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / OUTCOMES_NAME
        self._file: IO[bytes] = self._path.open("ab")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            self._file.close()
            raise InvalidRequest(
                f"{folder} is being written by another process: wait for it, or name another folder"
            ) from exc
        self._end_last_line()

    def __enter__(self) -> OutcomeLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.sync()
        self._file.close()

    def append(self, outcome: Outcome) -> None:
        """Append a line and hand it to the operating system."""
        self._file.write(outcome.model_dump_json().encode() + b"\n")
        self._file.flush()

    def sync(self) -> None:
        """Return once all lines are on the disk."""
        os.fsync(self._file.fileno())

    def _end_last_line(self) -> None:
        text = self._path.read_bytes()
        whole, last = text[: text.rfind(b"\n") + 1], text[text.rfind(b"\n") + 1 :]
        if last and _parsed(last, Outcome) is not None:
            self._file.write(b"\n")
            self._file.flush()
        elif last:
            self._file.truncate(len(whole))


def _read_manifest(path: Path, faults: list[str]) -> Manifest | None:
    if not path.exists():
        faults.append(f"{path.name} is missing: whom the run asked, how and with which grader is unknown")
        return None
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except ValidationError as exc:
        faults.append(f"{path.name} cannot be understood ({explain(exc)}): whom the run asked is unknown")
        return None


def _read_lines(path: Path, kind: type[Line], faults: list[str]) -> list[Line]:
    if not path.exists():
        faults.append(f"{path.name} is missing")
        return []
    found: list[Line] = []
    bad: list[int] = []
    lines = path.read_bytes().split(b"\n")
    last = lines.pop()
    for number, line in enumerate(lines, 1):
        if (value := _parsed(line, kind)) is not None:
            found.append(value)
        else:
            bad.append(number)
    if last and (value := _parsed(last, kind)) is not None:
        found.append(value)
    elif last:
        faults.append(f"the last line of {path.name} is torn, as a kill leaves it: it is not counted")
    if bad:
        shown = ", ".join(map(str, bad[:FAULTS_SHOWN])) + (", …" if len(bad) > FAULTS_SHOWN else "")
        faults.append(
            f"{len(bad):,} of {len(lines):,} lines of {path.name} cannot be understood (line {shown}): they are left out"
        )
    return found


def _parsed(line: bytes, kind: type[Line]) -> Line | None:
    try:
        return kind.model_validate_json(line)
    except ValidationError:
        return None


def _first_of_each(items: list[Item], faults: list[str]) -> tuple[Item, ...]:
    by_id: dict[str, Item] = {}
    for item in items:
        by_id.setdefault(item.task.id, item)
    if twice := len(items) - len(by_id):
        faults.append(f"{twice:,} lines of {ITEMS_NAME} repeat the id of an earlier problem: they are left out")
    return tuple(by_id.values())


def _standing(outcomes: list[Outcome], faults: list[str]) -> tuple[tuple[Outcome, ...], ...]:
    """Return the outcomes that stand, those that they replaced and later ones: asking until the answer is right is not possible."""
    standing: dict[Key, Outcome] = {}
    replaced: list[Outcome] = []
    ignored: list[Outcome] = []
    for outcome in outcomes:
        earlier = standing.get(key_of(outcome))
        if earlier is not None and earlier.final.status not in TRIED_AGAIN:
            ignored.append(outcome)
            continue
        if earlier is not None:
            replaced.append(earlier)
        standing[key_of(outcome)] = outcome
    if ignored:
        faults.append(
            f"{len(ignored):,} outcomes answer a question that had been answered before: the first answer stands, "
            "the tokens of all are counted"
        )
    return tuple(standing.values()), tuple(replaced), tuple(ignored)


def _write_whole(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)
