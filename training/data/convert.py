"""A published set into a folder of typed records: converted, without doubles, without evaluation problems, checked.

Every record that is read is either written or counted among the rejected with its reason.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue

from ...grading.overlap import text_key
from ...schemas.evaluation import OverlapKind
from .am import convert_am
from .checking import Checked, Checks
from .choices import Kind, Verify
from .converted import Converted, Rejected
from .evaluation_sets import EvaluationSets
from .folder import EXAMPLES_NAME, TASKS_NAME, DataFolder
from .guru import convert_guru
from .manifest import DataManifest, SourceFile
from .progress import Counting
from .reading import Read, file_sha256, rows_of
from .sources import Fetched, source_files

CONVERTERS: dict[Kind, Callable[[Read], Converted]] = {Kind.am: convert_am, Kind.guru: convert_guru}
PATTERNS = {Kind.am: ("*.jsonl",), Kind.guru: ("train/*.parquet", "*/train/*.parquet")}
"""Files of the data set at the hub. Guru's other folders hold evaluation sets."""


@dataclass(frozen=True, slots=True)
class ConvertOptions:
    """How to convert."""

    against: tuple[Path, ...] = ()
    """Evaluation sets to keep out: files or folders."""
    weakest: OverlapKind = OverlapKind.fuzzy
    """Weakest kind of match with them that counts."""
    verify: Verify = Verify.known
    """What becomes of answers that cannot be checked."""
    limit: int | None = None
    """Records to read at most; None = all."""
    overwrite: bool = False
    """Whether data that is in the folder already may go."""
    quiet: bool = False
    """Whether no progress is shown."""


@dataclass(frozen=True, slots=True)
class _Placed:
    place: str
    key: int
    converted: Converted


async def convert(kind: Kind, sources: Sequence[str], out: Path, options: ConvertOptions | None = None) -> DataManifest:
    """Convert files, folders or data sets at the hub (`OWNER/NAME`, `OWNER/NAME@REVISION`) into the folder `out`.

    Writes `examples.jsonl` (conversations), `tasks.jsonl` (problems), `rejects.jsonl` and `manifest.json`. Raises
    InvalidRequest, NotFound, ConfigurationError.
    """
    asked = options or ConvertOptions()
    fetched = source_files(sources, patterns=PATTERNS[kind])
    with DataFolder(out, overwrite=asked.overwrite) as folder:
        sets = EvaluationSets(asked.against, weakest=asked.weakest)
        run = _Conversion(kind, fetched, folder, sets, Checks(asked.verify), asked)
        await run.work()
        return folder.finish(
            f"convert {kind.value}",
            sources=run.sources(),
            against=sets.sources(),
            options=_told(asked, sources),
            revision=fetched.revision,
            # A set of problems has no answers to check.
            checked=dict(run.checks.told()) if kind is Kind.am else {},
        )


class _Conversion:
    """One run: what has been read, and which problems are written already."""

    def __init__(
        self,
        kind: Kind,
        fetched: Fetched,
        folder: DataFolder,
        sets: EvaluationSets,
        checks: Checks,
        options: ConvertOptions,
    ) -> None:
        self.fetched = fetched
        self.folder = folder
        self.sets = sets
        self.checks = checks
        self.options = options
        self.convert = CONVERTERS[kind]
        self.records: dict[Path, int] = dict.fromkeys(fetched.files, 0)
        self._written: set[int] = set()

    async def work(self) -> None:
        with Counting("converting", quiet=self.options.quiet) as shown:
            async for checked in self._checked():
                self._take(checked)
                rejected = self.folder.rejected.total()
                shown.tell(read=self.folder.read, written=self.folder.written, rejected=rejected)

    def sources(self) -> list[SourceFile]:
        return [
            SourceFile(name=self.fetched.name_of(file), sha256=file_sha256(file), records=count)
            for file, count in self.records.items()
        ]

    def _checked(self) -> AsyncIterator[Checked[_Placed]]:
        return self.checks.run(
            (placed, placed.converted.task, placed.converted.example.messages[-1].content)
            if placed.converted.example is not None
            else (placed, None, "")
            for placed in self._converted()
        )

    def _converted(self) -> Iterator[_Placed]:
        for read in self._rows():
            place = f"{self.fetched.name_of(read.file)}, {read.place}"
            if read.row is None:
                self.folder.reject(place, read.reason)
                continue
            try:
                made = self.convert(read)
                key = int.from_bytes(text_key(made.problem)[:8])
                self._admit(key, made)
            except Rejected as exc:
                self.folder.reject(place, exc.reason, exc.detail)
            else:
                yield _Placed(place, key, made)

    def _rows(self) -> Iterator[Read]:
        for file in self.fetched.files:
            for read in rows_of(file):
                if self.options.limit is not None and self.folder.read >= self.options.limit:
                    return
                self.records[file] += 1
                self.folder.read += 1
                yield read

    def _admit(self, key: int, made: Converted) -> None:
        if key in self._written:
            raise Rejected("duplicate_problem")
        texts = [made.problem]
        if made.example is not None:
            texts = [turn.content for turn in made.example.messages if turn.role == "user"]
        for text in texts:
            found = self.sets.found_in(text)
            if found is not None:
                raise Rejected("evaluation_problem", found)

    def _take(self, checked: Checked[_Placed]) -> None:
        placed, made = checked.of, checked.of.converted
        reason = self.checks.refuses(checked) if made.example is not None else None
        if reason is None and placed.key in self._written:
            # Its twin was checked at the same time.
            reason = "duplicate_problem"
        if reason is not None:
            self.folder.reject(placed.place, reason, "" if checked.score is None else checked.score.reason)
            return
        reward = None if checked.score is None else checked.score.value
        example = None if made.example is None else made.example.model_copy(update={"reward": reward})
        try:
            self.folder.write({EXAMPLES_NAME: example, TASKS_NAME: made.task})
        except Rejected as exc:
            self.folder.reject(placed.place, exc.reason)
            return
        self._written.add(placed.key)
        said = example or made.task
        if said is not None:
            self.folder.accept(domain=None if said.domain is None else said.domain.value, source=said.source)


def _told(options: ConvertOptions, sources: Sequence[str]) -> dict[str, JsonValue]:
    return {
        "sources": list(sources),
        "against": [str(path) for path in options.against],
        "weakest_match": options.weakest.value,
        "verify": options.verify.value,
        "limit": options.limit,
    }
