"""The targets file: labels are demanded, outside models are named, and nothing is taken that means nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from k2think.evaluation.targets.definition import Kind, chosen_targets, read_targets
from k2think.schemas.errors import ConfigurationError, InvalidRequest
from k2think.schemas.evaluation import Row

GOOD = """
[plain]
row = "single"
base_url = "http://127.0.0.1:8000/v1"
model = "qwen"
price = { prompt = 0.1, completion = 0.4 }

[mini]
row = "self_scaffold"
policy = { n = 3, selection = "vote" }

[paper]
row = "outside_scaffold"
policy = "paper"
base_url = "http://127.0.0.1:8400"
model = "k2"
outside_models = ["judge-235b"]
role_prices = { verifier = { prompt = 1.0, completion = 2.0 } }
"""


def written(folder: Path, text: str) -> Path:
    file = folder / "targets.toml"
    file.write_text(text)
    return file


def test_a_table_is_a_target(tmp_path: Path) -> None:
    found = read_targets(written(tmp_path, GOOD))
    assert {name: (one.row, one.kind) for name, one in found.items()} == {
        "plain": (Row.single, Kind.endpoint),
        "mini": (Row.self_scaffold, Kind.policy),
        "paper": (Row.outside_scaffold, Kind.policy),
    }
    assert found["paper"].policy is not None
    assert found["paper"].policy.n == 3


def test_targets_come_in_the_order_in_which_they_are_named_each_once(tmp_path: Path) -> None:
    file = written(tmp_path, GOOD)
    assert list(chosen_targets(file, ["paper", "plain", "paper"])) == ["paper", "plain"]
    with pytest.raises(InvalidRequest, match="has no target 'other'; it has: plain, mini, paper"):
        chosen_targets(file, ["other"])


@pytest.mark.parametrize(
    ("table", "said"),
    [
        pytest.param('base_url = "http://x/v1"\nmodel = "m"', "row: Field required", id="no-row"),
        pytest.param('row = "single"\nbase_url = "http://x/v1"', "model must say", id="no-model"),
        pytest.param('row = "self_scaffold"\nbase_url = "http://x/v1"\nmodel = "m"', "is a row `single`", id="endpoint-scaffold"),
        pytest.param('row = "single"\npolicy = { n = 3 }', "n = 1 and plan = off", id="single-of-three"),
        pytest.param('row = "outside_scaffold"\npolicy = "paper"', "outside_models must name", id="outside-unnamed"),
        pytest.param('row = "self_scaffold"\npolicy = "paper"\noutside_models = ["j"]', "so the row is outside_scaffold", id="outside-as-self"),
        pytest.param('row = "single"\npolicy = { n = 0 }', "policy.n", id="policy"),
        pytest.param('row = "self_scaffold"\npolicy = "paper"\nsampling = { temperature = 0.1 }', "sampling: a policy has its own", id="two-samplings"),
        pytest.param('row = "single"\nbackend = "generator"\nbase_url = "http://x/v1"', "either base_url with model, or backend", id="two-places"),
        pytest.param('row = "single"\nbase_url = "http://x/v1"\nmodel = "m"\napi_key = "sk-1"', "api_key: Extra inputs", id="a-secret"),
        pytest.param('row = "self_scaffold"\npolicy = "paper"\nsettings = { PATH = "/" }', "begin with K2THINK_", id="variable"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_told_with_the_name_of_the_table(tmp_path: Path, table: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        read_targets(written(tmp_path, f"[odd]\n{table}\n"))
    assert "target 'odd'" in str(refused.value)
    assert said in str(refused.value)
    assert "sk-1" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("[a\n", "is not valid TOML", id="toml"),
        pytest.param('row = "single"\n', "stands outside of any target", id="no-table"),
        pytest.param('["a b"]\nrow = "single"\n', "is no name of a target", id="name"),
    ],
)
def test_files_that_are_none(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        read_targets(written(tmp_path, text))
