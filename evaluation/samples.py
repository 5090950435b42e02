"""What several samples of one problem come to: majority@k (a vote) and oracle@k (at least one is right).

Where there are more samples than k, the mean over all choices of k of them, exactly: the unbiased estimator of pass@k
(Chen et al. 2021, arXiv:2107.03374), and the same for the vote.
"""

from __future__ import annotations

import math
import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from ..schemas.evaluation import Graded, Status

EXACT_SPLITS_MAX = 20_000
"""Ways to spread k votes over the answers up to which the vote's mean is exact."""
DRAWS = 4_000
"""Random choices of k samples above that, from a fixed seed."""
CANCELLED = "cancelled"
"""Finish reason of a sample that an early stop ended: it was not finished, so it is no sample."""


@dataclass(frozen=True, slots=True)
class Votes:
    """The samples of one problem, by answer."""

    samples: int
    """How many, those without an answer too."""
    right: int
    """How many are right."""
    groups: tuple[tuple[int, int], ...]
    """(votes, of which right) of each answer, sorted; samples without an answer do not vote."""
    ungraded: int
    """Further samples whose check crashed: they are not among `samples`."""
    voiceless: bool
    """Whether a sample was graded that has no answer to vote with (a free text): no vote can be held."""


def votes_of(samples: Sequence[Graded]) -> Votes:
    """Sort the finished samples of a problem."""
    finished = [sample for sample in samples if sample.finish_reason != CANCELLED]
    graded = [sample for sample in finished if sample.status is not Status.ungraded]
    groups: defaultdict[str, Counter[bool]] = defaultdict(Counter)
    for sample in graded:
        if sample.answer is not None:
            groups[sample.answer][sample.correct] += 1
    return Votes(
        samples=len(graded),
        right=sum(sample.correct for sample in graded),
        groups=tuple(sorted((rights.total(), rights[True]) for rights in groups.values())),
        ungraded=len(finished) - len(graded),
        voiceless=any(sample.answer is None and sample.status is Status.graded for sample in graded),
    )


def oracle_at(votes: Votes, k: int) -> float | None:
    """Return the chance that at least one of k samples is right; None when there are fewer than k."""
    if votes.samples < k:
        return None
    return 1 - math.comb(votes.samples - votes.right, k) / math.comb(votes.samples, k)


def majority_at(votes: Votes, k: int) -> float | None:
    """Return the chance that the vote of k samples is right; None when there are fewer than k, or no vote can be held.

    A tie is drawn by lot, so it counts by the share of the tied answers that are right. No vote at all is wrong.
    """
    if votes.samples < k or votes.voiceless:
        return None
    return _vote(votes.groups, votes.samples, k)


def decided_majority(votes: Votes, k: int) -> float | None:
    """Return what the vote of k comes to although fewer were sampled; None when it is still open."""
    if votes.voiceless or not votes.groups:
        return None
    most, right = votes.groups[-1]
    next_most = votes.groups[-2][0] if len(votes.groups) > 1 else 0
    missing = max(0, k - votes.samples)
    return right / most if most > next_most + missing else None


@lru_cache(maxsize=65_536)
def _vote(groups: tuple[tuple[int, int], ...], samples: int, k: int) -> float:
    sizes = [size for size, _ in groups]
    silent = samples - sum(sizes)
    if math.comb(k + len(sizes), len(sizes)) > EXACT_SPLITS_MAX:
        return _vote_by_lot(groups, silent, k)
    total = 0
    expected = 0.0
    for split in _splits([*sizes, silent], k):
        ways = math.prod(math.comb(size, taken) for size, taken in zip([*sizes, silent], split, strict=True))
        total += ways
        expected += ways * _share_of_winners(groups, split[:-1])
    return expected / total


def _vote_by_lot(groups: tuple[tuple[int, int], ...], silent: int, k: int) -> float:
    generator = random.Random(repr((groups, silent, k)))
    ballots = [index for index, (size, _) in enumerate(groups) for _ in range(size)] + [-1] * silent
    total = 0.0
    for _ in range(DRAWS):
        counted = Counter(generator.sample(ballots, k))
        total += _share_of_winners(groups, [counted[index] for index in range(len(groups))])
    return total / DRAWS


def _share_of_winners(groups: tuple[tuple[int, int], ...], split: Sequence[int]) -> float:
    most = max(split, default=0)
    if most == 0:
        return 0.0
    winners = [right / size for (size, right), taken in zip(groups, split, strict=True) if taken == most]
    return sum(winners) / len(winners)


def _splits(sizes: Sequence[int], k: int) -> Iterator[tuple[int, ...]]:
    """Walk all ways to take k from groups of these sizes."""
    if len(sizes) == 1:
        if k <= sizes[0]:
            yield (k,)
        return
    for taken in range(min(sizes[0], k) + 1):
        for rest in _splits(sizes[1:], k - taken):
            yield (taken, *rest)
