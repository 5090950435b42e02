"""Of many made-up evaluations, how many have an interval that holds the truth: shares, differences, rates of a judge."""

from __future__ import annotations

import numpy as np
import pytest
from k2think.evaluation.statistics import Estimate, Resamples, Subsets, accuracy, difference, ratio

pytestmark = pytest.mark.timeout(600)

CASES = {
    "one answer, thirty problems": ((30,), 1, (2.0, 2.0)),
    "sixteen answers, thirty problems": ((30,), 16, (2.0, 2.0)),
    "either always or never": ((30,), 16, (0.5, 0.5)),
    "nearly all right": ((30,), 16, (8.0, 1.0)),
    "two hundred problems": ((200,), 4, (1.0, 1.0)),
    "eight small subsets": ((5,) * 8, 1, (2.0, 2.0)),
    "eight small subsets, nearly all right": ((5,) * 8, 1, (8.0, 1.0)),
    "one subset is two thirds": ((30, 30, 30, 173), 4, (4.0, 1.0)),
    "small and large": ((10, 100), 4, (9.0, 1.0)),
}
RUNS = 2_000


def held(estimate: Estimate | None, truth: float) -> bool:
    assert estimate is not None
    assert estimate.low is not None
    assert estimate.high is not None
    return estimate.low <= truth <= estimate.high


def subsets_of(sizes: tuple[int, ...]) -> Subsets:
    return Subsets.of([f"s{index}" for index, size in enumerate(sizes) for _ in range(size)])


@pytest.mark.parametrize(("sizes", "repeats", "spread"), CASES.values(), ids=CASES.keys())
def test_averages(sizes: tuple[int, ...], repeats: int, spread: tuple[float, float]) -> None:
    generator, subsets = np.random.default_rng(7), subsets_of(sizes)
    truth, hits = spread[0] / sum(spread), 0
    for _ in range(RUNS):
        skill = generator.beta(*spread, size=sum(sizes))
        values = generator.binomial(repeats, skill) / repeats
        hits += held(accuracy(values, subsets, once=repeats == 1), truth)
    assert 0.93 <= hits / RUNS <= 0.985


@pytest.mark.parametrize("repeats", [1, 4])
@pytest.mark.parametrize("sizes", [(60,), (20, 20, 80)], ids=["one subset", "three subsets"])
def test_differences(sizes: tuple[int, ...], repeats: int) -> None:
    # Two targets of like skill on the same problems, the one better by a tenth where the other is not at its best.
    generator, subsets = np.random.default_rng(11), subsets_of(sizes)
    resamples = Resamples(subsets, resamples=500)
    truth, hits = 0.1 * 0.5, 0
    for _ in range(500):
        skill = generator.beta(2, 2, size=sum(sizes))
        theirs = generator.binomial(repeats, skill) / repeats
        ours = generator.binomial(repeats, skill + 0.1 * (1 - skill)) / repeats
        hits += held(difference(ours, theirs, subsets, resamples), truth)
    assert 0.92 <= hits / 500 <= 0.985


def test_rates_of_a_judge() -> None:
    generator, hits = np.random.default_rng(13), 0
    for _ in range(RUNS):
        chances = generator.integers(0, 5, size=60).astype(float)
        bias = generator.beta(2, 6, size=60)
        hits += held(ratio(generator.binomial(chances.astype(int), bias).astype(float), chances), 0.25)
    assert 0.925 <= hits / RUNS <= 0.985
