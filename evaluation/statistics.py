"""How sure a figure is: intervals clustered by problem, paired differences, and what many comparisons do to them.

The unit is the problem. Several answers to one problem are one cluster: their mean is the problem's value, so that asking more
often makes a value surer but adds no problem (Miller 2024, "Adding Error Bars to Evals", arXiv:2411.00640, sections 2.2 and 3).
Problems are drawn within their subset, whose number and size the suite fixes (stratified).

Sources. Wilson 1927, JASA 22:209, for one answer each. Franco et al. 2019, J. Survey Stat. Methodol. 7:334, for the Wilson interval at the
effective sample size. Agresti & Caffo 2000, Am. Stat. 54:280, for a variance where all values are equal. Hesterberg 2015, Am. Stat.
69:371 (arXiv:1411.5279), for the expanded percentile interval. McNemar 1947, Psychometrika 12:153, exact. Holm 1979, Scand. J. Stat. 6:65.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..schemas.base import Frozen

CONFIDENCE = 0.95
RESAMPLES = 2_000
RULE_OF_THREE = "rule_of_three"
"""Method of the interval of a difference that is the same for all problems: resampling sees no chance there."""
_BISECTIONS = 60
_CELLS_AT_ONCE = 4_000_000
"""Draws of the bootstrap held in memory at the same time, before they are counted."""

Floats = NDArray[np.float64]
Weighing = Literal["macro", "micro"]
"""Every subset the same weight, or every problem."""


class Estimate(Frozen):
    """A figure with its 95 % interval."""

    value: float
    """The figure; shares as 0..1."""
    low: float | None
    """Lower end of the interval; None = there are too few problems for one."""
    high: float | None
    """Upper end; None as above."""
    se: float | None = None
    """Standard error, clustered by problem; None = not estimated."""
    problems: int
    """Problems that it rests on."""
    method: str
    """How the interval was made: `wilson`, `clustered_wilson`, `bootstrap` or `rule_of_three`."""


@dataclass(frozen=True, slots=True)
class Subsets:
    """Which problem belongs to which subset."""

    names: tuple[str, ...]
    """In the order of the alphabet."""
    members: tuple[NDArray[np.intp], ...]
    """Indices of the problems of each."""

    @classmethod
    def of(cls, labels: Sequence[str]) -> Subsets:
        """Sort problems by their labels."""
        names = tuple(sorted(set(labels)))
        every = np.array(labels, dtype=object)
        return cls(names, tuple(np.flatnonzero(every == name) for name in names))

    def known(self, values: Floats) -> list[Floats]:
        """Return the values that are known (not NaN), by subset; subsets without any are left out."""
        parts = [values[members] for members in self.members]
        kept = [part[~np.isnan(part)] for part in parts]
        return [part for part in kept if part.size]


def weighted_mean(values: Floats, subsets: Subsets, weighing: Weighing) -> float | None:
    """Return the average of problems' values; None when none is known."""
    parts = subsets.known(values)
    if not parts:
        return None
    return float(np.dot(_weights(parts, weighing), [part.mean() for part in parts]))


def accuracy(values: Floats, subsets: Subsets, *, weighing: Weighing = "macro", once: bool = False) -> Estimate | None:
    """Return the average of shares 0..1 with its interval; None when no problem's value is known.

    `values`: one a problem, NaN = not known. `once`: each rests on one answer, so that it is 0 or 1.
    """
    parts = subsets.known(values)
    if not parts:
        return None
    sizes = np.array([part.size for part in parts], dtype=np.float64)
    weights, problems = _weights(parts, weighing), int(sizes.sum())
    share = float(np.dot(weights, [part.mean() for part in parts]))
    if once and (len(parts) == 1 or weighing == "micro"):
        low, high = wilson(share, problems, normal_quantile())
        return Estimate(
            value=share,
            low=low,
            high=high,
            se=math.sqrt(share * (1 - share) / problems),
            problems=problems,
            method="wilson",
        )
    shares = weights**2 * [_variance(part) / part.size for part in parts]
    variance = float(shares.sum())
    # Satterthwaite's degrees of freedom: a small subset with much of the variance makes the whole less sure.
    degrees = variance**2 / float((shares**2 / np.maximum(sizes - 1, 1)).sum())
    by_sizes_alone = 1 / float(np.dot(weights**2, 1 / sizes))
    spread = share * (1 - share)
    size = spread / variance if spread > 0 else by_sizes_alone
    low, high = wilson(share, size, t_quantile(degrees))
    return Estimate(
        value=share, low=low, high=high, se=math.sqrt(variance), problems=problems, method="clustered_wilson"
    )


