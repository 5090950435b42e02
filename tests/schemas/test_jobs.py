"""Requests: their two forms, their limits, and the messages for what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from k2think.schemas.checks import Checks, UnitTest
from k2think.schemas.completion import ChatMessage, TokenUsage
from k2think.schemas.errors import explain
from k2think.schemas.jobs import MESSAGES_MAX, PROBLEM_CHARS_MAX, JobStatus, SolveRequest
from k2think.schemas.outcomes import StepStatus
from pydantic import BaseModel, ValidationError

USER = {"role": "user", "content": "What is 1+1?"}


def refusal(model: type[BaseModel], value: object) -> str:
    with pytest.raises(ValidationError) as caught:
        model.model_validate(value)
    return explain(caught.value)


def test_a_problem_is_a_conversation_of_one_turn() -> None:
    request = SolveRequest(problem="  What is 1+1?\n")
    assert request.conversation == (ChatMessage(role="user", content="  What is 1+1?\n"),)
    assert not request.is_chat


def test_a_conversation_stays_as_it_is() -> None:
    request = SolveRequest.model_validate({"messages": [{"role": "system", "content": ""}, USER]})
    assert [message.role for message in request.conversation] == ["system", "user"]
    assert request.is_chat


NEITHER = "give either `problem` or `messages`, not both and not neither"
LAST = "the last message must be a user turn with text: it is the problem"
TOO_LONG = f"at most {PROBLEM_CHARS_MAX} characters"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"problem": ""}, "problem: the problem is empty"),
        ({"problem": " \n\t\u00a0"}, "problem: the problem is empty"),
        ({"problem": 7}, "problem: Input should be a valid string"),
        ({"problem": "x" * (PROBLEM_CHARS_MAX + 1)}, f"problem: String should have {TOO_LONG}"),
        ({"problem": "a\ud800b"}, "problem: Input should be a valid string"),
        ({}, NEITHER),
        ({"problem": None, "messages": []}, NEITHER),
        ({"problem": "1+1", "messages": [USER]}, NEITHER),
        ({"messages": [USER, {"role": "assistant", "content": "2"}]}, LAST),
        ({"messages": [{"role": "system", "content": "Be short."}]}, LAST),
        ({"messages": [{"role": "user", "content": " "}]}, LAST),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0.role: Input should be 'system', 'developer', "),
        ({"messages": [{"role": "user"}]}, "messages.0.content: Field required"),
        ({"messages": [{**USER, "name": "Ada"}]}, "messages.0.name: Extra inputs are not permitted"),
        ({"messages": [USER] * (MESSAGES_MAX + 1)}, f"messages: List should have at most {MESSAGES_MAX} items"),
        (
            {"messages": [{"role": "user", "content": "x" * (PROBLEM_CHARS_MAX // 2)}] * 2 + [USER]},
            "the messages are too long: at most 1,000,000 characters together",
        ),
        ({"problem": "1+1", "metadata": {"k" * 65: ""}}, f"metadata: metadata '{'k' * 64}' is too long: keys have"),
        ({"problem": "1+1", "metadata": {"k": "v" * 513}}, "metadata: metadata 'k' is too long: keys have at most 64"),
        (
            {"problem": "1+1", "metadata": {str(i): "" for i in range(65)}},
            "metadata: Dictionary should have at most 64",
        ),
        ({"problem": "1+1", "metadata": {"k": 1}}, "metadata.k: Input should be a valid string"),
        ({"problem": "1+1", "idempotency_key": ""}, "idempotency_key: String should have at least 1 character"),
        ({"problem": "1+1", "idempotency_key": "k" * 256}, "idempotency_key: String should have at most 255"),
        ({"problem": "1+1", "policy": "papr"}, "policy: preset: unknown policy 'papr'; choose one of default, paper"),
        ({"problem": "1+1", "policy": {"n": 0}}, "policy.n: Input should be greater than or equal to 1"),
        ({"problem": "1+1", "checks": {"answer_form": "poem"}}, "checks.answer_form: Input should be 'number', "),
        ({"problem": "1+1", "checks": {"unit_tests": [{}]}}, "checks.unit_tests.0: a unit test needs either `code`"),
        ({"problem": "1+1", "checks": {"unit_tests": [{"code": ""}] * 201}}, "checks.unit_tests: List should have at"),
        ({"problem": "1+1", "model": "k2"}, "model: Extra inputs are not permitted"),
        ("1+1", "Input should be an object"),
        (None, "Input should be an object"),
    ],
)
def test_a_request_that_cannot_be_understood_is_refused_with_the_reason(value: object, message: str) -> None:
    assert refusal(SolveRequest, value).startswith(message)


@pytest.mark.parametrize(
    "value",
    [
        {"problem": "x" * PROBLEM_CHARS_MAX},
        {"messages": [USER] * MESSAGES_MAX},
        {"messages": [{"role": "user", "content": "x" * (PROBLEM_CHARS_MAX // 2)}] * 2},
        {"problem": "1+1", "metadata": {f"{i:064}": "v" * 512 for i in range(64)}, "idempotency_key": "k" * 255},
        {"problem": "1+1", "checks": {"unit_tests": [{"code": "assert True"}] * 200}},
    ],
)
def test_the_limits_themselves_are_allowed(value: dict[str, Any]) -> None:
    request = SolveRequest.model_validate(value)
    assert SolveRequest.model_validate_json(request.model_dump_json()) == request


@pytest.mark.parametrize(
    ("fields", "good"),
    [
        ({"code": "assert f(1) == 2"}, True),
        ({"expected_stdout": "2\n"}, True),
        ({"stdin": "1\n", "expected_stdout": ""}, True),
        ({}, False),
        ({"stdin": "1\n"}, False),
        ({"code": "pass", "expected_stdout": "2"}, False),
    ],
)
def test_a_unit_test_is_of_one_style(fields: dict[str, str], good: bool) -> None:
    if good:
        assert Checks(unit_tests=(UnitTest(**fields),)).unit_tests[0].model_dump(exclude_unset=True) == fields
    else:
        assert "not both and not neither" in refusal(UnitTest, fields)


def test_final_states_are_those_that_nothing_follows() -> None:
    assert {status.value for status in JobStatus if not status.final} == {"queued", "running"}
    assert {status.value for status in StepStatus if not status.final} == {"ready", "running"}


def test_usage_adds_up() -> None:
    total = TokenUsage(prompt=1, completion=2, reasoning=1) + TokenUsage(prompt=10, completion=20, reasoning=15)
    assert total == TokenUsage(prompt=11, completion=22, reasoning=16)
    assert total.total == 33
