"""In which order problems are asked, and what a run of GRPO checks before it begins. Needs no TRL."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from harness.training import grpo_config
from k2think.training.config import GrpoConfig
from k2think.training.grpo import order_of, steps_of


def config(*, shuffle: bool = True, **run: Any) -> GrpoConfig:
    content = grpo_config(Path("m"), Path("s"), Path("o"), **run)
    content["data"]["shuffle"] = shuffle
    content["grpo"] |= {"update_prompts": 1, "micro_batch": 8}
    content["run"]["save_every"] = 2
    return GrpoConfig.model_validate(content)


def test_each_pass_asks_in_another_order_and_a_longer_run_begins_alike() -> None:
    # Given seven problems, two a round: three rounds of two steps a pass, and one problem is left over
    order = order_of(config(steps=12), 7)
    assert len(order) == 12
    first, second = order[:6], order[6:]
    assert len(set(first)) == len(set(second)) == 6
    assert first != second
    assert order_of(config(steps=30), 7)[:12] == order
    assert order_of(config(steps=12, seed=2), 7) != order


@pytest.mark.parametrize(
    ("run", "steps"),
    [
        pytest.param({"steps": 5}, 5, id="steps"),
        pytest.param({"steps": None, "epochs": 2}, 12, id="epochs"),
        pytest.param({"steps": None, "epochs": 0.5}, 2, id="half_an_epoch"),
    ],
)
def test_the_length_of_a_run(run: dict[str, Any], steps: int) -> None:
    assert steps_of(config(**run), 7) == steps
    assert len(order_of(config(**run), 7)) == -(-steps // 2) * 2


def test_a_curriculum_keeps_its_order() -> None:
    assert order_of(config(steps=6, shuffle=False), 7) == [0, 1, 2, 3, 4, 5]
