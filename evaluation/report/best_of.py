"""Best-of-N beside what it must be held against: a plain vote of the same samples, and an oracle."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ...schemas.evaluation import Outcome, Row
from ..samples import CANCELLED, Votes, decided_majority, majority_at, oracle_at, votes_of
from ..statistics import Estimate, Floats, Resamples, accuracy, difference, weighted_mean
from .model import BestOf
from .sheet import Sheet, finished_samples


def best_of(sheet: Sheet, others: Sequence[Sheet], resamples: Resamples) -> tuple[BestOf, ...]:
    """Return what votes and oracles make of a target's samples. `others`: the targets of its part, itself included."""
    if sheet.samples > 1:
        return (_of_candidates(sheet, others, resamples),)
    sizes = {other.samples for other in others if other.model == sheet.model and other.samples > 1}
    wanted = sorted({n for n in sizes if n <= sheet.repeats} | ({sheet.repeats} if sheet.repeats > 1 else set()))
    return tuple(_of_repeats(sheet, n) for n in wanted)


def oracle_of_repeats(sheet: Sheet, n: int) -> Floats:
    """Return oracle@n of each problem, with its repeats as samples."""
    return sheet.column(lambda answers: oracle_at(votes_of([outcome.final for outcome in answers]), n))


def _of_repeats(sheet: Sheet, n: int) -> BestOf:
    oracle = oracle_of_repeats(sheet, n)
    majority = sheet.column(lambda answers: majority_at(votes_of([outcome.final for outcome in answers]), n))
    return BestOf(
        n=n,
        of=f"the {sheet.repeats} repeats, asked independently",
        one=_estimate(sheet, sheet.values),
        majority=_estimate(sheet, majority),
        oracle=_estimate(sheet, oracle),
        room_note="nothing chooses among repeats",
        left_out=_unknown(oracle),
    )


def _of_candidates(sheet: Sheet, others: Sequence[Sheet], resamples: Resamples) -> BestOf:
    n, values = sheet.samples, sheet.values
    early = any(_cut_short(outcome, n) for outcome in sheet.outcomes)
    one = None if early else sheet.column(_mean(lambda outcome: _one(_votes(outcome, n))))
    majority = sheet.column(_mean(lambda outcome: _majority(outcome, n)))
    oracle = sheet.column(_mean(lambda outcome: _oracle(outcome, n)))
    vote = _estimate(sheet, majority)
    room, note = _room(sheet, others, resamples, one=one, oracle=None if early else oracle)
    return BestOf(
        n=n,
        of="its own samples",
        one=None if one is None else _estimate(sheet, one),
        majority=vote,
        oracle=_estimate(sheet, oracle),
        oracle_is_least=early,
        chosen=_estimate(sheet, values),
        over_vote=None if vote is None else difference(values, majority, sheet.problems.subsets, resamples),
        room=room,
        room_note=note,
        left_out=max(_unknown(oracle), _unknown(majority) if vote is not None else 0),
    )


def _room(
    sheet: Sheet, others: Sequence[Sheet], resamples: Resamples, *, one: Floats | None, oracle: Floats | None
) -> tuple[Estimate | None, str]:
    """Return which share of the way from the single sample to the oracle the target goes, and what these are."""
    single = next((other for other in others if other.row is Row.single and other.model == sheet.model), None)
    notes: list[str] = []
    if single is not None:
        low, base = single.values, f"single sample: {single.name}"
    elif one is not None:
        low, base = one, "single sample: the mean of its own samples"
    else:
        return None, "unknown: no single sample of this model is in the report, and early stops depend on the samples"
    if oracle is not None:
        notes.append(f"oracle@{sheet.samples}: of its own samples")
    elif single is not None and single.repeats >= sheet.samples:
        oracle = oracle_of_repeats(single, sheet.samples)
        notes.append(f"oracle@{sheet.samples}: of the repeats of {single.name}, without a plan")
    elif (whole := next((other for other in others if _like(other, sheet)), None)) is not None:
        oracle = whole.column(_mean(lambda outcome: _oracle(outcome, sheet.samples)))
        notes.append(f"oracle@{sheet.samples}: of the samples of {whole.name}, which stops none early")
    else:
        return None, f"unknown: early stops left samples out; {sheet.samples} repeats of the single sample would tell"
    together = sheet.values + low + oracle
    columns = [np.where(np.isnan(together), np.nan, column) for column in (sheet.values, low, oracle)]
    averages = [weighted_mean(column, sheet.problems.subsets, "macro") for column in columns]
    if None in averages:
        return None, "unknown: no problem has all three"
    reached, start, end = (float(average or 0.0) for average in averages)
    if end <= start:
        return None, "there is no room: the oracle is no better than the single sample"
    top, bottom, ceiling = (resamples.averages(column) for column in columns)
    with np.errstate(invalid="ignore", divide="ignore"):
        # Where a resample has no room the share has no meaning: an interval that such resamples reach is not given.
        shares = np.where(ceiling > bottom, (top - bottom) / (ceiling - bottom), np.nan)
    return resamples.estimate((reached - start) / (end - start), shares, columns[0]), "; ".join([base, *notes])


def _like(other: Sheet, sheet: Sheet) -> bool:
    """Return whether another target took as many samples in the same way, all of them to the end."""
    same = (other.model, other.samples, _planned(other)) == (sheet.model, sheet.samples, _planned(sheet))
    return same and not any(_cut_short(outcome, other.samples) for outcome in other.outcomes)


def _planned(sheet: Sheet) -> bool:
    return any(outcome.planned for outcome in sheet.outcomes)


def _estimate(sheet: Sheet, column: Floats) -> Estimate | None:
    known = column[~np.isnan(column)]
    binary = bool(np.isin(known, (0.0, 1.0)).all()) and sheet.once
    return accuracy(column, sheet.problems.subsets, once=binary)


def _unknown(column: Floats) -> int:
    return int(np.isnan(column).sum())


def _mean(of: Callable[[Outcome], float | None]) -> Callable[[tuple[Outcome, ...]], float | None]:
    """Return the function that averages over a problem's outcomes, those left out where there is no value."""

    def mean(answers: tuple[Outcome, ...]) -> float | None:
        known = [value for outcome in answers if (value := of(outcome)) is not None]
        return sum(known) / len(known) if known else None

    return mean


def _cut_short(outcome: Outcome, n: int) -> bool:
    cancelled = any(sample.finish_reason == CANCELLED for sample in outcome.candidates)
    return (outcome.stopped_early or cancelled) and finished_samples(outcome) < n


def _votes(outcome: Outcome, n: int) -> Votes:
    """Return the samples' votes; samples that failed without leaving a record are samples without an answer."""
    found = votes_of(outcome.candidates)
    lost = 0 if _cut_short(outcome, n) else max(0, n - found.samples - found.ungraded)
    return Votes(found.samples + lost, found.right, found.groups, found.ungraded, found.voiceless)


def _one(votes: Votes) -> float | None:
    return votes.right / votes.samples if votes.samples else None


def _majority(outcome: Outcome, n: int) -> float | None:
    votes = _votes(outcome, n)
    return majority_at(votes, n) if votes.samples >= n else decided_majority(votes, n)


def _oracle(outcome: Outcome, n: int) -> float | None:
    votes = _votes(outcome, n)
    if votes.samples >= n:
        return oracle_at(votes, n)
    return float(votes.right > 0) if _cut_short(outcome, n) or votes.right else None
