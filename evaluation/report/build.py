"""Runs to a report: runs of the same problems with the same grader and judge stand together, others apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ... import __version__
from ...schemas.errors import InvalidRequest
from ...schemas.evaluation import ContaminationReport
from ..published import Published
from ..records import Run
from ..statistics import Resamples
from .cautions import of_part, of_runs, of_target
from .model import PairReport, Part, Report, RunLine
from .pairs import in_rows, pair_of, pairs_of
from .sheet import Problems, Sheet, sheets_of
from .target import target_report


@dataclass(frozen=True, slots=True)
class _Key:
    """What runs must share to be compared."""

    suite: str
    data_sha256: str | None
    grader_sha256: str | None
    judge: str | None
    alone: str
    """Folder of a run without a manifest, which is like no other; empty otherwise."""


def build_report(
    runs: Sequence[Run],
    *,
    contamination: Sequence[ContaminationReport] = (),
    published: Sequence[Published] = (),
) -> Report:
    """Work out the report. Raises InvalidRequest when a file about contamination belongs to none of the runs."""
    _refuse_foreign(runs, contamination)
    by_key: dict[_Key, list[Run]] = {}
    for run in runs:
        by_key.setdefault(_key(run), []).append(run)
    parts = tuple(_part(key, together, contamination, published) for key, together in by_key.items())
    lines = tuple(_run_line(run) for run in runs)
    return Report(k2think_version=__version__, runs=lines, parts=parts, warnings=tuple(of_runs(lines, parts)))


def compare(ours: tuple[Run, str], theirs: tuple[Run, str], *, anyway: bool = False) -> PairReport:
    """Compare two targets, of one run or two. Raises InvalidRequest when that would mislead, unless `anyway`."""
    runs = [run for run, _ in (ours, theirs)]
    differing = _differing(*runs)
    if differing and not anyway:
        raise InvalidRequest(
            f"{runs[0].name} and {runs[1].name} cannot be compared: they differ in {', '.join(differing)}. "
            "Run both on the same, or add --anyway to compare the problems that both have, with a warning"
        )
    problems = Problems.of(runs)
    mine, yours = (_sheet(run, target, problems) for run, target in (ours, theirs))
    if mine.name == yours.name:
        mine, yours = (replace(sheet, name=f"{sheet.run.name}:{sheet.name}") for sheet in (mine, yours))
    pair = pair_of(mine, yours, Resamples(problems.subsets))
    if pair is None:
        raise InvalidRequest(
            f"no problem has a verdict from both {mine.name} and {yours.name}: there is nothing to compare"
        )
    loud = tuple(f"NOT THE SAME {what.upper()}: the difference may come from that" for what in differing)
    return pair.model_copy(update={"caveats": (*loud, *pair.caveats)})


def _key(run: Run) -> _Key:
    found = run.manifest
    if found is None:
        return _Key("unknown", None, None, None, str(run.folder))
    return _Key(found.suite, found.data_sha256, found.grader_sha256, found.judge, "")


def _part(
    key: _Key, runs: Sequence[Run], contamination: Sequence[ContaminationReport], published: Sequence[Published]
) -> Part:
    problems = Problems.of(runs)
    sheets = in_rows(_named([sheet for run in runs for sheet in sheets_of(run, problems)]))
    resamples = Resamples(problems.subsets)
    reports = [
        target_report(
            sheet,
            sheets,
            resamples,
            suite=key.suite,
            contamination=_about(sheet, key, contamination),
            published=published,
        )
        for sheet in sheets
    ]
    part = Part(
        suite=key.suite,
        data_sha256=key.data_sha256,
        grader_sha256=key.grader_sha256,
        judge=key.judge,
        problems=len(problems.ids),
        subsets=problems.subsets.names,
        targets=tuple(reports),
        pairs=pairs_of(sheets, resamples),
        warnings=(),
    )
    found = [*of_part(part)]
    for report, sheet in zip(reports, sheets, strict=True):
        found.extend(of_target(report, sheet))
    return part.model_copy(update={"warnings": tuple(sorted(found, key=lambda caution: not caution.loud))})


def _named(sheets: Sequence[Sheet]) -> list[Sheet]:
    """Give targets of the same name the name of their run, too."""
    numbers = Counter(sheet.name for sheet in sheets)
    return [
        replace(sheet, name=f"{sheet.run.name}:{sheet.name}") if numbers[sheet.name] > 1 else sheet for sheet in sheets
    ]


def _about(sheet: Sheet, key: _Key, contamination: Sequence[ContaminationReport]) -> ContaminationReport | None:
    own = None if sheet.spec is None else sheet.spec.name
    fitting = [one for one in contamination if one.data_sha256 == key.data_sha256 and one.target in (None, own)]
    # One that names the target says more about it than one for all.
    return next((one for one in fitting if one.target is not None), next(iter(fitting), None))


def _refuse_foreign(runs: Sequence[Run], contamination: Sequence[ContaminationReport]) -> None:
    known = {run.manifest.data_sha256 for run in runs if run.manifest is not None}
    for one in contamination:
        if one.data_sha256 not in known:
            raise InvalidRequest(
                f"the file about contamination is of other problems ({one.suite}, hash {one.data_sha256[:8]}) than the runs: "
                "make it again with `k2think eval contamination` for the suite and options of the run"
            )


def _run_line(run: Run) -> RunLine:
    manifest = run.manifest
    expected = None if manifest is None else manifest.items * manifest.repeats * len(manifest.targets)
    return RunLine(name=run.name, manifest=manifest, outcomes=len(run.outcomes), expected=expected, faults=run.faults)


def _differing(one: Run, other: Run) -> list[str]:
    if one.manifest is None or other.manifest is None:
        return ["manifests (one is missing)"]
    return [
        words
        for words, same in (
            ("problems", one.manifest.data_sha256 == other.manifest.data_sha256),
            ("grader", one.manifest.grader_sha256 == other.manifest.grader_sha256),
            ("judge", one.manifest.judge == other.manifest.judge),
        )
        if not same
    ]


def _sheet(run: Run, target: str, problems: Problems) -> Sheet:
    sheets = {sheet.name: sheet for sheet in sheets_of(run, problems)}
    if target not in sheets:
        known = ", ".join(sheets) or "none"
        raise InvalidRequest(f"run {run.name} has no target {target!r}: its targets are {known}")
    return sheets[target]
