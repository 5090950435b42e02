"""Figures and their intervals: against values worked out by hand, properties, and how often an interval holds the truth."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from k2think.evaluation.statistics import (
    Estimate,
    Resamples,
    Subsets,
    accuracy,
    difference,
    holm,
    mcnemar_p,
    normal_quantile,
    ratio,
    t_quantile,
    weighted_mean,
    wilson,
)

shares = st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=1, max_size=30)


def ends(estimate: Estimate | None) -> tuple[float, float]:
    assert estimate is not None
    assert estimate.low is not None
    assert estimate.high is not None
    return estimate.low, estimate.high


def array(*values: float | None) -> np.ndarray:
    return np.array([math.nan if value is None else value for value in values])


def one_subset(values: np.ndarray) -> Subsets:
    return Subsets.of(["all"] * len(values))


# ---- Averages


def test_macro_gives_every_subset_the_same_weight_and_micro_every_problem() -> None:
    values, subsets = array(1, 1, 1, 0, 0, 1), Subsets.of(["a", "a", "a", "a", "b", "b"])
    assert weighted_mean(values, subsets, "macro") == pytest.approx((3 / 4 + 1 / 2) / 2)
    assert weighted_mean(values, subsets, "micro") == pytest.approx(4 / 6)


def test_what_is_not_known_is_left_out_and_a_subset_without_anything_known_too() -> None:
    values, subsets = array(1, None, 0, None), Subsets.of(["a", "a", "b", "c"])
    assert weighted_mean(values, subsets, "macro") == pytest.approx(0.5)
    assert weighted_mean(array(None), Subsets.of(["a"]), "macro") is None
    assert accuracy(array(None), Subsets.of(["a"])) is None


# ---- Intervals of shares


def test_one_answer_each_has_wilsons_interval() -> None:
    # 10 of 100, from Wilson's formula by hand: (p + z²/2n ± z sqrt(p(1-p)/n + z²/4n²)) / (1 + z²/n), z = 1.959964.
    values = array(*[1.0] * 10, *[0.0] * 90)
    found = accuracy(values, one_subset(values), once=True)
    assert found is not None
    assert found.method == "wilson"
    assert ends(found) == (pytest.approx(0.055229, abs=1e-6), pytest.approx(0.174366, abs=1e-6))
    assert found.se == pytest.approx(0.03)


def test_all_right_is_not_certain() -> None:
    values = array(*[1.0] * 10)
    low, high = ends(accuracy(values, one_subset(values), once=True))
    # Wilson at the end: n / (n + z²).
    assert (low, high) == (pytest.approx(10 / (10 + 1.959964**2), abs=1e-6), 1.0)
    low, high = ends(accuracy(values, one_subset(values)))
    assert 0.6 < low < 10 / (10 + 1.959964**2)
    assert high == 1.0


def test_repeats_of_a_problem_are_one_cluster() -> None:
    # Four problems, two always solved, two never: the standard error is that of four values, sqrt(s²/n) = sqrt((1/3)/4),
    # however often each was asked.
    values = array(1, 1, 0, 0)
    found = accuracy(values, one_subset(values))
    assert found is not None
    assert found.se == pytest.approx(math.sqrt(1 / 12))
    # Were the sixteen answers to each independent, the interval would be a quarter as wide.
    low, high = ends(found)
    naive = wilson(0.5, 64, normal_quantile())
    assert high - low > 3 * (naive[1] - naive[0])


def test_the_clustered_interval_is_wilsons_at_the_effective_size() -> None:
    values = array(1, 0.5, 0.5, 0.75, 0.25, 1)
    found = accuracy(values, one_subset(values))
    assert found is not None
    mean = 4 / 6
    variance = sum((value - mean) ** 2 for value in values) / 5 / 6
    expected = wilson(mean, mean * (1 - mean) / variance, t_quantile(5))
    assert ends(found) == pytest.approx(expected)


def test_the_variance_of_a_macro_average_adds_up_over_subsets() -> None:
    values = array(1, 0, 1, 1, 0.5, 0.5, 1, 0)
    subsets = Subsets.of(["a", "a", "a", "a", "b", "b", "b", "b"])
    found = accuracy(values, subsets)
    assert found is not None
    variances = [float(np.var(part, ddof=1)) / 4 for part in (values[:4], values[4:])]
    assert found.se == pytest.approx(math.sqrt(sum(variances) / 4))


@settings(max_examples=40)
@given(shares, st.booleans())
def test_an_interval_holds_its_value_and_stays_within_0_and_1(values: list[float], split: bool) -> None:
    labels = [("a", "b")[split and index % 2] for index in range(len(values))]
    found = accuracy(array(*values), Subsets.of(labels))
    low, high = ends(found)
    assert found is not None
    assert 0 <= low <= found.value + 1e-12
    assert found.value - 1e-12 <= high <= 1
    assert high > low


@settings(max_examples=30)
@given(shares)
def test_swapping_right_and_wrong_mirrors_the_interval(values: list[float]) -> None:
    one, other = (ends(accuracy(part, one_subset(part))) for part in (array(*values), 1 - array(*values)))
    assert one == pytest.approx((1 - other[1], 1 - other[0]))


@settings(max_examples=40)
@given(st.integers(1, 10_000), st.data())
def test_more_answers_make_wilsons_interval_narrower(size: int, data: st.DataObject) -> None:
    share = data.draw(st.integers(0, size)) / size
    widths = [high - low for low, high in (wilson(share, size * factor, 1.96) for factor in (1, 2, 10))]
    assert all(wide > narrow for wide, narrow in pairwise(widths))


def test_quantiles() -> None:
    assert normal_quantile() == pytest.approx(1.959964, abs=1e-6)
    # Tables of Student's t, two-sided 5 %.
    for degrees, expected in ((3, 3.182), (5, 2.571), (10, 2.228), (30, 2.042), (1000, 1.962)):
        assert t_quantile(degrees) == pytest.approx(expected, rel=0.005)


# ---- Rates with several chances a problem


def test_a_ratio_pools_chances_and_clusters_by_problem() -> None:
    found = ratio(array(1, 0, 2, 1), array(2, 1, 2, 1))
    assert found is not None
    assert found.value == pytest.approx(4 / 6)
    # By hand: residuals 1 - 4/3, 0 - 2/3, 2 - 4/3, 1 - 2/3; their squares add up to 10/9; 10/9 / 36 * 4/3.
    assert found.se == pytest.approx(math.sqrt(10 / 9 / 36 * 4 / 3))
    assert found.problems == 4
    assert ratio(array(0, 0), array(0, 0)) is None


def test_a_rate_of_none_of_many_is_not_certain_either() -> None:
    low, high = ends(ratio(array(*[0] * 20), array(*[3] * 20)))
    assert low == 0.0
    assert 0.1 < high < 0.25, "twenty problems, not sixty verdicts"


# ---- Differences


def test_a_difference_is_paired_by_problem() -> None:
    # Skill varies wildly between problems, and ours is better on each fifth problem by one.
    theirs = array(*([0.0, 1.0] * 100))
    ours = theirs.copy()
    ours[::20] = 1.0
    subsets = one_subset(theirs)
    resamples = Resamples(subsets)
    found = difference(ours, theirs, subsets, resamples)
    assert found is not None
    assert found.value == pytest.approx(0.05)
    low, high = ends(found)
    assert 0.01 < low < 0.05 < high < 0.1, "unpaired it would be ± 0.1"
    p = resamples.p(resamples.averages(ours - theirs), ours - theirs)
    assert p is not None
    assert p < 0.05


def test_equal_targets_differ_by_zero_with_what_so_many_problems_allow() -> None:
    values = array(*[1.0, 0.0] * 50)
    subsets = one_subset(values)
    found = difference(values, values, subsets, Resamples(subsets, resamples=50))
    assert found is not None
    assert (found.value, found.method) == (0.0, "rule_of_three")
    assert ends(found) == (pytest.approx(-0.0295, abs=1e-3), pytest.approx(0.0295, abs=1e-3))


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=4, max_size=40))
def test_a_difference_turned_round_has_the_other_sign(pairs: list[tuple[bool, bool]]) -> None:
    ours, theirs = array(*(float(a) for a, _ in pairs)), array(*(float(b) for _, b in pairs))
    subsets = one_subset(ours)
    resamples = Resamples(subsets, resamples=200)
    one, other = difference(ours, theirs, subsets, resamples), difference(theirs, ours, subsets, resamples)
    assert ends(one) == pytest.approx((-ends(other)[1], -ends(other)[0]), abs=1e-6)


def test_only_problems_that_both_know_count() -> None:
    subsets = Subsets.of(["a"] * 4)
    found = difference(array(1, 1, None, 0), array(0, 1, 1, None), subsets, Resamples(subsets, resamples=50))
    assert found is not None
    assert (found.value, found.problems) == (0.5, 2)
    assert difference(array(1, None), array(None, 1), Subsets.of(["a", "a"]), Resamples(Subsets.of(["a", "a"]))) is None


@pytest.mark.parametrize(
    ("gained", "lost", "same"),
    [(3, 0, 1), (5, 0, 2), (6, 0, 194), (5, 0, 195), (9, 1, 190), (9, 3, 28), (20, 9, 171), (15, 15, 70), (3, 12, 25)],
)
def test_a_p_and_the_interval_say_the_same(gained: int, lost: int, same: int) -> None:
    gap = array(*[1.0] * gained, *[-1.0] * lost, *[0.0] * same)
    subsets = one_subset(gap)
    resamples = Resamples(subsets)
    averages = resamples.averages(gap)
    low, high = ends(resamples.estimate(float(gap.mean()), averages, gap))
    p, turned = resamples.p(averages, gap), resamples.p(-averages, -gap)
    assert p is not None
    assert (p < 0.05) == (low > 0 or high < 0)
    assert p == pytest.approx(turned)


def test_many_problems_have_the_p_of_the_normal_distribution() -> None:
    gap = np.random.default_rng(3).normal(0.1, 1.0, 400)
    resamples = Resamples(one_subset(gap), resamples=20_000)
    z = float(gap.mean()) / (float(gap.std(ddof=1)) / math.sqrt(400))
    expected = math.erfc(z / math.sqrt(2))
    assert 0.001 < expected < 0.2
    assert resamples.p(resamples.averages(gap), gap) == pytest.approx(expected, rel=0.25)


def test_without_an_interval_there_is_no_p() -> None:
    gap = array(1.0, 0.0)
    subsets = Subsets.of(["a", "b"])
    resamples = Resamples(subsets)
    assert resamples.p(resamples.averages(gap), gap) is None


def test_mcnemar_is_the_exact_binomial() -> None:
    # Nine discordant pairs, one against eight: 2 * (C(9,0) + C(9,1)) / 2^9.
    assert mcnemar_p(8, 1) == pytest.approx(2 * 10 / 512)
    assert mcnemar_p(1, 8) == mcnemar_p(8, 1)
    assert mcnemar_p(5, 5) == 1.0
    assert mcnemar_p(0, 0) == 1.0
    assert 0 < mcnemar_p(1500, 1200) < 1e-6, "beyond what a float holds as 2^n"


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


# ---- The bootstrap


def test_resampling_draws_within_subsets() -> None:
    # The subsets' values differ, but not those within: every resample has the same macro average.
    values, subsets = array(1, 1, 1, 0, 0), Subsets.of(["a", "a", "a", "b", "b"])
    resamples = Resamples(subsets, resamples=100)
    assert np.unique(resamples.averages(values)).tolist() == [0.5]
    assert np.unique(resamples.averages(values, "micro")).tolist() == [0.6]


def test_the_bootstrap_has_the_standard_error_of_theory() -> None:
    generator = np.random.default_rng(5)
    values = generator.random(400)
    resamples = Resamples(one_subset(values), resamples=1_500)
    expected = float(values.std(ddof=1)) / math.sqrt(400)
    assert float(resamples.averages(values).std()) == pytest.approx(expected, rel=0.08)


def test_the_same_seed_makes_the_same_interval() -> None:
    values = np.random.default_rng(1).random(50)
    first, second = (Resamples(one_subset(values), resamples=50).averages(values) for _ in range(2))
    assert first.tolist() == second.tolist()


def test_many_problems_are_drawn_in_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(1).random(50)
    monkeypatch.setattr("k2think.evaluation.statistics._CELLS_AT_ONCE", 120)
    averages = Resamples(one_subset(values), resamples=101).averages(values)
    assert averages.shape == (101,)
    assert len(set(averages.tolist())) > 90


def test_too_few_problems_have_no_bootstrap_interval() -> None:
    values, subsets = array(1, 0), Subsets.of(["a", "b"])
    resamples = Resamples(subsets, resamples=20)
    found = resamples.estimate(0.5, resamples.averages(values), values)
    assert (found.value, found.low, found.high) == (0.5, None, None)


# ---- Coverage: see test_coverage.py for more


def test_intervals_hold_the_truth_and_those_that_take_answers_for_problems_do_not() -> None:
    # Given thirty problems of different difficulty, each asked sixteen times, and the same evaluation made 200 times
    generator = np.random.default_rng(7)
    clustered = naive = 0
    for _ in range(200):
        values = generator.binomial(16, generator.beta(2, 2, size=30)) / 16
        # When an interval is made of it
        low, high = ends(accuracy(values, one_subset(values)))
        clustered += low <= 0.5 <= high
        low, high = wilson(float(values.mean()), 30 * 16, normal_quantile())
        naive += low <= 0.5 <= high
    # Then about 95 % hold the truth: three standard errors of 200 tries below that is 90 %
    assert clustered / 200 > 0.9
    assert naive / 200 < 0.75
