"""Chat completion bodies: what each parameter means, and that the rest is refused by name."""

from __future__ import annotations

from typing import Any

import pytest
from k2think.schemas.chat import _NEUTRAL, ANY_VALUE, CHOICES_MAX, ChatBody
from k2think.schemas.errors import InvalidRequest, explain
from k2think.schemas.policy import ANSWER_STOP, Plan, Policy
from openai.types.chat import completion_create_params
from pydantic import ValidationError

USER = {"role": "user", "content": "What is 1+1?"}
STRANGE = {"nobody": "would send this"}
"""A value that no parameter takes."""


def body(**fields: Any) -> ChatBody:
    return ChatBody.model_validate({"model": "k2think", "messages": [USER], **fields})


def policy(**fields: Any) -> Policy:
    return Policy.model_validate(body(**fields).policy_fields())


def test_every_parameter_of_the_client_is_known() -> None:
    theirs = {*completion_create_params.CompletionCreateParamsBase.__annotations__, "stream"}
    ours = {*ChatBody.model_fields, *_NEUTRAL}
    assert theirs | {"k2think"} == ours
    assert not set(ChatBody.model_fields) & set(_NEUTRAL)


@pytest.mark.parametrize("name", _NEUTRAL)
def test_what_is_not_supported_is_accepted_only_where_it_changes_nothing(name: str) -> None:
    values = _NEUTRAL[name]
    for value in (None, *(STRANGE if value is ANY_VALUE else value for value in values)):
        assert body(**{name: value}) == body()
    if ANY_VALUE not in values:
        with pytest.raises(InvalidRequest, match=name) as caught:
            body(**{name: STRANGE})
        assert caught.value.param == name


@pytest.mark.parametrize("name", sorted(set(ChatBody.model_fields) - {"model", "messages"}))
def test_null_is_as_good_as_not_given(name: str) -> None:
    assert body(**{name: None}) == body()


def test_true_is_not_one_and_false_not_zero() -> None:
    for field in ({"frequency_penalty": False}, {"logprobs": 0}, {"parallel_tool_calls": 1}, {"top_logprobs": False}):
        with pytest.raises(InvalidRequest):
            body(**field)


def test_the_default_is_the_policys_own() -> None:
    assert body().policy_fields() == {}
    assert body().n == 1


def test_sampling_is_what_it_says() -> None:
    sampling = policy(temperature=0, top_p=0.5, seed=3, stop=["A", "B"], max_tokens=7).sampling
    assert (sampling.temperature, sampling.top_p, sampling.seed, sampling.max_tokens) == (0, 0.5, 3, 7)
    assert sampling.stop == (ANSWER_STOP, "A", "B")
    assert policy(stop="A").sampling.stop == (ANSWER_STOP, "A")
    assert policy(max_completion_tokens=7).sampling.max_tokens == 7
    assert policy(max_completion_tokens=7, max_tokens=7).sampling.max_tokens == 7
    with pytest.raises(InvalidRequest, match="the two differ") as caught:
        body(max_completion_tokens=7, max_tokens=8)
    assert caught.value.param == "max_tokens"


@pytest.mark.parametrize(
    ("effort", "n", "plan"),
    [
        (None, 3, Plan.shared),
        ("none", 1, Plan.off),
        ("minimal", 1, Plan.off),
        ("low", 1, Plan.shared),
        ("medium", 3, Plan.shared),
        ("high", 5, Plan.shared),
        ("xhigh", 9, Plan.shared),
    ],
)
def test_an_effort_is_samples_and_a_plan(effort: str | None, n: int, plan: Plan) -> None:
    chosen = policy(reasoning_effort=effort)
    assert (chosen.n, chosen.plan) == (n, plan)


