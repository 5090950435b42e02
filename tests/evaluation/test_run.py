"""A run against a live endpoint: what is written, what is asked again, and when it stops."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import k2think.evaluation.preflight as preflight
import pytest
from k2think.agents.backends.simulator import Fault, FaultKind, Reply
from k2think.evaluation.budget import Budget
from k2think.evaluation.cache import Cache
from k2think.evaluation.records import read_run
from k2think.schemas.errors import ConfigurationError, InvalidRequest, Unreachable
from k2think.schemas.evaluation import Item, Status
from k2think.schemas.scores import Domain

REFUSED = Reply(fault=Fault(FaultKind.status, status=400, message="not this one"))


@pytest.fixture
def items(make_item: Any) -> list[Item]:
    return [make_item(f"q{number}") for number in range(8)]


# --- what is written ----------------------------------------------------------------------------------------------


async def test_outcomes_tell_apart_what_became_of_an_answer(bench: Any, make_item: Any, judge: Any) -> None:
    # Given replies of every kind, and a free answer whose judge gives no verdict
    names = ("right", "wrong", "silent", "cut", "broken", "odd")
    items = [make_item(name) for name in names[:-1]] + [
        make_item("odd", truth="the sea", domain=Domain.science, source="hle")
    ]
    bench.replies.by_name = {
        "wrong": Reply(text="<answer>406</answer>"),
        "silent": Reply(text="I would rather not say."),
        "cut": Reply(reasoning="and so on " * 200, text="<answer>405</answer>"),
        "broken": REFUSED,
        "odd": [Reply(text="<answer>the ocean</answer>"), Reply(text="It depends.")],
    }
    # When they are asked
    targets = {"sim": bench.definition(sampling={"max_tokens": 60})}
    summary = await bench.run(items, targets=targets, judge=judge)
    # Then each is what it is, and all are there
    found = {name: outcome.final for name, outcome in bench.outcomes().items()}
    assert {name: final.status for name, final in found.items()} == {
        "right": Status.graded,
        "wrong": Status.graded,
        "silent": Status.unparsed,
        "cut": Status.truncated,
        "broken": Status.errored,
        "odd": Status.ungraded,
    }
    assert [name for name, final in found.items() if final.correct] == ["right"]
    assert found["broken"].reason == "backend_bad_request:400"
    assert not summary.complete
    assert summary.statuses == {"graded": 2, "unparsed": 1, "truncated": 1, "errored": 1, "ungraded": 1}


async def test_all_that_was_paid_is_counted_a_broken_stream_too(bench: Any, make_item: Any) -> None:
    bench.replies.by_name = {
        "q": [
            Reply(text="so far so good", fault=Fault(FaultKind.truncated, after_tokens=3)),
            Reply(text="<answer>405</answer>"),
        ]
    }
    targets = {"sim": bench.definition(price={"prompt": 1.0, "completion": 1_000_000.0})}
    await bench.run([make_item("q")], targets=targets)
    outcome = bench.outcomes()["q"]
    spent = outcome.spent["generator"]
    sent = sum(call.sent_tokens for call in bench.server.calls)
    assert outcome.final.correct
    assert spent.calls == 2 == len(bench.server.calls)
    assert spent.usage.completion == sent > outcome.final.usage.completion
    assert spent.cost == pytest.approx(spent.usage.completion + spent.usage.prompt / 1e6)


async def test_seeds_are_the_same_for_all_targets_and_differ_between_items_and_repeats(
    bench: Any, items: list[Item]
) -> None:
    targets = {"a": bench.definition(), "b": bench.definition(sampling={"temperature": 0.5})}
    await bench.run(items[:3], targets=targets, repeats=2)
    by_target: dict[str, dict[Any, Any]] = {"a": {}, "b": {}}
    for outcome in read_run(bench.folder / "run").outcomes:
        by_target[outcome.target][outcome.item, outcome.repeat] = outcome.final.seed
    assert by_target["a"] == by_target["b"]
    assert len(set(by_target["a"].values())) == 6
    sent = {call.request.seed for call in bench.server.calls}
    assert sent == set(by_target["a"].values())


# --- going on -----------------------------------------------------------------------------------------------------


async def test_a_run_that_goes_on_asks_only_what_has_no_outcome(bench: Any, items: list[Item]) -> None:
    await bench.run(items)
    log = bench.folder / "run" / "outcomes.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    # Given a run of which six outcomes and half of the seventh are there, as a kill leaves it
    log.write_bytes(b"".join(lines[:6]) + lines[6][:40])
    summary = await bench.run(items)
    # Then two are asked again, and nothing else
    assert (summary.before, summary.asked, summary.left) == (6, 2, 0)
    assert len(bench.server.calls) == len(items) + 2
    assert log.read_bytes().splitlines(keepends=True)[:6] == lines[:6]
    assert len(bench.outcomes()) == len(items)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param({"repeats": 2}, "repeats was 1, is 2", id="repeats"),
        pytest.param(
            {"sampling": {"temperature": 0.3}}, r"targets\[sim\].sampling.temperature was 1.0, is 0.3", id="sampling"
        ),
        pytest.param({"fewer": True}, "items was 8, is 7", id="items"),
    ],
)
async def test_another_run_in_the_same_folder_is_refused_with_the_difference(
    bench: Any, items: list[Item], change: dict[str, Any], said: str
) -> None:
    await bench.run(items)
    asked = len(bench.server.calls)
    targets = {"sim": bench.definition(sampling=change["sampling"])} if "sampling" in change else None
    with pytest.raises(InvalidRequest, match=said):
        await bench.run(items[: 7 if "fewer" in change else 8], targets=targets, repeats=change.get("repeats", 1))
    assert len(bench.server.calls) == asked


async def test_errors_are_asked_again_only_when_that_is_wanted(bench: Any, items: list[Item]) -> None:
    bench.replies.by_name = {"q3": [REFUSED, Reply(text="<answer>405</answer>")]}
    assert not (await bench.run(items)).complete
    assert (await bench.run(items)).asked == 0
    assert bench.outcomes()["q3"].final.status is Status.errored
    summary = await bench.run(items, retry_errors=True)
    assert (summary.asked, summary.complete) == (1, True)
    assert bench.outcomes()["q3"].final.correct


# --- not paying twice ---------------------------------------------------------------------------------------------


async def test_the_same_question_in_another_run_costs_nothing(bench: Any, items: list[Item], tmp_path: Path) -> None:
    with Cache(tmp_path / "cache.db") as cache:
        first = await bench.run(items, name="one", cache=cache)
        # When others ask the same, under another name of the target, and twice as often
        targets = {"renamed": bench.definition()}
        second = await bench.run(items, name="two", targets=targets, cache=cache)
        third = await bench.run(items, name="three", cache=cache, repeats=2)
        warmer = await bench.run(
            items, name="four", targets={"sim": bench.definition(sampling={"temperature": 0.9})}, cache=cache
        )
    assert [one.asked for one in (first, second, third, warmer)] == [8, 0, 8, 8]
    assert [one.cached for one in (first, second, third, warmer)] == [0, 8, 8, 0]
    assert len(bench.server.calls) == 24
    one, two = bench.outcomes("one")["q1"], bench.outcomes("two")["q1"]
    assert two.target == "renamed"
    assert (two.spent, two.final, two.at) == (one.spent, one.final, one.at)


async def test_what_is_known_is_graded_anew_where_the_truth_has_changed(
    bench: Any, make_item: Any, tmp_path: Path
) -> None:
    with Cache(tmp_path / "cache.db") as cache:
        await bench.run([make_item("q")], name="one", cache=cache)
        await bench.run([make_item("q", truth="406")], name="two", cache=cache)
    assert (bench.outcomes("one")["q"].final.correct, bench.outcomes("two")["q"].final.correct) == (True, False)
    assert len(bench.server.calls) == 1


async def test_errors_are_not_known_to_other_runs(bench: Any, make_item: Any, tmp_path: Path) -> None:
    bench.replies.by_name = {"q": [REFUSED, Reply(text="<answer>405</answer>")]}
    with Cache(tmp_path / "cache.db") as cache:
        await bench.run([make_item("q")], name="one", cache=cache)
        assert (await bench.run([make_item("q")], name="two", cache=cache)).complete


# --- stopping -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("concurrency", [1, 8])
async def test_a_budget_of_calls_is_kept_and_what_is_left_is_told(
    bench: Any, items: list[Item], concurrency: int
) -> None:
    summary = await bench.run(items, budget=Budget(calls=5), concurrency=concurrency)
    assert len(bench.server.calls) == 5
    assert (summary.asked, summary.left) == (5, 3)
    assert "budget of 5 calls" in summary.stopped
    # The same budget allows nothing more; a larger one goes on
    assert (await bench.run(items, budget=Budget(calls=5))).asked == 0
    assert (await bench.run(items, budget=Budget(calls=8))).complete
    assert len(bench.server.calls) == 8


@pytest.mark.parametrize("limit", ["tokens", "cost"])
async def test_budgets_of_tokens_and_cost_stop_before_they_are_exceeded(
    bench: Any, items: list[Item], limit: str
) -> None:
    targets = {"sim": bench.definition(price={"prompt": 1e6, "completion": 1e6})}
    await bench.run(items[:1], name="one", targets=targets)
    each = bench.outcomes("one")["q0"].spent["generator"].usage.total
    summary = await bench.run(items, targets=targets, budget=Budget(**{limit: 3 * each + 1}), concurrency=1)
    assert (summary.asked, summary.left) == (3, 5)


async def test_ctrl_c_waits_for_what_is_paid_for_and_the_second_does_not(bench: Any, items: list[Item]) -> None:
    def interrupt_at(calls: int) -> None:
        if len(bench.server.calls) < calls:
            asyncio.get_running_loop().call_later(0.01, interrupt_at, calls)
        else:
            os.kill(os.getpid(), signal.SIGINT)

    bench.replies.by_name = {one.task.id: Reply(text="<answer>405</answer>", first_token_s=0.2) for one in items}
    interrupt_at(2)
    summary = await bench.run(items, concurrency=2)
    assert summary.stopped == "it was interrupted"
    assert (summary.asked, summary.left) == (2, 6)
    # Given replies that nobody would wait for
    bench.replies.by_name = {one.task.id: Reply(text="<answer>405</answer>", first_token_s=60) for one in items}
    interrupt_at(4)
    asyncio.get_running_loop().call_later(0.5, interrupt_at, 4)
    assert (await bench.run(items, concurrency=2)).asked == 0
    assert len(bench.outcomes()) == 2


async def test_a_key_that_is_refused_stops_the_run_at_once(bench: Any, items: list[Item]) -> None:
    unauthorized = Reply(fault=Fault(FaultKind.status, status=401, message="bad key"))
    bench.replies.by_name = {one.task.id: unauthorized for one in items}
    summary = await bench.run(items, concurrency=2)
    assert len(bench.server.calls) <= 2
    assert summary.left == len(items)
    assert "every other question would fail as well" in summary.stopped


async def test_a_target_that_answers_nothing_any_more_is_left_alone(bench: Any, make_item: Any) -> None:
    many = [make_item(f"q{number}") for number in range(40)]
    bench.replies.by_name = {one.task.id: REFUSED for one in many}
    summary = await bench.run(many, concurrency=2)
    assert "10 questions in a row came to nothing" in summary.stopped
    assert 10 <= len(bench.server.calls) <= 12
    assert summary.left == 40 - len(bench.server.calls)


# --- before anything is asked -------------------------------------------------------------------------------------


async def test_answers_that_could_not_be_graded_are_not_paid_for(bench: Any, make_item: Any) -> None:
    odd = make_item("odd", truth=None, domain=Domain.code, source="unheard_of")
    with pytest.raises(ConfigurationError, match="could not be graded here, so nothing was asked"):
        await bench.run([odd])
    assert not bench.server.calls
    assert not (bench.folder / "run").exists()


async def test_programs_that_could_not_be_run_safely_are_not_paid_for(
    bench: Any, make_item: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight, "sandbox_problem", lambda: "no sandbox was found")
    program = make_item(
        "program", truth={"inputs": ["1"], "outputs": ["1"]}, domain=Domain.code, source="livecodebench_v5"
    )
    with pytest.raises(ConfigurationError, match="so nothing was asked: no sandbox was found"):
        await bench.run([program])
    assert not bench.server.calls


async def test_a_server_that_is_not_there_begins_no_run(bench: Any, items: list[Item]) -> None:
    targets = {"gone": bench.definition(base_url="http://127.0.0.1:9/v1")}
    with pytest.raises(Unreachable):
        await bench.run(items, targets=targets)
    assert not (bench.folder / "run").exists()


async def test_a_folder_with_other_files_is_left_as_it_is(bench: Any, items: list[Item]) -> None:
    (bench.folder / "run").mkdir()
    (bench.folder / "run" / "thesis.txt").write_text("mine")
    with pytest.raises(InvalidRequest, match="holds other files and no run"):
        await bench.run(items)
    assert [path.name for path in (bench.folder / "run").iterdir()] == ["thesis.txt"]
