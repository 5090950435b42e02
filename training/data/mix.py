"""Several folders of training data into one: by weight of domain or source, in an order that a seed reproduces.

Two passes: the first notes where each record stands and to which group it belongs, the second copies the chosen ones as
they stand. So memory holds some 150 bytes a record, never its text.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from ...schemas.errors import InvalidRequest, NotFound
from .choices import By, Order
from .folder import EXAMPLES_NAME, TASKS_NAME, DataFolder
from .manifest import DataManifest, SourceFile
from .progress import Counting
from .reading import file_sha256

UNCHECKED = "unchecked"
"""Domain of conversations that nothing can check."""


@dataclass(frozen=True, slots=True)
class MixOptions:
    """What to choose, and in which order."""

    weights: Mapping[str, float]
    """Group → its share in comparison with the others'; groups without one get `rest`. Empty = all that there is."""
    by: By = By.domain
    """What the groups are."""
    rest: float = 0.0
    """Weight of groups that `weights` does not name."""
    size: int | None = None
    """Records to choose; None = as many as the weights allow without taking one twice."""
    order: Order = Order.shuffled
    """Their order."""
    seed: int = 0
    """Of the choice and the order."""
    overwrite: bool = False
    """Whether data that is in the folder already may go."""
    quiet: bool = False
    """Whether no progress is shown."""


@dataclass(slots=True)
class _Record:
    file: int
    offset: int
    difficulty: float | None


def mix(folders: Sequence[Path], out: Path, options: MixOptions) -> DataManifest:
    """Mix the records of these folders, or JSONL files, into the folder `out`. Raises InvalidRequest, NotFound.

    All must hold the same kind of records: conversations, or else problems. No record is taken twice.
    """
    name, files = _files(folders)
    with DataFolder(out, overwrite=options.overwrite) as folder:
        groups, counts = _read(files, options, folder)
        chosen = _chosen(groups, options)
        order = _ordered(chosen, options)
        _copy(order, files, name, folder, options.quiet)
        left = folder.read - folder.written
        if left:
            folder.rejected["not_drawn"] = left
        return folder.finish(
            "mix",
            sources=[
                SourceFile(name=str(file), sha256=file_sha256(file), records=count)
                for file, count in zip(files, counts, strict=True)
            ],
            options={
                "by": options.by.value,
                "weights": dict(options.weights),
                "rest": options.rest,
                "size": options.size,
                "order": options.order.value,
            },
            seed=options.seed,
        )


def _files(folders: Sequence[Path]) -> tuple[str, list[Path]]:
    """Return the name of the kind of records, and the files."""
    found: dict[str, list[Path]] = {EXAMPLES_NAME: [], TASKS_NAME: []}
    for path in folders:
        if path.is_file():
            found[_kind_of(path)].append(path)
            continue
        inside = [path / name for name in (EXAMPLES_NAME, TASKS_NAME) if (path / name).is_file()]
        if not inside:
            raise NotFound(f"{path} holds neither {EXAMPLES_NAME} nor {TASKS_NAME}: name what `train convert` wrote")
        # Problems beside conversations are those that the conversations solve.
        found[inside[0].name].append(inside[0])
    used = [name for name, files in found.items() if files]
    if len(used) > 1:
        raise InvalidRequest("conversations and problems cannot be mixed: mix each kind by itself")
    if not used:
        raise InvalidRequest("there is nothing to mix: name at least one folder")
    return used[0], list(dict.fromkeys(found[used[0]]))


def _kind_of(path: Path) -> str:
    with path.open("rb") as file:
        first = next((line for line in file if line.strip()), b"")
    row = _row(first, f"{path}, line 1") if first else {}
    return EXAMPLES_NAME if "messages" in row else TASKS_NAME


def _read(files: list[Path], options: MixOptions, folder: DataFolder) -> tuple[dict[str, list[_Record]], list[int]]:
    groups: dict[str, list[_Record]] = {}
    counts = [0] * len(files)
    with Counting("reading", quiet=options.quiet) as shown:
        for number, path in enumerate(files):
            with path.open("rb") as file:
                offset = 0
                for line_number, line in enumerate(file, start=1):
                    if line.strip():
                        row = _row(line, f"{path}, line {line_number}")
                        groups.setdefault(_group(row, options.by), []).append(_Record(number, offset, _difficulty(row)))
                        counts[number] += 1
                        folder.read += 1
                        shown.tell(read=folder.read)
                    offset += len(line)
    return groups, counts