def test_ones_own_policy_wins_over_the_rest_of_the_body_which_wins_over_defaults() -> None:
    given = body(temperature=0.5, top_p=0.5, reasoning_effort="high", k2think={"policy": {"sampling": {"top_p": 0.1}}})
    fields = given.policy_fields(defaults={"n": 2, "priority": "batch", "sampling": {"temperature": 1.5, "seed": 1}})
    assert fields == {
        "n": 5,
        "priority": "batch",
        "sampling": {"temperature": 0.5, "top_p": 0.1, "seed": 1},
    }
    assert body(reasoning_effort="high", k2think={"policy": {"n": 2}}).policy_fields()["n"] == 2
    assert body(k2think={"policy": "paper"}).policy_fields() == {"preset": "paper"}


def test_without_the_answers_tag_only_the_callers_stops_count() -> None:
    assert body().policy_fields(answer_stop=False) == {"sampling": {"stop": []}}
    assert body(stop="A").policy_fields(answer_stop=False) == {"sampling": {"stop": ["A"]}}


def test_texts_may_come_in_parts_and_answers_may_be_sent_back() -> None:
    answer = {"role": "assistant", "content": "2", "refusal": None, "reasoning": "1, 2", "reasoning_content": "1, 2"}
    refused = {"role": "assistant", "content": None, "refusal": "No."}
    parts = {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}
    turns = body(messages=[{"role": "developer", "content": ""}, USER, answer, refused, parts]).conversation
    assert [turn.content for turn in turns] == ["", "What is 1+1?", "2", "No.", "ab"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"messages": []}, "messages: List should have at least 1 item"),
        ({"messages": "Hello"}, "messages: Input should be a list"),
        ({"messages": [{"role": "tool", "content": "x", "tool_call_id": "1"}]}, "messages.0.role: Input should be"),
        ({"messages": [{"role": "user"}]}, "messages.0.content: Field required"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            "messages.0.content: only parts of type text are supported",
        ),
        ({"model": ""}, "model: String should have at least 1 character"),
        ({"n": True}, "n: Input should be a valid integer"),
        ({"n": "2"}, "n: Input should be a valid integer"),
        ({"temperature": "1"}, "temperature: Input should be a valid number"),
        ({"stream": "yes"}, "stream: Input should be a valid boolean"),
        ({"n": 0}, "n: Input should be greater than or equal to 1"),
        ({"n": CHOICES_MAX + 1}, f"n: Input should be less than or equal to {CHOICES_MAX}"),
        ({"temperature": 2.1}, "temperature: Input should be less than or equal to 2"),
        ({"temperature": float("nan")}, "temperature: Input should be a finite number"),
        ({"top_p": 0}, "top_p: Input should be greater than 0"),
        ({"seed": -1}, "seed: Input should be greater than or equal to 0"),
        ({"max_tokens": 0}, "max_tokens: Input should be greater than or equal to 1"),
        ({"stop": ["a"] * 8}, "stop: Value should have at most 7 items"),
        ({"stop": [""]}, "stop.0: String should have at least 1 character"),
        ({"user": "u" * 513}, "user: String should have at most 512 characters"),
        ({"metadata": {"a": 1}}, "metadata.a: Input should be a valid string"),
        ({"reasoning_effort": "enormous"}, "reasoning_effort: Input should be 'none', 'minimal'"),
        ({"stream_options": {"include_everything": True}}, "stream_options.include_everything: Extra inputs are not"),
        ({"k2think": {"plicy": {}}}, "k2think.plicy: Extra inputs are not permitted"),
        ({"best_of": 2}, "best_of: Extra inputs are not permitted"),
    ],
)
def test_what_is_wrong_is_named(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        body(**fields)
    assert explain(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("turn", "param"),
    [
        ({**USER, "name": "ada"}, "messages.name"),
        ({"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}, "messages.tool_calls"),
        ({"role": "assistant", "content": "", "function_call": {"name": "f"}}, "messages.function_call"),
        ({"role": "assistant", "content": "", "audio": {"id": "1"}}, "messages.audio"),
    ],
)
def test_what_a_turn_cannot_hold_is_refused_by_name(turn: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest, match=param) as caught:
        body(messages=[turn, USER])
    assert caught.value.param == "messages"
