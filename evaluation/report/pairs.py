"""Targets compared with each other, problem by problem, and all else in which they differ."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

from pydantic import JsonValue

from ...schemas.evaluation import Row, TargetSpec
from ..statistics import RULE_OF_THREE, Estimate, Resamples, difference, holm, mcnemar_p
from .model import PairReport
from .sheet import Sheet, label_of
from .spending import tokens_per_question

MANY_PAIRS = 5
"""Pairs from which a report warns that some differences arise by chance."""
SEEDS = frozenset({"seed", "base_seed"})
"""Sampling that may differ: other seeds are other draws of the same."""
_ORDER = {Row.single: 0, Row.self_scaffold: 1, Row.outside_scaffold: 2}


@dataclass(frozen=True, slots=True)
class _Pair:
    ours: Sheet
    theirs: Sheet
    difference: Estimate
    micro: Estimate
    p: float | None
    gained: int
    lost: int
    mcnemar: float | None


def in_rows(sheets: Sequence[Sheet]) -> list[Sheet]:
    """Return the targets by model, then row: the order of every table."""
    models = list(dict.fromkeys(sheet.model for sheet in sheets))
    return sorted(sheets, key=lambda sheet: (models.index(sheet.model), place_of(sheet.row)))


def place_of(row: Row | None) -> int:
    """Return the row's place among a model's rows; unknown ones are last."""
    return len(_ORDER) if row is None else _ORDER[row]


def pairs_of(sheets: Sequence[Sheet], resamples: Resamples) -> tuple[PairReport, ...]:
    """Compare the rows of each model, and the models in each row. A model's scaffold and another's single sample are not."""
    chosen = [pair for theirs, ours in _fair(sheets) if (pair := _pair(ours, theirs, resamples)) is not None]
    return _reports(chosen)


def pair_of(ours: Sheet, theirs: Sheet, resamples: Resamples) -> PairReport | None:
    """Compare any two targets of the same problems; None when no problem has a verdict from both."""
    pair = _pair(ours, theirs, resamples)
    return None if pair is None else _reports([pair])[0]


def _fair(sheets: Sequence[Sheet]) -> Iterator[tuple[Sheet, Sheet]]:
    for theirs, ours in combinations(in_rows(sheets), 2):
        if theirs.spec is not None and ours.spec is not None and (theirs.model == ours.model or theirs.row == ours.row):
            yield theirs, ours


def _pair(ours: Sheet, theirs: Sheet, resamples: Resamples) -> _Pair | None:
    mine, yours, subsets = ours.values, theirs.values, ours.problems.subsets
    macro = difference(mine, yours, subsets, resamples)
    micro = difference(mine, yours, subsets, resamples, weighing="micro")
    if macro is None or micro is None:
        return None
    gap = mine - yours
    gained, lost = int((gap > 0).sum()), int((gap < 0).sum())
    mcnemar = mcnemar_p(gained, lost) if ours.once and theirs.once else None
    p = mcnemar if macro.method == RULE_OF_THREE else resamples.p(resamples.averages(gap), gap)
    return _Pair(ours, theirs, macro, micro, p, gained, lost, mcnemar)


def _reports(pairs: Sequence[_Pair]) -> tuple[PairReport, ...]:
    adjusted = iter(holm([pair.p for pair in pairs if pair.p is not None]))
    return tuple(_report(pair, None if pair.p is None else next(adjusted)) for pair in pairs)


def _report(pair: _Pair, p_holm: float | None) -> PairReport:
    ours, theirs = (tokens_per_question(sheet) for sheet in (pair.ours, pair.theirs))
    ratio = ours / theirs if ours and theirs else None
    return PairReport(
        ours=pair.ours.name,
        theirs=pair.theirs.name,
        difference=pair.difference,
        micro=pair.micro,
        p=pair.p,
        p_holm=p_holm,
        mcnemar_p=pair.mcnemar,
        gained=pair.gained,
        lost=pair.lost,
        tokens_ratio=ratio,
        same_prompts=_same_prompts(pair.ours.spec, pair.theirs.spec),
        caveats=tuple(_caveats(pair.ours, pair.theirs)),
    )


def _caveats(ours: Sheet, theirs: Sheet) -> Iterator[str]:
    """Say what else differs, so that the difference is not laid to one cause alone."""
    mine, yours = ours.spec, theirs.spec
    if mine is None or yours is None:
        yield "a manifest is missing: what else differs is unknown"
        return
    if mine.model != yours.model and mine.row != yours.row:
        yield f"different models in different rows ({label_of(mine)}; {label_of(yours)}): not a comparison of the models"
    if ours.samples != theirs.samples:
        yield f"{ours.samples} against {theirs.samples} samples a problem"
    if set(mine.outside_models) != set(yours.outside_models):
        yield "outside models: " + " against ".join(", ".join(spec.outside_models) or "none" for spec in (mine, yours))
    if mine.model == yours.model and mine.revision != yours.revision:
        yield f"revisions of the model: {_told(mine.revision)} against {_told(yours.revision)}"
    yield from _differing("sampling", mine.sampling, yours.sampling)
    if mine.template_sha256 != yours.template_sha256:
        yield f"prompts: hash {_short(mine)} against {_short(yours)}"
    if mine.row == yours.row:
        yield from _differing("policy", mine.policy or {}, yours.policy or {})
    yield from _differing("backends", *_shared_backends(mine, yours))
    if mine.server != yours.server:
        yield f"servers: {_told(mine.server)} against {_told(yours.server)}"
    if ours.run.manifest is not None and theirs.run.manifest is not None:
        versions = [sheet.run.manifest.k2think_version for sheet in (ours, theirs) if sheet.run.manifest is not None]
        if len(set(versions)) > 1:
            yield f"versions of k2think: {' against '.join(versions)}"


def _same_prompts(mine: TargetSpec | None, yours: TargetSpec | None) -> bool | None:
    if mine is None or yours is None or mine.template_sha256 is None or yours.template_sha256 is None:
        return None
    return mine.template_sha256 == yours.template_sha256


def _differing(what: str, mine: dict[str, JsonValue], yours: dict[str, JsonValue]) -> Iterator[str]:
    names = [name for name in sorted({*mine, *yours} - SEEDS) if mine.get(name) != yours.get(name)]
    if names:
        told = ", ".join(f"{name} {_told(mine.get(name))} against {_told(yours.get(name))}" for name in names)
        yield f"{what}: {told}"


def _shared_backends(mine: TargetSpec, yours: TargetSpec) -> Iterator[dict[str, JsonValue]]:
    """Yield the backends of the roles that both have; none where the models differ, and with them the backends."""
    same = (mine.model, mine.revision) == (yours.model, yours.revision)
    roles = mine.backends_sha256.keys() & yours.backends_sha256.keys() if same else set[str]()
    for spec in (mine, yours):
        yield {role: f"hash {spec.backends_sha256[role][:8]}" for role in roles}


def _short(spec: TargetSpec) -> str:
    return spec.template_sha256[:8] if spec.template_sha256 else "unknown"


def _told(value: JsonValue) -> str:
    return "not told" if value is None else str(value)
