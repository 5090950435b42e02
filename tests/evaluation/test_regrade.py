"""Grading again: what the check crashed on, in place; everything, into a run of its own. No model is asked for its answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from harness.evaluations import SPECS, MadeUp, chosen_among, items, outcome, right_or_wrong, sample
from k2think.agents.backends.simulator import Reply
from k2think.evaluation.records import read_run
from k2think.evaluation.regrade import regrade_run
from k2think.evaluation.report.build import build_report
from k2think.schemas.errors import InvalidRequest
from k2think.schemas.evaluation import Item, Status
from k2think.schemas.scores import Domain

JUNK = Reply(text="It depends.")
SAME = Reply(text='{"reason": "both name the sea", "same": true}')


@pytest.fixture
def item(make_item: Any) -> Item:
    """A free answer that no rule can decide."""
    return make_item("free", truth="into the sea", domain=Domain.science, source="hle")


def prepare(bench: Any, verdict: Reply) -> None:
    """The model answers in words; the judge, who is shown both, says `verdict`."""

    def reply(request: Any) -> Reply:
        return verdict if "reference answer" in request.text else Reply(text="<answer>the ocean</answer>")

    bench.replies.solver = reply


async def test_a_check_that_crashed_is_made_again_in_place(bench: Any, judge: Any, item: Item) -> None:
    # Given an answer whose judge said nothing usable
    prepare(bench, JUNK)
    await bench.run([item], judge=judge)
    assert bench.outcomes()["free"].final.status is Status.ungraded
    paid = bench.outcomes()["free"].spent["grader"]
    asked = len(bench.server.calls)
    # When it is graded again, and the judge is in form
    prepare(bench, SAME)
    done = await regrade_run(bench.folder / "run", judge=judge)
    # Then it has a verdict, the judge alone was asked, and what was paid before is still there
    assert (done.graded, done.changed, done.crashed) == (1, 1, 0)
    assert bench.outcomes()["free"].final.correct
    assert len(bench.server.calls) == asked + 1
    run = read_run(bench.folder / "run")
    assert [one.spent["grader"] for one in run.replaced] == [paid]
    assert set(run.outcomes[0].spent) == {"grader"}
    assert not run.faults
    assert (await regrade_run(bench.folder / "run", judge=judge)).graded == 0


async def test_what_was_graded_again_in_place_is_still_an_honest_run(bench: Any, judge: Any, item: Item) -> None:
    prepare(bench, JUNK)
    await bench.run([item], judge=judge)
    seconds = bench.outcomes()["free"].seconds
    prepare(bench, SAME)
    await regrade_run(bench.folder / "run", judge=judge)
    report = build_report([read_run(bench.folder / "run")])
    (part,) = report.parts
    (target,) = part.targets
    assert "ledger" not in {one.code for one in part.warnings}
    assert target.spending.wall_s_per_question == seconds > 0
    assert target.spending.total.calls == len(bench.server.calls)


async def test_grading_anew_counts_nothing_twice(tmp_path: Path) -> None:
    # Given questions that failed before they were answered
    run = MadeUp(items({"a": 4}), {"best3": SPECS["best3"]})
    for one in run.items:
        failed = outcome(one, "best3", sample(None, status=Status.errored), candidates=(), chosen=None)
        run.outcomes += [failed, chosen_among(one, "best3", [right_or_wrong(True) for _ in range(3)], 0)]
    # When everything is graded again
    await regrade_run(run.write(tmp_path / "run"), out=tmp_path / "new", judge=None)
    # Then the same was spent
    before, after = (build_report([read_run(tmp_path / name)]).parts[0].targets[0] for name in ("run", "new"))
    assert after.spending == before.spending
    assert before.spending.total.calls == 4 * (1 + 3)
    assert read_run(tmp_path / "new").replaced == read_run(tmp_path / "run").replaced


async def test_grading_anew_leaves_the_first_answer_the_answer(tmp_path: Path) -> None:
    run = MadeUp(items({"a": 4}), {"single": SPECS["single"]})
    for one in run.items:
        right = str(one.task.truth)
        run.outcomes += [outcome(one, "single", sample("0")), outcome(one, "single", sample(right, right=True))]
    await regrade_run(run.write(tmp_path / "run"), out=tmp_path / "new", judge=None)
    found = read_run(tmp_path / "new")
    assert [one.final.correct for one in found.outcomes] == [False] * 4
    assert len(found.ignored) == 4


async def test_without_the_judge_of_the_run_it_is_refused(bench: Any, judge: Any, item: Item) -> None:
    prepare(bench, JUNK)
    await bench.run([item], judge=judge)
    with pytest.raises(InvalidRequest, match=r"judge then: judge: simulated, now: none"):
        await regrade_run(bench.folder / "run", judge=None)


async def test_everything_can_be_graded_anew_into_another_folder(bench: Any, judge: Any, item: Item) -> None:
    await bench.run([item], judge=None)
    prepare(bench, SAME)
    await bench.run([item], name="asked", judge=None)
    asked = len(bench.server.calls)
    assert bench.outcomes("asked")["free"].final.reason == "unjudged"
    done = await regrade_run(bench.folder / "asked", out=bench.folder / "judged", judge=judge)
    assert (done.graded, done.changed) == (1, 1)
    assert len(bench.server.calls) == asked + 1
    before, after = bench.outcomes("asked")["free"], bench.outcomes("judged")["free"]
    assert (before.final.correct, after.final.correct) == (False, True)
    assert after.spent["generator"] == before.spent["generator"]
    assert after.spent["grader"].cost > 0
    manifest = read_run(bench.folder / "judged").manifest
    assert manifest is not None
    assert manifest.judge == "judge: simulated"
    with pytest.raises(InvalidRequest, match="is not empty"):
        await regrade_run(bench.folder / "asked", out=bench.folder / "judged", judge=judge)
