"""A suite held against training data: which items are in it, whole, in part, or nearly.

What was not found is `clean` only in data that is declared as what a model was trained on, and only if all of it could
be read. In all other cases it is `unknown`: that a search found nothing says nothing of what was not searched.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .. import __version__
from ..grading.overlap import FUZZY_MIN, NGRAM8_COVERAGE_MIN, Match, OverlapIndex, is_sign, kinds_from
from ..schemas.errors import InvalidRequest
from ..schemas.evaluation import (
    Cleanliness,
    ContaminationReport,
    Item,
    ItemOverlap,
    LookedAt,
    Overlap,
    OverlapKind,
)
from ..schemas.scores import Domain
from ..training.data.progress import Counting
from ..training.data.reading import ENDINGS, file_sha256, rows_of
from ..training.data.sources import source_files
from ..training.data.texts import texts_of
from .records import data_sha256

OVERLAPS_KEPT = 5
"""Matches listed of each item."""
PATTERNS = tuple(f"*{ending}" for ending in ENDINGS)
"""Files of a data set at the hub that are looked through; its patterns match in folders, too."""
_ORDER = {kind: place for place, kind in enumerate(OverlapKind)}


@dataclass(frozen=True, slots=True)
class SearchOptions:
    """How to look."""

    target: str | None = None
    """Target whose training data it is; None = whichever the report is joined with."""
    declared: str | None = None
    """What is declared about the data, in words; None = nothing."""
    weakest: OverlapKind | None = None
    """Weakest kind of match that makes an item contaminated; None = `exact` for generated items, else `fuzzy`."""
    problems_only: bool = False
    """Look at what is asked in the data, not at what is answered."""
    fuzzy_min: float = FUZZY_MIN
    """Jaccard similarity from which on two texts are similar."""
    quiet: bool = False
    """Whether no progress is shown."""


@dataclass(slots=True)
class _Seen:
    """What was found of one item."""

    matches: int = 0
    counted: bool = False
    best: list[Overlap] = field(default_factory=list[Overlap])

    def add(self, overlap: Overlap, *, counts: bool) -> bool:
        """Note a match; return whether it is the first that counts."""
        first = counts and not self.counted
        self.matches += 1
        self.counted = self.counted or counts
        self.best.append(overlap)
        self.best.sort(key=lambda found: (_ORDER[found.kind], -found.words, -(found.similarity or 0.0)))
        del self.best[OVERLAPS_KEPT:]
        return first


def search(
    suite: str, items: Sequence[Item], data: Sequence[str], options: SearchOptions | None = None
) -> ContaminationReport:
    """Look for the items in the data: files, folders, or data sets at the hub (`OWNER/NAME@REVISION`).

    The items are indexed, the data is streamed past. Raises InvalidRequest, NotFound, ConfigurationError, and what the hub
    refuses.
    """
    asked = options or SearchOptions()
    if not items:
        raise InvalidRequest(f"{suite} has no items: there is nothing to look for")
    if asked.declared is not None and not asked.declared.strip():
        raise InvalidRequest("the declaration is empty: say what the data is to the model, or leave it out")
    counted = kinds_from(asked.weakest or _usual(items))
    index = OverlapIndex(((item.task.id, item.task.prompt) for item in items), fuzzy_min=asked.fuzzy_min)
    seen: dict[str, _Seen] = {item.task.id: _Seen() for item in items}
    fetched = source_files(data, patterns=PATTERNS)
    looked_at: list[LookedAt] = []
    items_found = records_read = 0
    with Counting("looking through", quiet=asked.quiet) as shown:
        for file in fetched.files:
            name, records, unreadable = fetched.name_of(file), 0, 0
            for read in rows_of(file):
                records += 1
                records_read += 1
                if read.row is None:
                    unreadable += 1
                    continue
                texts = list(texts_of(read.row, problems_only=asked.problems_only))
                # A record without any text was not looked through.
                unreadable += not texts
                for place, text in texts:
                    for match in index.search(text):
                        items_found += seen[match.item].add(
                            _overlap(match, name, f"{read.place}, {place}"),
                            counts=is_sign(match.kind, match.coverage, counted),
                        )
                shown.tell(records=records_read, items_found=items_found)
            # A file without any record is seldom what it was declared to be.
            unreadable += not records
            looked_at.append(LookedAt(data=name, sha256=file_sha256(file), records=records, unreadable=unreadable))
    looked_at += [LookedAt(data=name, records=0, unreadable=1) for name in fetched.passed_over]
    complete = asked.declared is not None and not any(data.unreadable for data in looked_at)
    return ContaminationReport(
        suite=suite,
        data_sha256=data_sha256(items),
        target=asked.target,
        declared=asked.declared,
        counted=counted,
        ngram8_coverage_min=NGRAM8_COVERAGE_MIN,
        looked_at=tuple(looked_at),
        items=tuple(
            ItemOverlap(
                item=item, status=_status(found, complete=complete), overlaps=tuple(found.best), matches=found.matches
            )
            for item, found in seen.items()
        ),
        k2think_version=__version__,
    )


def _usual(items: Sequence[Item]) -> OverlapKind:
    """Return the weakest kind that counts unless another is asked for: generated items share their templates."""
    generated = all(item.task.domain is Domain.procedural for item in items)
    return OverlapKind.exact if generated else OverlapKind.fuzzy


def _overlap(match: Match, data: str, place: str) -> Overlap:
    return Overlap(
        kind=match.kind,
        data=data,
        place=place,
        text=match.text,
        words=match.words,
        coverage=round(match.coverage, 4),
        similarity=None if match.similarity is None else round(match.similarity, 4),
    )


def _status(found: _Seen, *, complete: bool) -> Cleanliness:
    if found.counted:
        return Cleanliness.contaminated
    return Cleanliness.clean if complete else Cleanliness.unknown


def to_markdown(report: ContaminationReport) -> str:
    """Return the report for readers: what is known, the items that were found, and what was looked through."""
    return "\n".join(_lines(report)) + "\n"


def _lines(report: ContaminationReport) -> Iterator[str]:
    counts = {status: sum(item.status is status for item in report.items) for status in Cleanliness}
    total = len(report.items)
    yield f"# Contamination of {_cell(report.suite)}"
    yield ""
    yield f"Training data of: {_cell(report.target) if report.target else 'the target that this is joined with'}."
    yield f"Declared: {_cell(report.declared) if report.declared else 'nothing, so no item is called clean'}."
    yield f"A match counts if it is: {', '.join(_KIND_WORDS[kind] for kind in report.counted)}."
    yield ""
    yield "| status | items | share |"
    yield "|---|---|---|"
    for status, count in counts.items():
        yield f"| {status.value} | {count:,} | {count / total:.1%} |"
    yield ""
    yield "| best match | items |"
    yield "|---|---|"
    for kind in OverlapKind:
        yield f"| {_KIND_WORDS[kind]} | {sum(_best(item) is kind for item in report.items):,} |"
    yield f"| none | {sum(not item.overlaps for item in report.items):,} |"
    found = [item for item in report.items if item.overlaps]
    if found:
        yield ""
        yield "## Items that were found"
        yield ""
        yield "| item | status | kind | words in a row | coverage | similarity | where | text |"
        yield "|---|---|---|---|---|---|---|---|"
        for item in found:
            best = item.overlaps[0]
            more = f" and {item.matches - 1:,} more" if item.matches > 1 else ""
            similarity = "" if best.similarity is None else f"{best.similarity:.2f}"
            yield (
                f"| {_cell(item.item)} | {item.status.value} | {best.kind.value} | {best.words or ''} | {best.coverage:.0%} "
                f"| {similarity} | {_cell(best.data)}, {_cell(best.place)}{more} | {_cell(best.text)} |"
            )
    yield ""
    yield "## What was looked through"
    yield ""
    yield "| data | records | unreadable | sha256 |"
    yield "|---|---|---|---|"
    for data in report.looked_at:
        yield f"| {_cell(data.data)} | {data.records:,} | {data.unreadable:,} | {_hash_cell(data.sha256)} |"
    yield ""
    yield (
        "Rewording, translation and changed wording with new numbers can escape every kind of match: "
        "`clean` means that none of these searches found it in the declared data."
    )


_KIND_WORDS = {
    OverlapKind.exact: "exact",
    OverlapKind.ngram13: "13 words in a row",
    OverlapKind.ngram8: f"8 words in a row over at least {NGRAM8_COVERAGE_MIN:.0%} of the item",
    OverlapKind.fuzzy: "fuzzy",
}


def _best(item: ItemOverlap) -> OverlapKind | None:
    return item.overlaps[0].kind if item.overlaps else None


def _hash_cell(sha256: str | None) -> str:
    return "not read" if sha256 is None else f"`{sha256[:16]}…`"


def _cell(text: str) -> str:
    """Return text as it can stand in a table: nothing in it is markup."""
    plain = " ".join(text.split()).replace("\\", "\\\\")
    return "".join(f"\\{char}" if char in "|`*_[]<>#" else char for char in plain)


def write(report: ContaminationReport, out: Path) -> list[Path]:
    """Write the report as JSON and as Markdown, `out` with these endings; return where. Raises InvalidRequest."""
    stem = out.with_suffix("") if out.suffix in (".json", ".md") else out
    paths = [stem.with_name(f"{stem.name}.json"), stem.with_name(f"{stem.name}.md")]
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        paths[0].write_text(report.model_dump_json(indent=2) + "\n", encoding="utf-8")
        paths[1].write_text(to_markdown(report), encoding="utf-8")
    except OSError as exc:
        raise InvalidRequest(f"{out} cannot be written: {exc.strerror or exc}") from exc
    return paths
