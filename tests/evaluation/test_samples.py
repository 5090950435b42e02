"""Majority@k and oracle@k against plain enumeration of all choices."""

from __future__ import annotations

from collections import Counter
from itertools import combinations

import pytest
from harness.evaluations import sample
from hypothesis import given, settings
from hypothesis import strategies as st
from k2think.evaluation.samples import decided_majority, majority_at, oracle_at, votes_of
from k2think.schemas.evaluation import Graded, Status

answers = st.lists(st.sampled_from(["right", "b", "c", None]), min_size=1, max_size=7)


def graded(*given_answers: str | None) -> list[Graded]:
    return [sample(answer, right=answer == "right") for answer in given_answers]


@settings(max_examples=60)
@given(answers, st.data())
def test_both_are_the_mean_over_all_choices_of_k(found: list[str | None], data: st.DataObject) -> None:
    k = data.draw(st.integers(1, len(found)))
    votes = votes_of(graded(*found))
    wins: list[float] = []
    for chosen in combinations(found, k):
        counted = Counter(answer for answer in chosen if answer is not None)
        most = max(counted.values(), default=0)
        tied = [answer for answer, number in counted.items() if number == most]
        wins.append(tied.count("right") / len(tied) if tied else 0.0)
    assert majority_at(votes, k) == pytest.approx(sum(wins) / len(wins))
    hits = ["right" in chosen for chosen in combinations(found, k)]
    assert oracle_at(votes, k) == pytest.approx(sum(hits) / len(hits))


def test_pass_at_k_by_hand() -> None:
    # 1 - C(7, 5) / C(10, 5) = 1 - 21/252.
    votes = votes_of(graded(*["right"] * 3, *["b"] * 7))
    assert oracle_at(votes, 5) == pytest.approx(1 - 21 / 252)
    assert oracle_at(votes, 11) is None


def test_a_tie_is_drawn_by_lot_and_no_vote_is_wrong() -> None:
    assert majority_at(votes_of(graded("right", "b", "c")), 3) == pytest.approx(1 / 3)
    assert majority_at(votes_of(graded(None, None, "right")), 3) == 1.0
    assert majority_at(votes_of(graded(None, None, None)), 3) == 0.0


def test_failed_samples_stay_samples() -> None:
    lost = sample(None, status=Status.errored)
    votes = votes_of([lost, lost, *graded("right")])
    assert (votes.samples, votes.right) == (3, 1)
    assert oracle_at(votes, 1) == pytest.approx(1 / 3)


def test_cancelled_samples_are_none_and_ungraded_ones_are_told_apart() -> None:
    votes = votes_of(
        [
            *graded("right"),
            sample(None, status=Status.errored, finish_reason="cancelled"),
            sample("x", status=Status.ungraded),
        ]
    )
    assert (votes.samples, votes.ungraded) == (1, 1)


def test_free_texts_cannot_vote() -> None:
    program = sample(None, right=True, status=Status.graded)
    votes = votes_of([program, program, program])
    assert majority_at(votes, 3) is None
    assert oracle_at(votes, 3) == 1.0


def test_a_vote_that_can_no_longer_be_lost_is_known_without_the_rest() -> None:
    assert decided_majority(votes_of(graded("right", "right")), 3) == 1.0
    assert decided_majority(votes_of(graded("b", "b")), 3) == 0.0
    assert decided_majority(votes_of(graded("right", "b")), 3) is None
    assert decided_majority(votes_of(graded("right")), 2) is None, "the other may draw level"


def test_many_samples_of_many_answers_are_drawn_by_lot_and_near_the_truth() -> None:
    # 40 of 64 are right: a vote of 33 is lost only when fewer right ones than of any other answer are drawn.
    votes = votes_of(graded(*["right"] * 40, *(f"wrong {number}" for number in range(24))))
    assert majority_at(votes, 33) == 1.0
    votes = votes_of(graded(*["right"] * 10, *["b"] * 10, *(f"wrong {number}" for number in range(30))))
    assert majority_at(votes, 25) == pytest.approx(0.5, abs=0.03)
    assert majority_at(votes, 25) == majority_at(votes, 25)
