"""How a choice is told: by votes where answers were grouped, by comparisons where a judge chose."""

from __future__ import annotations

import pytest
from k2think.cli.job_text import choice_line, result_lines
from k2think.schemas.jobs import Comparison, JobStatus, SelectionReport, SolveResult
from k2think.schemas.policy import Selection


def judged(*pairs: tuple[int, int]) -> tuple[Comparison, ...]:
    return tuple(Comparison(first=a, second=b, winner=0, usable=True, reason="") for a, b in pairs)


@pytest.mark.parametrize(
    ("selection", "summary", "shown"),
    [
        (
            SelectionReport(
                method=Selection.pairwise,
                votes=1,
                comparisons=judged((0, 1), (0, 2), (0, 3)),
                winner=0,
                disqualified={4: "empty"},
            ),
            "chosen among 5 finished candidates, 3 comparisons",
            "pairwise, candidate 0 of 5, 1 out, 3 comparisons",
        ),
        (
            SelectionReport(
                method=Selection.consensus_then_pairwise,
                clusters=((0,), (1,)),
                votes=1,
                comparisons=judged((0, 1)),
                winner=0,
            ),
            "1 of 2 finished candidates agree, 1 comparison",
            "consensus_then_pairwise, candidate 0 with 1 vote, groups of 1 / 1, 1 comparison",
        ),
        (
            SelectionReport(method=Selection.vote, clusters=((0, 1, 2),), votes=3, winner=0),
            "3 of 3 finished candidates agree",
            "vote, candidate 0 with 3 votes, groups of 3",
        ),
        (
            SelectionReport(method=Selection.first, votes=1, winner=0),
            "1 candidate",
            "first, candidate 0 of 1",
        ),
    ],
)
def test_a_choice_is_told_with_its_candidates(selection: SelectionReport, summary: str, shown: str) -> None:
    assert choice_line(selection) == summary
    result = SolveResult(job_id="j", status=JobStatus.succeeded, selection=selection)
    assert f"selection  {shown}" in result_lines(result)
