"""Problems that must not be trained on: evaluation sets as an index, and the test of a problem against it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from ...grading.overlap import OverlapIndex, is_sign, kinds_from
from ...schemas.errors import InvalidRequest
from ...schemas.evaluation import OverlapKind
from .manifest import SourceFile
from .reading import file_sha256, files_of, rows_of
from .texts import texts_of


class EvaluationSets:
    """The problems of some evaluation sets."""

    def __init__(self, paths: Sequence[Path], *, weakest: OverlapKind = OverlapKind.fuzzy) -> None:
        """Read the sets. A match of a kind from `exact` to `weakest` counts. Raises InvalidRequest, NotFound.

        A record that cannot be read is an error: a problem that is not known cannot be kept out.
        """
        self.counted = kinds_from(weakest)
        self._records: dict[Path, int] = {}
        self._files = files_of(paths)
        self._index = OverlapIndex(self._problems())

    def __len__(self) -> int:
        """Return the number of different problems."""
        return len(self._index)

    def sources(self) -> list[SourceFile]:
        """Return the files that the problems are from."""
        return [
            SourceFile(name=str(file), sha256=file_sha256(file), records=self._records.get(file, 0))
            for file in self._files
        ]

    def found_in(self, text: str) -> str | None:
        """Return which problem is in the text, and how it was found; None = none is."""
        if not self._files:
            return None
        for match in self._index.search(text):
            if is_sign(match.kind, match.coverage, self.counted):
                return f"{match.kind.value}: {match.item}"
        return None

    def _problems(self) -> Iterator[tuple[str, str]]:
        for file in self._files:
            for read in rows_of(file):
                if read.row is None:
                    raise InvalidRequest(
                        f"{file}, {read.place} cannot be read ({read.reason}): a set to keep out must be read in full"
                    )
                self._records[file] = self._records.get(file, 0) + 1
                for place, text in texts_of(read.row, problems_only=True):
                    yield f"{file.name} {read.place} {place}", text
