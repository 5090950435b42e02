"""Policies: presets, overriding them, names for priorities, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from k2think.schemas.errors import explain
from k2think.schemas.jobs import SolveRequest
from k2think.schemas.policy import ANSWER_STOP, Plan, Policy, Priority, Sampling, Selection
from pydantic import ValidationError


def problems(value: object) -> str:
    with pytest.raises(ValidationError) as caught:
        Policy.model_validate(value)
    return explain(caught.value)


def test_the_default_policy() -> None:
    policy = Policy()
    assert (policy.n, policy.plan, policy.selection) == (3, Plan.shared, None)
    assert (policy.early_stop, policy.swap_order) == (True, True)
    assert policy.sampling == Sampling(temperature=1.0, top_p=0.95, max_tokens=None, stop=(ANSWER_STOP,), seed=None)
    assert (policy.soft_timeout_s, policy.deadline_s, policy.token_budget) == (None, 600.0, None)
    assert (policy.priority, policy.backend, policy.templates) == (Priority.interactive, None, None)
    assert policy == Policy.model_validate({}) == Policy.model_validate("default")


def test_the_papers_policy_is_one_plan_three_samples_and_always_a_judge() -> None:
    policy = Policy.model_validate("paper")
    changed = {name for name in Policy.model_fields if getattr(policy, name) != getattr(Policy(), name)}
    assert changed == {"preset", "selection", "early_stop", "swap_order", "templates"}
    assert (policy.n, policy.plan, policy.selection) == (3, Plan.shared, Selection.pairwise)
    assert (policy.early_stop, policy.swap_order, policy.templates) == (False, False, "paper")


def test_a_preset_may_be_given_as_text_in_a_request() -> None:
    paper = Policy.model_validate("paper")
    assert SolveRequest.model_validate_json('{"problem": "1+1", "policy": "paper"}').policy == paper
    assert SolveRequest.model_validate({"problem": "1+1", "policy": {"preset": "paper"}}).policy == paper
    assert Policy(preset="paper") == paper


@pytest.mark.parametrize(
    ("field", "value"),
    [("n", 5), ("plan", "off"), ("selection", "vote"), ("early_stop", True), ("swap_order", True), ("templates", None)],
)
def test_what_is_given_wins_over_the_preset(field: str, value: object) -> None:
    policy = Policy.model_validate({"preset": "paper", field: value})
    assert getattr(policy, field) == value
    rest = {name for name in Policy.model_fields if name != field}
    paper = Policy.model_validate("paper")
    assert all(getattr(policy, name) == getattr(paper, name) for name in rest)


def test_a_preset_is_not_changed_by_those_who_start_from_it() -> None:
    Policy.model_validate({"preset": "paper", "n": 7})
    assert Policy.model_validate("paper").n == 3


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=60)
@given(
    preset=st.sampled_from(["default", "paper"]),
    n=st.integers(1, 64),
    plan=st.sampled_from(Plan),
    selection=st.none() | st.sampled_from(Selection),
    flags=st.tuples(st.booleans(), st.booleans()),
    soft=st.none() | st.floats(0, 86_400, exclude_min=True),
    deadline=st.floats(0, 604_800, exclude_min=True),
    priority=st.sampled_from(Priority),
)
def test_any_policy_comes_back_from_json_as_it_was(preset: str, soft: float | None, **fields: Any) -> None:
    early_stop, swap_order = fields.pop("flags")
    deadline = fields.pop("deadline")
    policy = Policy.model_validate(
        {
            **fields,
            "preset": preset,
            "early_stop": early_stop,
            "swap_order": swap_order,
            "soft_timeout_s": soft,
            "deadline_s": deadline,
        }
    )
    assert Policy.model_validate_json(policy.model_dump_json()) == policy
    assert Policy.model_validate(json.loads(json.dumps(policy.model_dump(mode="json", exclude_unset=True)))) == policy


@pytest.mark.parametrize("priority", Priority)
def test_a_priority_goes_by_name_or_number(priority: Priority) -> None:
    assert Policy.model_validate({"priority": priority.name}).priority is priority
    assert Policy.model_validate({"priority": priority.value}).priority is priority
    assert json.loads(Policy(priority=priority).model_dump_json())["priority"] == priority.value


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"n": 0}, "n: Input should be greater than or equal to 1"),
        ({"n": 65}, "n: Input should be less than or equal to 64"),
        ({"n": 2.5}, "n: Input should be a valid integer"),
        ({"n": None}, "n: Input should be a valid integer"),
        ({"plan": "sometimes"}, "plan: Input should be 'shared', 'per_sample' or 'off'"),
        ({"selection": "best"}, "selection: Input should be 'consensus_then_pairwise', 'pairwise', 'vote' or 'first'"),
        ({"early_stop": "perhaps"}, "early_stop: Input should be a valid boolean"),
        ({"swap_order": 2}, "swap_order: Input should be a valid boolean"),
        ({"sampling": {"temperature": -0.1}}, "sampling.temperature: Input should be greater than or equal to 0"),
        ({"sampling": {"temperature": 2.1}}, "sampling.temperature: Input should be less than or equal to 2"),
        ({"sampling": {"temperature": float("nan")}}, "sampling.temperature: "),
        ({"sampling": {"top_p": 0}}, "sampling.top_p: Input should be greater than 0"),
        ({"sampling": {"top_p": 1.01}}, "sampling.top_p: Input should be less than or equal to 1"),
        ({"sampling": {"max_tokens": 0}}, "sampling.max_tokens: Input should be greater than or equal to 1"),
        ({"sampling": {"max_tokens": 1_000_001}}, "sampling.max_tokens: Input should be less than or equal to 1000000"),
        ({"sampling": {"stop": ["x"] * 9}}, "sampling.stop: List should have at most 8 items"),
        ({"sampling": {"seed": -1}}, "sampling.seed: Input should be greater than or equal to 0"),
        ({"sampling": {"seed": 2**31}}, "sampling.seed: Input should be less than 2147483648"),
        ({"sampling": {"top_k": 5}}, "sampling.top_k: Extra inputs are not permitted"),
        ({"templates": "../etc"}, "templates: String should match pattern"),
        ({"templates": ""}, "templates: String should match pattern"),
        ({"soft_timeout_s": 0}, "soft_timeout_s: Input should be greater than 0"),
        ({"soft_timeout_s": 86_401}, "soft_timeout_s: Input should be less than or equal to 86400"),
        ({"deadline_s": 0}, "deadline_s: Input should be greater than 0"),
        ({"deadline_s": float("inf")}, "deadline_s: Input should be less than or equal to 604800"),
        ({"deadline_s": float("nan")}, "deadline_s: "),
        ({"deadline_s": None}, "deadline_s: Input should be a valid number"),
        ({"token_budget": 0}, "token_budget: Input should be greater than or equal to 1"),
        ({"priority": "urgent"}, "priority: unknown priority 'urgent'; choose one of interactive, normal, batch"),
        ({"priority": 3}, "priority: Input should be 0, 1 or 2"),
        ({"priority": []}, "priority: Input should be 0, 1 or 2"),
        ({"backend": "a b"}, "backend: String should match pattern"),
        ({"backend": "x" * 61}, "backend: String should match pattern"),
        ({"samples": 3}, "samples: Extra inputs are not permitted"),
        ({"preset": "papr"}, "preset: unknown policy 'papr'; choose one of default, paper"),
        ({"preset": []}, "preset: unknown policy '[]'; choose one of default, paper"),
        ({"preset": None}, "preset: unknown policy 'None'; choose one of default, paper"),
        ("papr", "preset: unknown policy 'papr'; choose one of default, paper"),
        ("", "preset: unknown policy ''; choose one of default, paper"),
        (3, "Input should be an object"),
        ([], "Input should be an object"),
    ],
)
def test_a_wrong_value_is_refused_with_the_name_of_its_field(value: object, message: str) -> None:
    assert problems(value).startswith(message)


def test_all_wrong_fields_are_named_at_once() -> None:
    text = problems({"n": 0, "deadline_s": -1, "sampling": {"top_p": 7}})
    assert [part.partition(":")[0] for part in text.split("; ")] == ["n", "sampling.top_p", "deadline_s"]
