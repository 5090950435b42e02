"""In which order problems are asked, and what a run of GRPO checks before it begins. Needs no TRL."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from harness.training import grpo_config
from k2think.schemas.errors import ConfigurationError, SandboxUnavailable
from k2think.schemas.scores import Domain, Task
from k2think.training import grpo
from k2think.training.config import GrpoConfig
from k2think.training.grpo import look_at, order_of, steps_of
from k2think.training.records import write_records


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


GOOD = Task(id="good", domain=Domain.math, source="math__a", prompt="3+4", truth="7")
"""A problem whose check works everywhere."""


def looked_at(tmp_path: Path, *tasks: Task, held_out: bool = False) -> None:
    """Look at problems of which the last ones are as given."""
    write_records(tmp_path / "tasks.jsonl", [GOOD] if held_out else [GOOD, *tasks])
    write_records(tmp_path / "held_out.jsonl", tasks)
    content = grpo_config(tmp_path / "no_model", tmp_path, tmp_path / "run")
    content["data"]["evaluation"] = [str(tmp_path / "held_out.jsonl")] if held_out else []
    look_at(GrpoConfig.model_validate(content))


@pytest.mark.parametrize("held_out", [False, True], ids=["trained_on", "held_out"])
def test_a_check_that_would_end_the_run_is_refused_before_it(held_out: bool, tmp_path: Path) -> None:
    odd = Task(id="odd", domain=Domain.procedural, source="my_puzzles", prompt="?", truth="1")
    with pytest.raises(ConfigurationError, match=r"answers to 'odd' \(my_puzzles\) could not be graded here"):
        looked_at(tmp_path, odd, held_out=held_out)


def test_a_sandbox_that_is_missing_is_refused_and_a_bad_truth_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = GOOD.model_copy(update={"id": "bad", "source": "math__b", "truth": None})
    # Given a truth that is no reference, then what is refused is only that there is no model
    with pytest.raises(ConfigurationError, match=r"^model\.name: "):
        looked_at(tmp_path, bad)
    assert grpo._check_grading([GOOD, bad]) == 1

    async def none_works(tasks: list[Task]) -> list[tuple[Task, Exception]]:
        return [(tasks[-1], SandboxUnavailable("no sandbox was found"))]

    monkeypatch.setattr(grpo, "failing_checks", none_works)
    with pytest.raises(ConfigurationError, match=r"'bad'.*no sandbox was found"):
        looked_at(tmp_path, bad)
