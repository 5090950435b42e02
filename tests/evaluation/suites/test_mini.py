"""Fresh problems: each once, as typed, from a seed; those for choosing and those for reporting never meet."""

from __future__ import annotations

import asyncio

import pytest
from k2think.evaluation.suites.mini import DEVELOPMENT_SEEDS, REPORT_SEEDS, mini
from k2think.evaluation.suites.options import SuiteOptions
from k2think.evaluation.suites.registry import load_suite
from k2think.grading.score import score_task
from k2think.schemas.errors import InvalidRequest
from k2think.schemas.evaluation import Item
from k2think.training.mini.families import FAMILIES


def keys(items: tuple[Item, ...]) -> set[str]:
    """The underlying problems: an id holds the hash of one, between its family and the seed of its wording."""
    return {item.task.id.rpartition("-")[0] for item in items}


def test_families_are_mixed_so_that_the_first_items_are_a_smaller_suite() -> None:
    items = mini(SuiteOptions(n=40))
    assert len(items) == 40
    assert {item.subset for item in items[:8]} == set(FAMILIES)
    assert len(keys(items)) == 40
    assert all(item.task.source == f"mini:{item.subset}" for item in items)


def test_the_same_seed_brings_the_same_problems_however_many_are_asked_for() -> None:
    few, many, other = (mini(SuiteOptions(n=n, seed=seed)) for n, seed in ((16, 3), (32, 3), (16, 4)))
    assert few == many[:16]
    assert not {item.task.prompt for item in few} & {item.task.prompt for item in other}


def test_development_and_report_share_no_problem() -> None:
    # Given problems of both kinds, and of the family that has the fewest all that there are
    few = ("divisors", "words")
    draws = [
        [
            mini(SuiteOptions(n=24, seed=seeds[0], report=report, families=few)),
            mini(SuiteOptions(n=16, seed=seeds[1], report=report)),
        ]
        for seeds, report in ((DEVELOPMENT_SEEDS, False), (REPORT_SEEDS, True))
    ]
    development, report = (set().union(*map(keys, of_kind)) for of_kind in draws)
    assert len(development) > 35
    assert len(report) > 35
    assert not development & report


def test_a_family_that_runs_out_leaves_its_part_to_the_others() -> None:
    items = mini(SuiteOptions(n=30, families=("divisors", "words")))
    counted = {name: sum(item.subset == name for item in items) for name in ("divisors", "words")}
    assert counted["divisors"] < 15
    assert sum(counted.values()) == 30


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        pytest.param({"seed": REPORT_SEEDS[0]}, "kept for figures that are published", id="report-seed-unasked"),
        pytest.param({"seed": 7, "report": True}, "no report seed", id="development-seed-to-report"),
        pytest.param({"seed": 5_000_000}, "must be below", id="neither"),
        pytest.param({"families": ("chess",)}, "no family chess", id="family"),
        pytest.param({"families": ("divisors",), "n": 40}, "ask for fewer", id="too-many"),
        pytest.param({"hub": "a/b"}, "drawn, not read", id="hub"),
    ],
)
def test_what_cannot_be_is_refused(fields: dict[str, object], said: str) -> None:
    with pytest.raises(InvalidRequest, match=said):
        mini(SuiteOptions.model_validate(fields))


def test_the_manifest_names_the_seed_that_was_not_given() -> None:
    _items, told = load_suite("mini", SuiteOptions(report=True, n=8))
    assert told == {"n": 8, "seed": REPORT_SEEDS[0], "report": True}


async def test_the_right_answer_is_right_and_another_is_not() -> None:
    for item in mini(SuiteOptions(n=16)):
        right, wrong = await asyncio.gather(
            score_task(item.task, f"<think>so</think><answer>{item.task.truth}"),
            score_task(item.task, "<think>so</think><answer>98765</answer>"),
        )
        assert (right.correct, wrong.correct) == (True, False), item
