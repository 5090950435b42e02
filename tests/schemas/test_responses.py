"""Bodies of responses: the chat completion that asks for the same, and that the rest is refused by name."""

from __future__ import annotations

from typing import Any

import pytest
from k2think.schemas.chat import ANY_VALUE
from k2think.schemas.errors import InvalidRequest, explain
from k2think.schemas.responses import _NEUTRAL, ResponseBody, ResponseDetails
from openai.types.responses import response_create_params
from pydantic import ValidationError

STRANGE = {"nobody": "would send this"}
ASK = "What is 1+1?"


def body(**fields: Any) -> ResponseBody:
    return ResponseBody.model_validate({"model": "k2think", "input": ASK, **fields})


def test_every_parameter_of_the_client_is_known() -> None:
    theirs = {*response_create_params.ResponseCreateParamsBase.__annotations__, "stream"}
    ours = {*ResponseBody.model_fields, *_NEUTRAL}
    assert theirs | {"k2think"} == ours
    assert not set(ResponseBody.model_fields) & set(_NEUTRAL)


@pytest.mark.parametrize("name", _NEUTRAL)
def test_what_is_not_supported_is_accepted_only_where_it_changes_nothing(name: str) -> None:
    values = _NEUTRAL[name]
    for value in (None, *(STRANGE if value is ANY_VALUE else value for value in values)):
        assert body(**{name: value}) == body()
    if ANY_VALUE not in values:
        with pytest.raises(InvalidRequest, match=name) as caught:
            body(**{name: STRANGE})
        assert caught.value.param == name


@pytest.mark.parametrize("name", sorted(set(ResponseBody.model_fields) - {"model", "input"}))
def test_null_is_as_good_as_not_given(name: str) -> None:
    assert body(**{name: None}) == body()


def test_it_asks_for_what_a_chat_completion_asks_for() -> None:
    chat = body(
        instructions="Be short.",
        input=[
            {"role": "user", "content": "Hello"},
            {"type": "reasoning", "id": "rs_1", "summary": []},
            {
                "type": "message",
                "id": "msg_1",
                "status": "completed",
                "role": "assistant",
                "content": [{"type": "output_text", "text": "Hi.", "annotations": []}],
            },
            {"role": "user", "content": [{"type": "input_text", "text": "1+"}, {"type": "input_text", "text": "1?"}]},
        ],
        max_output_tokens=7,
        temperature=0.5,
        top_p=0.25,
        reasoning={"effort": "high", "summary": "auto"},
        metadata={"a": "b"},
        user="ada",
        k2think={"policy": {"n": 2}},
    ).as_chat()
    assert [(turn.role, turn.content) for turn in chat.messages] == [
        ("system", "Be short."),
        ("user", "Hello"),
        ("assistant", "Hi."),
        ("user", "1+1?"),
    ]
    assert (chat.max_completion_tokens, chat.temperature, chat.top_p, chat.reasoning_effort) == (7, 0.5, 0.25, "high")
    assert (chat.metadata, chat.user, chat.n, chat.own_policy) == ({"a": "b"}, "ada", 1, {"n": 2})


def test_a_text_is_one_turn_of_the_user() -> None:
    assert [(turn.role, turn.content) for turn in body().as_chat().messages] == [("user", ASK)]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"input": []}, "input: Value should have at least 1 item"),
        ({"stream": "yes"}, "stream: Input should be a valid boolean"),
        ({"max_output_tokens": "5"}, "max_output_tokens: Input should be a valid integer"),
        ({"input": 7}, "input: Input should be a list"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input.0.type: Input should be 'message'"),
        ({"input": [{"type": "function_call_output", "output": "x"}]}, "input.0.type: Input should be 'message'"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]},
            "input.0.content: only text parts are supported",
        ),
        ({"model": ""}, "model: String should have at least 1 character"),
        ({"max_output_tokens": 0}, "max_output_tokens: Input should be greater than or equal to 1"),
        ({"temperature": -1}, "temperature: Input should be greater than or equal to 0"),
        ({"reasoning": {"effort": "enormous"}}, "reasoning.effort: Input should be 'none', 'minimal'"),
        ({"reasoning": {"budget": 3}}, "reasoning.budget: Extra inputs are not permitted"),
        ({"seed": 3}, "seed: Extra inputs are not permitted"),
    ],
)
def test_what_is_wrong_is_named(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        body(**fields)
    assert explain(caught.value).startswith(message)


def test_what_goes_on_in_the_background_is_stored() -> None:
    with pytest.raises(InvalidRequest) as caught:
        body(background=True, store=False)
    assert caught.value.param == "store"
    assert body(store=False).store is False


def test_what_is_kept_of_a_body_comes_back_from_a_note() -> None:
    details = ResponseDetails.of(
        body(instructions="Be short.", background=True, max_output_tokens=7, reasoning={"effort": "low"}, user="ada"),
        digest="d",
    )
    assert ResponseDetails.model_validate(details.model_dump()) == details
    assert (details.background, details.stored, details.deleted) == (True, True, False)
    assert (details.instructions, details.max_output_tokens, details.effort) == ("Be short.", 7, "low")
