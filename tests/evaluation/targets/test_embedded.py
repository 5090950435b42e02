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


async def test_the_bare_model_in_this_process(bench: Any) -> None:
    items = list(mini(SuiteOptions(n=8)))
    assert (await bench.run(items, targets={"bare": definition(row="single", backend="openvino")})).left == 0
    outcomes = bench.outcomes().values()
    assert sum(one.final.correct for one in outcomes) >= 4, "three in four are right"
    assert all(one.final.usage.completion > 0 for one in outcomes)


VOTE = {"n": 3, "plan": "shared", "selection": "vote", "early_stop": False}


@pytest.mark.parametrize("policy", [pytest.param(VOTE, id="vote"), pytest.param(ALONE, id="alone")])
async def test_the_bare_model_and_a_policy_on_a_stack_of_the_runs_own(bench: Any, policy: dict[str, Any]) -> None:
    # Given the bundled model as it is, and by a policy
    items = list(mini(SuiteOptions(n=4)))
    row = "single" if policy is ALONE else "self_scaffold"
    targets = {"bare": definition(row="single", backend="openvino"), "policy": definition(row=row, policy=policy)}
    # When both are asked the same
    summary = await bench.run(items, targets=targets)
    # Then every question has an outcome
    run = read_run(bench.folder / "run")
    bare, by_policy = ({one.item: one for one in run.outcomes if one.target == name} for name in targets)
    assert summary.left == 0
    assert not run.faults
    assert set(bare) == set(by_policy) == {item.task.id for item in items}
    assert all(one.final.status in (Status.graded, Status.unparsed) for one in run.outcomes)
    if policy is VOTE:
        assert all(one.planned and len(one.candidates) == 3 for one in by_policy.values())
        assert {role: part.calls for role, part in by_policy[items[0].task.id].spent.items()} == {
            "planner": 1,
            "generator": 3,
        }
    else:
        # Nothing is around the sample, so that the same seed brings the same text
        assert [one.final.text for one in bare.values()] == [by_policy[name].final.text for name in bare]
    # And the manifest tells the model's files, and the stack has gone
    assert run.manifest is not None
    one, other = run.manifest.targets
    assert one.revision == other.revision
    assert str(one.revision).startswith("sha256:")
    assert one.template_sha256 == other.template_sha256
    assert set(other.backends_sha256) == {"planner", "generator", "verifier"}
    assert set(other.backends_sha256.values()) == set(one.backends_sha256.values()), "one model in all roles"
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
