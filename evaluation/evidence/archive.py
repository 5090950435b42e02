"""Runs as they are kept in the repository: their records without the texts, packed."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from ...schemas.errors import NotFound
from ...schemas.evaluation import Graded, Outcome
from ..records import ITEMS_NAME, MANIFEST_NAME, OUTCOMES_NAME, read_run

ENDING = ".tar.xz"


def pack(run: Path, archive: Path) -> None:
    """Write a run's manifest, items and outcomes; the outcomes lose what was said, and keep what came of it.

    The same run gives the same bytes. Raises NotFound.
    """
    found = read_run(run)
    files = {
        MANIFEST_NAME: (run / MANIFEST_NAME).read_bytes(),
        ITEMS_NAME: (run / ITEMS_NAME).read_bytes(),
        OUTCOMES_NAME: "".join(f"{_without_texts(one).model_dump_json()}\n" for one in found.everything).encode(),
    }
    archive.parent.mkdir(parents=True, exist_ok=True)
    unfinished = archive.with_name(archive.name + ".partial")
    with tarfile.open(unfinished, "w:xz", preset=9) as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    unfinished.replace(archive)


@contextmanager
def unpacked(archives: Path) -> Generator[dict[str, Path]]:
    """Give the folders of all runs that are packed in a folder, by name, as long as the context lasts. Raises NotFound."""
    found = sorted(archives.glob(f"*{ENDING}"))
    if not found:
        raise NotFound(f"{archives} holds no packed runs (*{ENDING}); `k2think eval evidence --run` makes them")
    with TemporaryDirectory(prefix="k2think-evidence-") as temporary:
        folders: dict[str, Path] = {}
        for archive in found:
            name = archive.name.removesuffix(ENDING)
            folders[name] = Path(temporary) / name
            with tarfile.open(archive, "r:xz") as tar:
                tar.extractall(folders[name], filter="data")
        yield folders


def _without_texts(outcome: Outcome) -> Outcome:
    """Return the outcome without the samples' texts, which the seeds bring back."""
    return outcome.model_copy(
        update={"final": _silent(outcome.final), "candidates": tuple(map(_silent, outcome.candidates))}
    )


def _silent(graded: Graded) -> Graded:
    return graded.model_copy(update={"text": ""})
