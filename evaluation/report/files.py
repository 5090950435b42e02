"""Files in, files out: what a report is made of, and where it goes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from pydantic import ValidationError

from ...schemas.errors import InvalidRequest, NotFound, explain
from ...schemas.evaluation import ContaminationReport
from ..published import read_published
from ..records import Run, read_run
from .build import build_report, compare
from .html import to_html
from .markdown import to_markdown
from .model import PairReport, Report
from .words import p_value, points, times

WRITERS: dict[str, Callable[[Report], str]] = {
    "md": to_markdown,
    "html": to_html,
    "json": lambda report: report.model_dump_json(indent=2) + "\n",
}
"""By format, which is the file's ending, too."""


def formats_of(text: str) -> tuple[str, ...]:
    """Read a list of formats. Raises InvalidRequest."""
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    if unknown := [name for name in names if name not in WRITERS]:
        raise InvalidRequest(f"--format: {unknown[0]!r} is none of {', '.join(WRITERS)}")
    return names


def report_on(folders: Sequence[Path], *, contamination: Sequence[Path], published: Sequence[Path]) -> Report:
    """Read runs and all that is held against them. Raises NotFound, InvalidRequest."""
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise InvalidRequest("a run is named twice")
    figures = [
        figure for source in (None, *published) for figure in (read_published(source) if source else read_published())
    ]
    return build_report(
        [read_run(folder) for folder in folders],
        contamination=[_contamination(path) for path in contamination],
        published=figures,
    )


def write_report(report: Report, folder: Path, formats: Sequence[str]) -> list[Path]:
    """Write `report.md` and its like; return where. Raises InvalidRequest when the folder cannot be written."""
    written: list[Path] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in formats:
            path = folder / f"report.{name}"
            path.write_text(WRITERS[name](report), encoding="utf-8")
            written.append(path)
    except OSError as exc:
        raise InvalidRequest(f"--out: {folder} cannot be written ({exc.strerror}): name another folder") from exc
    return written


def compare_targets(ours: str, theirs: str, *, anyway: bool) -> PairReport:
    """Compare two targets given as RUN:TARGET, or RUN where the run has one. Raises NotFound, InvalidRequest."""
    return compare(_target(ours), _target(theirs), anyway=anyway)


def pair_lines(pair: PairReport) -> list[str]:
    """Return a comparison as text."""
    mcnemar = f"; McNemar p {p_value(pair.mcnemar_p)}" if pair.mcnemar_p is not None else ""
    lines = [
        f"{pair.ours} − {pair.theirs}",
        f"macro average: {points(pair.difference)} points, p {p_value(pair.p)} (95 % interval, paired over {pair.difference.problems:,} problems)",
        f"micro average: {points(pair.micro)} points{mcnemar}",
        f"problems gained {pair.gained:,}, lost {pair.lost:,}; tokens a question {times(pair.tokens_ratio)}",
    ]
    return [*lines, *(f"also differs: {caveat}" for caveat in pair.caveats)]


def _target(text: str) -> tuple[Run, str]:
    """Read RUN:TARGET; both parts may hold colons, so the longest folder that exists is the run."""
    places = [place for place, char in enumerate(text) if char == ":"]
    for end in (len(text), *reversed(places)):
        folder, target = Path(text[:end]), text[end + 1 :]
        if folder.is_dir():
            run = read_run(folder)
            return run, target or _only_target(run)
    raise NotFound(f"{text!r}: there is no such run's folder; give FOLDER:TARGET")


def _only_target(run: Run) -> str:
    manifest = () if run.manifest is None else run.manifest.targets
    names = sorted({*(spec.name for spec in manifest), *(outcome.target for outcome in run.outcomes)})
    if len(names) != 1:
        raise InvalidRequest(
            f"run {run.name} has {len(names)} targets ({', '.join(names)}): say which, {run.folder}:TARGET"
        )
    return names[0]


def _contamination(path: Path) -> ContaminationReport:
    try:
        return ContaminationReport.model_validate_json(path.read_bytes())
    except OSError as exc:
        raise NotFound(
            f"{path} cannot be read ({exc.strerror}): name a file that `k2think eval contamination` wrote"
        ) from exc
    except ValidationError as exc:
        raise InvalidRequest(f"{path} is no report on contamination: {explain(exc)}") from exc
