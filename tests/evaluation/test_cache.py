"""Answers that another run paid for, graded by a judge: who pays for the verdict, how often, and within which budget."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from k2think.agents.backends.simulator import Reply
from k2think.evaluation.budget import Budget
from k2think.evaluation.cache import Cache
from k2think.evaluation.records import read_run
from k2think.schemas.evaluation import Item
from k2think.schemas.scores import Domain


@pytest.fixture
def items(bench: Any, make_item: Any) -> list[Item]:
    """Free answers that no rule can decide, and a model and a judge that agree about them."""

    def reply(request: Any) -> Reply:
        if "reference answer" in request.text:
            return Reply(text='{"reason": "both name the sea", "same": true}')
        return Reply(text="<answer>the ocean</answer>")

    bench.replies.solver = reply
    return [make_item(f"f{n}", truth="into the sea", domain=Domain.science, source="hle") for n in range(4)]


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Cache]:
    with Cache(tmp_path / "cache.db") as opened:
        yield opened


async def test_a_judge_is_paid_once_for_an_answer_that_is_known(
    bench: Any, items: list[Item], cache: Cache, judge: Any
) -> None:
    await bench.run(items, name="asked", cache=cache)
    budget = Budget()
    await bench.run(items, name="judged", cache=cache, judge=judge, budget=budget)
    assert len(bench.server.calls) == 4 + 4
    assert budget.spent.calls == 4, "the verdicts, and no answer"
    # When both are wanted again
    unjudged = await bench.run(items, name="asked again", cache=cache)
    judged = await bench.run(items, name="judged again", cache=cache, judge=judge)
    # Then nobody is asked, and each has its own verdicts and costs
    assert (unjudged.cached, judged.cached) == (4, 4)
    assert len(bench.server.calls) == 4 + 4
    assert [bench.outcomes(name)["f0"].final.correct for name in ("asked again", "judged again")] == [False, True]
    assert set(bench.outcomes("asked again")["f0"].spent) == {"generator"}
    assert bench.outcomes("judged again")["f0"].spent == bench.outcomes("judged")["f0"].spent
    assert set(bench.outcomes("judged")["f0"].spent) == {"generator", "grader"}


async def test_verdicts_on_known_answers_are_within_the_budget(
    bench: Any, items: list[Item], cache: Cache, judge: Any
) -> None:
    await bench.run(items, name="asked", cache=cache)
    summary = await bench.run(items, name="judged", cache=cache, judge=judge, budget=Budget(calls=3))
    assert len(bench.server.calls) == 4 + 3
    assert (summary.cached, summary.left, summary.stopped) == (3, 1, "the budget of 3 calls would be exceeded")
    # The same budget allows nothing more, a larger one the rest
    spent = Budget(calls=3)
    assert (await bench.run(items, name="judged", cache=cache, judge=judge, budget=spent)).left == 1
    assert spent.spent.calls == 3
    assert (await bench.run(items, name="judged", cache=cache, judge=judge, budget=Budget(calls=4))).complete
    assert len(bench.server.calls) == 4 + 4
    assert len(read_run(bench.folder / "judged").outcomes) == 4


async def test_a_run_that_is_stopped_pays_no_further_verdict(
    bench: Any, items: list[Item], cache: Cache, judge: Any
) -> None:
    await bench.run(items, name="asked", cache=cache)
    asked = len(bench.server.calls)

    def reply(request: Any) -> Reply:
        os.kill(os.getpid(), signal.SIGINT)
        return Reply(text='{"reason": "both name the sea", "same": true}')

    bench.replies.solver = reply
    summary = await bench.run(items, name="judged", cache=cache, judge=judge)
    assert summary.stopped == "it was interrupted"
    assert (summary.cached, summary.left) == (1, 3)
    assert len(bench.server.calls) == asked + 1