def _row(line: bytes, place: str) -> dict[str, Any]:
    try:
        row: object = json.loads(line)
    except ValueError as exc:
        raise InvalidRequest(f"{place} is no JSON: mix what `train convert` or `train from-log` wrote") from exc
    if not isinstance(row, dict) or not isinstance(cast(dict[str, Any], row).get("source"), str):
        raise InvalidRequest(f"{place} is no record of ours: mix what `train convert` or `train from-log` wrote")
    return cast(dict[str, Any], row)


def _group(row: Mapping[str, Any], by: By) -> str:
    if by is By.source:
        return str(row["source"])
    domain = row.get("domain")
    return domain if isinstance(domain, str) else UNCHECKED


def _difficulty(row: Mapping[str, Any]) -> float | None:
    meta = row.get("meta")
    value = cast(Mapping[str, Any], meta).get("difficulty") if isinstance(meta, dict) else None
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _chosen(groups: dict[str, list[_Record]], options: MixOptions) -> dict[str, list[_Record]]:
    """Return by group the records to take."""
    unknown = sorted(options.weights.keys() - groups.keys())
    if unknown:
        raise InvalidRequest(
            f"there is nothing of {', '.join(unknown)}: what there is of each {options.by.value} is "
            + ", ".join(f"{name} {len(records):,}" for name, records in sorted(groups.items()))
        )
    default = options.rest if options.weights else None
    # Without weights, each group's own size is its weight.
    weights = {
        name: options.weights.get(name, len(records) if default is None else default)
        for name, records in sorted(groups.items())
    }
    weights = {name: weight for name, weight in weights.items() if weight > 0}
    if not weights:
        raise InvalidRequest("all weights are 0: nothing would be chosen")
    total = sum(weights.values())
    most = min(len(groups[name]) * total / weight for name, weight in weights.items())
    size = int(most) if options.size is None else options.size
    wanted = _shares(weights, size)
    short = [name for name, count in wanted.items() if count > len(groups[name])]
    if short:
        raise InvalidRequest(
            f"{size:,} records with these weights need more than there is of "
            + ", ".join(f"{name} ({wanted[name]:,} of {len(groups[name]):,})" for name in short)
            + f": the most is --size {int(most)}"
        )
    return {
        name: [
            groups[name][index]
            for index in _random(options.seed, "choice", name).sample(range(len(groups[name])), count)
        ]
        for name, count in wanted.items()
    }


def _shares(weights: Mapping[str, float], size: int) -> dict[str, int]:
    """Divide `size` by weight, by largest remainders, so that the parts add up."""
    total = sum(weights.values())
    exact = {name: size * weight / total for name, weight in weights.items()}
    parts = {name: int(value) for name, value in exact.items()}
    by_remainder = sorted(exact, key=lambda name: (parts[name] - exact[name], name))
    for name in by_remainder[: size - sum(parts.values())]:
        parts[name] += 1
    return parts


def _ordered(chosen: Mapping[str, list[_Record]], options: MixOptions) -> list[_Record]:
    """Return the records in order: each has a place between 0 and 1 within its group, and the groups are merged by it."""
    placed: list[tuple[float, str, int, _Record]] = []
    for name, records in chosen.items():
        draw = _random(options.seed, "order", name)
        inside = _by_difficulty(records, draw) if options.order is Order.easy_first else records
        placed += [((rank + draw.random()) / len(inside), name, rank, record) for rank, record in enumerate(inside)]
    return [record for *_, record in sorted(placed, key=lambda place: place[:3])]


def _by_difficulty(records: list[_Record], draw: random.Random) -> list[_Record]:
    known = sorted(
        (record for record in records if record.difficulty is not None), key=lambda record: record.difficulty or 0.0
    )
    places = [((rank + 0.5) / len(known), record) for rank, record in enumerate(known)]
    places += [(draw.random(), record) for record in records if record.difficulty is None]
    return [record for _, record in sorted(places, key=lambda place: place[0])]


def _copy(order: list[_Record], files: list[Path], name: str, folder: DataFolder, quiet: bool) -> None:
    opened: list[IO[bytes]] = [path.open("rb") for path in files]
    try:
        with Counting("writing", quiet=quiet) as shown:
            for record in order:
                source = opened[record.file]
                source.seek(record.offset)
                line = source.readline()
                row = _row(line, str(files[record.file]))
                folder.write_line(name, line.decode("utf-8").rstrip("\n"))
                folder.accept(domain=cast(str | None, row.get("domain")), source=str(row["source"]))
                shown.tell(written=folder.written)
    finally:
        for source in opened:
            source.close()


def _random(seed: int, what: str, group: str) -> random.Random:
    """Return a source of chance of its own for each use and group: one more group changes nothing for the others."""
    return random.Random(f"{seed} {what} {group}")
