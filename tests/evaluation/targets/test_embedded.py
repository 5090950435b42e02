"""k2think-mini through the embedded engine: alone in this process, and inside the whole system on a stack of the run's own."""

from __future__ import annotations

from typing import Any

import pytest
from k2think.evaluation.records import read_run
from k2think.evaluation.suites.mini import mini
from k2think.evaluation.suites.options import SuiteOptions
from k2think.evaluation.targets.definition import Definition
from k2think.evaluation.targets.opening import make_targets
from k2think.schemas.errors import ConfigurationError
from k2think.schemas.evaluation import Status

pytestmark = pytest.mark.timeout(400)

ALONE = {"n": 1, "plan": "off", "selection": "first"}


def definition(**fields: Any) -> Definition:
    return Definition.model_validate(fields)


@pytest.fixture(autouse=True)
def needs_engine() -> None:
    pytest.importorskip("openvino_genai", reason="the embedded engine is not installed (extra `embedded`)")


async def test_a_policy_and_the_bare_model_answer_alike_where_nothing_is_around_it(bench: Any) -> None:
    # Given the bundled model as it is, one sample by policy, and a vote of three with a plan
    items = list(mini(SuiteOptions(n=8)))
    targets = {
        "bare": definition(row="single", backend="openvino"),
        "single": definition(row="single", policy=ALONE),
        "vote": definition(
            row="self_scaffold", policy={"n": 3, "plan": "shared", "selection": "vote", "early_stop": False}
        ),
    }
    # When all three are asked the same
    summary = await bench.run(items, targets=targets)
    # Then every question has an outcome, and the first two have the same text from the same seed
    run = read_run(bench.folder / "run")
    by_target = {name: {one.item: one for one in run.outcomes if one.target == name} for name in targets}
    assert summary.left == 0
    assert not run.faults
    assert {name: one.final.text for name, one in by_target["bare"].items()} == {
        name: one.final.text for name, one in by_target["single"].items()
    }
    for outcome in by_target["vote"].values():
        assert len(outcome.candidates) == 3
        assert outcome.planned
        assert outcome.spent["planner"].calls == 1
        assert outcome.spent["generator"].calls == 3
        assert outcome.final.status in (Status.graded, Status.unparsed)
    # And the manifest tells the model's files, and the stack has gone
    assert run.manifest is not None
    specs = run.manifest.targets
    assert len({spec.revision for spec in specs}) == 1
    assert str(specs[0].revision).startswith("sha256:")
    assert len({spec.template_sha256 for spec in specs}) == 1
    assert not (bench.folder / "run" / "stacks").exists()


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        pytest.param({"model": "/no/such/folder"}, "no model folder", id="model"),
        pytest.param({"settings": {"K2THINK_VERIFIER__BACKEND": "openai", "K2THINK_VERIFIER__BASE_URL": "http://127.0.0.1:9/v1", "K2THINK_VERIFIER__MODEL": "big"}}, "the verifier another model .'big'.", id="outside"),
        pytest.param({"settings": {"K2THINK_GENERATOR__THREADS": "many"}}, "K2THINK_GENERATOR__THREADS", id="setting"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_told_before_anything_starts(bench: Any, fields: dict[str, Any], said: str) -> None:
    target = definition(row="self_scaffold", policy={"n": 3}, **fields)
    with pytest.raises(ConfigurationError, match=said):
        make_targets({"odd": target}, bench.settings, bench.folder)
