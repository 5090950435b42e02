"""What a run was made with, line by line, and how figures are made."""

from __future__ import annotations

from ...schemas.evaluation import Manifest, TargetSpec
from .model import RunLine
from .tables import Table
from .words import moment, number

METHODS = (
    "The unit is the problem. Answers to the same problem are one cluster, whose mean is the problem's value; asking more often adds "
    "no problem (Miller 2024, arXiv:2411.00640).",
    "Averages: problems within a subset, then subsets (macro) or problems (micro). Intervals of averages, 95 %: Wilson's where each problem "
    "was answered once and no subsets are averaged (Wilson 1927); else Wilson's at the effective number of answers, from the variance between "
    "problems within subsets, with Satterthwaite's degrees of freedom (Franco et al. 2019).",
    "Differences, and the share of the room: resampling of problems within subsets, 2,000 times from a fixed seed, the same draws for both sides "
    "(expanded percentile interval, Hesterberg 2015; p is the largest at which it would hold zero). McNemar's test is exact (McNemar 1947). Many pairs: Holm 1979.",
    "Majority@k and oracle@k from more than k samples: the mean over all choices of k of them (Chen et al. 2021, arXiv:2107.03374).",
    "Rates of the judge and of repeats: sums over problems, with the variance of a ratio by problem.",
    "An outcome counts once it has a verdict; a second one to the same question changes nothing. Outcomes that failed, or whose check crashed, "
    "may be tried again: what stands in the end counts, and all of it is paid for.",
)
"""How the figures are made, in sentences."""


def origins(runs: tuple[RunLine, ...]) -> list[Table]:
    """Return a table for each run: all that decides its figures."""
    return [_origin(run) for run in runs]


def _origin(run: RunLine) -> Table:
    rows: list[tuple[str, str]] = [("outcomes", _progress(run))]
    if run.manifest is None:
        rows.append(("manifest", "missing or unreadable"))
    else:
        rows.extend(_of_run(run.manifest))
        for spec in run.manifest.targets:
            rows.extend((f"{spec.name}: {name}", value) for name, value in _of_target(spec))
    rows.extend(("fault", fault) for fault in run.faults)
    return Table(
        key="origin",
        title=f"Run {run.name}",
        note="",
        head=("What", "Value"),
        rows=tuple(rows),
        words=2,
    )


def _progress(run: RunLine) -> str:
    return number(run.outcomes) + (" of an unknown number" if run.expected is None else f" of {run.expected:,}")


def _of_run(manifest: Manifest) -> list[tuple[str, str]]:
    return [
        ("suite", manifest.suite),
        ("suite's options", _pairs(manifest.suite_options)),
        ("problems", f"{manifest.items:,}, each asked {manifest.repeats}×"),
        ("data", f"sha256 {manifest.data_sha256}"),
        ("grader", f"sha256 {manifest.grader_sha256}"),
        ("judge of free answers", manifest.judge or "none"),
        ("k2think", manifest.k2think_version),
        ("begun", moment(manifest.created_at)),
        ("training data declared", _pairs(manifest.training_data) if manifest.training_data else "none: unknown"),
    ]


def _of_target(spec: TargetSpec) -> list[tuple[str, str]]:
    return [
        ("row", spec.row.value),
        ("model", spec.model),
        ("revision", spec.revision or "unknown"),
        ("outside models", ", ".join(spec.outside_models) or "none"),
        ("endpoint", spec.base_url or "embedded"),
        ("server", spec.server or "unknown"),
        ("sampling", _pairs(spec.sampling)),
        ("policy", "none: a plain endpoint" if spec.policy is None else _pairs(spec.policy)),
        ("prompts", f"sha256 {spec.template_sha256}" if spec.template_sha256 else "unknown"),
        ("backends", _pairs({role: f"sha256 {digest}" for role, digest in spec.backends_sha256.items()}, "unknown")),
    ]


def _pairs(values: object, nothing: str = "none") -> str:
    if not isinstance(values, dict) or not values:
        return nothing
    return ", ".join(f"{name} = {value}" for name, value in values.items())
