"""Choosing among candidates: who is out before any judging, which answers are equal, who must be compared, who wins.

Pure functions over finished results. `pipeline.py` asks them; they know nothing of steps that still run.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from ..schemas.completion import FinishReason
from ..schemas.jobs import Comparison, SelectionReport, SolveRequest
from ..schemas.outcomes import Candidate, CheckStatus, Compared, Preference
from ..schemas.policy import Selection

Same = Callable[[Candidate, Candidate], bool | None]
"""Whether two candidates gave the same answer; None = cannot be told by quick rules, must be found out."""


@dataclass(frozen=True, slots=True)
class Field:
    """The candidates of a job, sorted into those who may win and those who may not."""

    usable: tuple[Candidate, ...] = ()
    """By index."""
    disqualified: Mapping[int, str] = field(default_factory=dict[int, str])
    """Index → why it lost before any judging."""


@dataclass(frozen=True, slots=True)
class Clusters:
    """Usable candidates grouped by equal answers."""

    groups: tuple[tuple[int, ...], ...] = ()
    """Indices, the largest group first, then the one whose first member has the lowest index."""
    undecided: tuple[tuple[int, int], ...] = ()
    """Pairs whose equality must be found out first; not empty means that `groups` is not valid."""


@dataclass(frozen=True, slots=True)
class Tournament:
    """State of the pairwise comparisons: either more pairs are needed, or there is a winner."""

    leader: int
    """Index of the incumbent after what was judged so far."""
    needed: tuple[tuple[int, int], ...] = ()
    """(first, second) pairs to judge next, in the order in which they are shown."""
    comparisons: tuple[Comparison, ...] = ()
    """What was judged so far."""

    @property
    def winner(self) -> int | None:
        """Index of the winner; None while pairs are missing."""
        return None if self.needed else self.leader


def sort_out(candidates: Sequence[Candidate], request: SolveRequest) -> Field:
    """Disqualify candidates that are cut off, empty or unparseable, and those that fail the task's own checks."""
    usable: list[Candidate] = []
    disqualified: dict[int, str] = {}
    for candidate in sorted(candidates, key=lambda item: item.index):
        reason = _disqualified_by(candidate, request)
        if reason is None:
            usable.append(candidate)
        else:
            disqualified[candidate.index] = reason
    return Field(usable=tuple(usable), disqualified=disqualified)


def _disqualified_by(candidate: Candidate, request: SolveRequest) -> str | None:
    as_is = request.policy.as_is
    if candidate.finish_reason is FinishReason.length and not as_is:
        return "cut off: the completion reached its token limit"
    if candidate.finish_reason is FinishReason.content_filter:
        return "withheld by the backend's content filter"
    if not candidate.content.strip() and not as_is:
        return "empty: no answer was given"
    if candidate.check is CheckStatus.failed:
        return f"failed the task's own check: {candidate.check_detail or 'no detail'}"
    if candidate.check is CheckStatus.error:
        return f"the task's own check could not be run: {candidate.check_detail or 'no detail'}"
    if candidate.answer is None and not request.is_chat:
        return "no final answer could be parsed"
    return None


def cluster(usable: Sequence[Candidate], same: Same) -> Clusters:
    """Group equal answers. Each candidate is held against the first member of every group, in index order."""
    groups: list[list[Candidate]] = []
    undecided: list[tuple[int, int]] = []
    for candidate in usable:
        verdicts = [same(group[0], candidate) for group in groups]
        if True in verdicts:
            groups[verdicts.index(True)].append(candidate)
            continue
        unknown = [
            (group[0].index, candidate.index)
            for group, verdict in zip(groups, verdicts, strict=True)
            if verdict is None
        ]
        undecided.extend(unknown)
        groups.append([candidate])
    if undecided:
        return Clusters(undecided=tuple(undecided))
    indices = [tuple(member.index for member in group) for group in groups]
    return Clusters(groups=tuple(sorted(indices, key=lambda group: (-len(group), group[0]))))


def has_majority(groups: Sequence[Sequence[int]], *, n: int) -> bool:
    """Whether the largest group is a strict majority of all n samples, so that no later one can change the vote."""
    return bool(groups) and 2 * len(groups[0]) > n


def play(
    entrants: Sequence[int], verdicts: Mapping[tuple[int, int], Compared | None], *, swap_order: bool
) -> Tournament:
    """Scan the entrants once: the incumbent meets each challenger in turn (K2-Think, arXiv 2509.07604, best-of-N).

    `entrants`: candidate indices, the favourite first. `verdicts`: (first, second) → result of that order; None = the
    judge failed, which counts as a tie; absent = not judged yet. With `swap_order` a pair is judged in both orders and
    a verdict that flips is a tie. The incumbent, whose cluster is never the smaller one, wins ties.
    """
    comparisons: list[Comparison] = []
    incumbent = entrants[0]
    for challenger in entrants[1:]:
        orders = [(incumbent, challenger)] + ([(challenger, incumbent)] if swap_order else [])
        missing = tuple(order for order in orders if order not in verdicts)
        judged = [_comparison(order, verdicts[order]) for order in orders if order in verdicts]
        comparisons.extend(judged)
        if missing:
            return Tournament(incumbent, needed=missing, comparisons=tuple(comparisons))
        if all(comparison.winner == challenger for comparison in judged):
            incumbent = challenger
    return Tournament(incumbent, comparisons=tuple(comparisons))


def _comparison(order: tuple[int, int], verdict: Compared | None) -> Comparison:
    first, second = order
    if verdict is None:
        return Comparison(first=first, second=second, winner=None, usable=False, reason="the judge's call failed")
    winner = {Preference.first: first, Preference.second: second, Preference.tie: None}[verdict.preference]
    return Comparison(first=first, second=second, winner=winner, usable=verdict.usable, reason=verdict.reason)


def report(
    method: Selection,
    field_: Field,
    groups: Sequence[tuple[int, ...]],
    winner: int | None,
    comparisons: Sequence[Comparison] = (),
) -> SelectionReport:
    """Put the selection on record."""
    votes = next((len(group) for group in groups if winner in group), 1 if winner is not None else 0)
    return SelectionReport(
        method=method,
        clusters=tuple(groups),
        votes=votes,
        comparisons=tuple(comparisons),
        winner=winner,
        disqualified=dict(field_.disqualified),
    )