def ratio(counted: Floats, possible: Floats) -> Estimate | None:
    """Return sum(counted) / sum(possible), both by problem, with its interval; None where nothing was possible.

    For rates with several or no chances a problem, as verdicts are: the linearised variance of a ratio, clusters being problems.
    """
    chances = float(possible.sum())
    if chances == 0:
        return None
    share, problems = float(counted.sum()) / chances, int((possible > 0).sum())
    residuals = counted - share * possible
    variance = float((residuals**2).sum()) / chances**2 * problems / max(problems - 1, 1)
    size = share * (1 - share) / variance if variance > 0 and 0 < share < 1 else float(problems)
    low, high = wilson(share, size, t_quantile(max(problems - 1, 1)))
    return Estimate(
        value=share, low=low, high=high, se=math.sqrt(variance), problems=problems, method="clustered_wilson"
    )


def wilson(share: float, size: float, quantile: float) -> tuple[float, float]:
    """Return Wilson's score interval of a share; `size` is the (effective) number of independent answers."""
    squared = quantile**2 / size
    middle = (share + squared / 2) / (1 + squared)
    half = quantile / (1 + squared) * math.sqrt(share * (1 - share) / size + squared / size / 4)
    # At the ends the exact value is 0 or 1, and rounding must not leave it.
    return (0.0 if share <= 0 else max(0.0, middle - half)), (1.0 if share >= 1 else min(1.0, middle + half))


def normal_quantile(confidence: float = CONFIDENCE) -> float:
    """Return the two-sided quantile of the normal distribution (1.96 for 0.95)."""
    return NormalDist().inv_cdf((1 + confidence) / 2)


def t_quantile(degrees: float, confidence: float = CONFIDENCE) -> float:
    """Return the two-sided quantile of Student's t: within 1 % from 3 degrees of freedom on, too small below.

    The expansion of Abramowitz & Stegun 26.7.5.
    """
    return _t_of(normal_quantile(confidence), degrees)


def _t_of(z: float, degrees: float) -> float:
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92_160,
    )
    return z + sum(term / degrees**power for power, term in enumerate(terms, 1))


def _z_of(t: float, degrees: float) -> float:
    """Turn `_t_of` round, which grows with z and is never below it."""
    low, high = 0.0, t
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if _t_of(middle, degrees) < t else (low, middle)
    return low


class Resamples:
    """The bootstrap by problem: the same draws for all that is asked of it, so that differences and ratios are paired."""

    def __init__(self, subsets: Subsets, *, resamples: int = RESAMPLES, seed: int = 0) -> None:
        self._subsets = subsets
        self._resamples = resamples
        generator = np.random.default_rng(seed)
        self._counts = [_draws(generator, members.size, resamples) for members in subsets.members]

    def averages(self, values: Floats, weighing: Weighing = "macro") -> Floats:
        """Return the average of problems' values in each resample; NaN where none of it is known."""
        sums, numbers = self._sums(values), self._numbers(np.isnan(values))
        known = numbers.sum(axis=0) > 0
        sums, numbers = sums[:, known], numbers[:, known]
        with np.errstate(invalid="ignore", divide="ignore"):
            if weighing == "micro":
                return sums.sum(axis=1) / numbers.sum(axis=1)
            drawn = numbers > 0
            means = np.where(drawn, sums / numbers, 0.0)
            return means.sum(axis=1) / drawn.sum(axis=1)

    def totals(self, values: Floats) -> Floats:
        """Return the sum of problems' values in each resample; what is not known counts as nothing."""
        return self._sums(values).sum(axis=1)

    def estimate(self, value: float, distribution: Floats, values: Floats) -> Estimate:
        """Return `value` with the expanded percentile interval of its distribution; `values` tell which problems are known."""
        problems, degrees = self._freedom(values)
        bare = Estimate(value=value, low=None, high=None, problems=problems, method="bootstrap")
        if degrees < 1 or np.isnan(distribution).any():
            return bare
        tail = NormalDist().cdf(-_expansion(problems, degrees) * t_quantile(degrees))
        low, high = np.quantile(distribution, [tail, 1 - tail])
        if not (math.isfinite(low) and math.isfinite(high)):
            return bare
        return bare.model_copy(update={"low": float(low), "high": float(high), "se": float(distribution.std(ddof=1))})

    def p(self, distribution: Floats, values: Floats) -> float | None:
        """Return the two-sided p of "no difference": the largest at which `estimate`'s interval would still hold zero.

        None = there is no interval.
        """
        problems, degrees = self._freedom(values)
        if degrees < 1 or np.isnan(distribution).any():
            return None
        beyond = min(int((distribution <= 0).sum()), int((distribution >= 0).sum()))
        share = (beyond + 1) / (distribution.size + 1)
        if share >= 0.5:
            return 1.0
        t = -NormalDist().inv_cdf(share) / _expansion(problems, degrees)
        return 2 * NormalDist().cdf(-_z_of(t, degrees))

    def _freedom(self, values: Floats) -> tuple[int, int]:
        """Return how many problems are known, and the degrees of freedom that their subsets leave."""
        parts = self._subsets.known(values)
        problems = sum(part.size for part in parts)
        return problems, problems - len(parts)

    def _numbers(self, unknown: NDArray[np.bool_]) -> Floats:
        """Return how many of the problems drawn are known, by resample and subset."""
        if unknown.any():
            return self._sums(np.where(unknown, 0.0, 1.0))
        sizes = [members.size for members in self._subsets.members]
        return np.tile(np.array(sizes, dtype=np.float64), (self._resamples, 1))

    def _sums(self, values: Floats) -> Floats:
        # Single precision: the rounding is far below what 2,000 resamples can tell apart, and the product twice as fast.
        clean = np.nan_to_num(values, nan=0.0).astype(np.float32)
        columns = [counts @ clean[members] for counts, members in zip(self._counts, self._subsets.members, strict=True)]
        return np.stack(columns, axis=1).astype(np.float64)


def difference(
    ours: Floats, theirs: Floats, subsets: Subsets, resamples: Resamples, weighing: Weighing = "macro"
) -> Estimate | None:
    """Return the average of ours - theirs over the problems that both know, paired by problem; None when there is none."""
    gap = ours - theirs
    value = weighted_mean(gap, subsets, weighing)
    if value is None:
        return None
    parts = subsets.known(gap)
    weights = _weights(parts, weighing)
    if all(np.ptp(part) == 0 for part in parts):
        # No two problems of a subset differ in their gap: what n problems without a surprise allow.
        size = 1 / float(np.dot(weights**2, [1 / part.size for part in parts]))
        half = 1 - (1 - CONFIDENCE) ** (1 / size)
        low, high = max(-1.0, value - half), min(1.0, value + half)
        return Estimate(value=value, low=low, high=high, problems=sum(p.size for p in parts), method=RULE_OF_THREE)
    return resamples.estimate(value, resamples.averages(gap, weighing), gap)


def mcnemar_p(gained: int, lost: int) -> float:
    """Return the exact two-sided p of McNemar's test: `gained` problems only the one solves, `lost` only the other."""
    number, smaller = gained + lost, min(gained, lost)
    tail = ways = 1
    for count in range(smaller):
        ways = ways * (number - count) // (count + 1)
        tail += ways
    # Whole numbers until the end: 2^number is beyond a float from a thousand on.
    return min(1.0, (2 * tail) / (1 << number)) if number else 1.0


def holm(ps: Sequence[float]) -> list[float]:
    """Return the p-values adjusted for their number, in the same order."""
    order = sorted(range(len(ps)), key=lambda index: ps[index])
    adjusted, highest = [0.0] * len(ps), 0.0
    for place, index in enumerate(order):
        highest = max(highest, min(1.0, (len(ps) - place) * ps[index]))
        adjusted[index] = highest
    return adjusted


def _expansion(problems: int, degrees: int) -> float:
    """Return by how much the percentile interval is too narrow for so few problems."""
    return math.sqrt(problems / degrees)


def _weights(parts: Sequence[Floats], weighing: Weighing) -> Floats:
    sizes = np.array([part.size for part in parts], dtype=np.float64)
    return np.full(len(parts), 1 / len(parts)) if weighing == "macro" else sizes / sizes.sum()


def _variance(part: Floats) -> float:
    """Return the variance of a subset's values; where all are equal, that of a share with one success and one failure more."""
    if part.size > 1 and np.ptp(part) > 0:
        return float(part.var(ddof=1))
    smoothed = (float(part.sum()) + 1) / (part.size + 2)
    return smoothed * (1 - smoothed)


def _draws(generator: np.random.Generator, size: int, resamples: int) -> NDArray[np.float32]:
    """Return how often each of `size` problems is drawn, by resample."""
    counts = np.empty((resamples, size), dtype=np.float32)
    step = max(1, _CELLS_AT_ONCE // size)
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        cells = generator.integers(0, size, size=(rows, size)) + np.arange(rows)[:, None] * size
        counts[start : start + rows] = np.bincount(cells.ravel(), minlength=rows * size).reshape(rows, size)
    return counts
