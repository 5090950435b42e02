"""Envelopes: what is refused, where a body goes, and that any text survives the way."""

from __future__ import annotations

import json
from typing import Any, get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from k2think.schemas.completion import ChatMessage
from k2think.schemas.messages import (
    AGENT_OF_KIND,
    AgentKind,
    Body,
    ComparePair,
    Envelope,
    GenerateCandidate,
    MakePlan,
    ScreenInput,
    ScreenOutput,
    queue_name,
    queue_of,
)
from k2think.schemas.outcomes import StepResult
from k2think.schemas.policy import Priority, Sampling
from pydantic import TypeAdapter, ValidationError

PROBLEM = (ChatMessage(role="user", content="1+1"),)
BODY_KINDS = [member.model_fields["kind"].default for member in get_args(get_args(Body)[0])]


def wire(**changes: Any) -> str:
    """A message as JSON text, with some fields of the envelope changed; the value ... leaves the field out."""
    fields = {"version": 1, "job_id": "j", "step": "screen_input", "attempt": 1, "body": {"kind": "screen_input"}}
    fields["body"] = {"kind": "screen_input", "messages": [{"role": "user", "content": "1+1"}]}
    return json.dumps({name: value for name, value in (fields | changes).items() if value is not ...})


def test_a_plain_message_is_accepted_and_gets_an_id_of_its_own() -> None:
    first, second = Envelope.model_validate_json(wire()), Envelope.model_validate_json(wire())
    assert first.body == ScreenInput(messages=PROBLEM)
    assert (first.tenant, first.priority) == ("default", Priority.interactive)
    assert first.message_id != second.message_id


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("version", 2),
        ("version", 0),
        ("version", "1"),
        ("version", None),
        ("body", {"kind": "drop_tables", "messages": []}),
        ("body", {"kind": "candidate", "index": 0, "content": "", "answer": None}),
        ("body", {"messages": [{"role": "user", "content": "1+1"}]}),
        ("body", {"kind": "screen_input", "messages": [{"role": "robot", "content": "1+1"}]}),
        ("body", {"kind": "screen_input", "messages": [{"role": "user", "content": None}]}),
        ("body", {"kind": "generate_candidate", "messages": [], "candidate": -1}),
        ("body", None),
        ("body", ...),
        ("job_id", ...),
        ("job_id", 7),
        ("step", ...),
        ("step", ""),
        ("step", "Screen Input"),
        ("step", "x" * 81),
        ("step", "screen_input\n"),
        ("attempt", ...),
        ("attempt", 0),
        ("attempt", 1.5),
        ("priority", 3),
        ("surprise", 1),
    ],
)
def test_what_is_not_understood_in_full_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(ValidationError) as caught:
        Envelope.model_validate_json(wire(**{field: value}))
    assert {error["loc"][0] for error in caught.value.errors()} == {field}


@pytest.mark.parametrize("text", ["", "null", "[]", "1", '"x"', wire()[:-1], wire() + "{}"])
def test_what_is_no_message_at_all_is_refused(text: str) -> None:
    with pytest.raises(ValidationError):
        Envelope.model_validate_json(text)


def test_an_unknown_kind_of_result_is_refused() -> None:
    with pytest.raises(ValidationError, match="union_tag_invalid"):
        TypeAdapter[StepResult](StepResult).validate_python({"kind": "oracle", "answer": "42"})


def test_every_kind_has_its_agent_and_every_agent_work() -> None:
    assert len(set(BODY_KINDS)) == len(BODY_KINDS) >= 5
    assert set(AGENT_OF_KIND) == set(BODY_KINDS)
    assert set(AGENT_OF_KIND.values()) == set(AgentKind)


@pytest.mark.parametrize(
    ("body", "queue"),
    [
        (ScreenInput(messages=PROBLEM), "safety"),
        (MakePlan(messages=PROBLEM), "planner"),
        (GenerateCandidate(messages=PROBLEM, candidate=0), "generator"),
        (GenerateCandidate(messages=PROBLEM, candidate=0, backend="fast"), "generator.fast"),
        (ComparePair(messages=PROBLEM, first=0, second=1, first_answer="", second_answer=""), "verifier"),
        (ScreenOutput(messages=PROBLEM, candidate=0, content="2"), "safety"),
    ],
)
def test_the_queue_of_a_body(body: Body, queue: str) -> None:
    assert queue_of(body) == queue


def test_only_generators_have_queues_by_backend() -> None:
    named = {kind: queue_name(kind, backend="fast") for kind in BODY_KINDS}
    assert [kind for kind, queue in named.items() if "fast" in queue] == ["generate_candidate"]
    with pytest.raises(KeyError):
        queue_name("drop_tables")


# ---- Any text survives

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
maybe = st.none() | texts
conversations = st.lists(
    st.builds(ChatMessage, role=st.sampled_from(["system", "developer", "user", "assistant"]), content=texts),
    max_size=3,
).map(tuple)
indices = st.integers(0, 63)
seeds = st.none() | st.integers(0, 2**31 - 1)
samplings = st.builds(
    Sampling,
    temperature=st.floats(0, 2),
    top_p=st.floats(0, 1, exclude_min=True),
    max_tokens=st.none() | st.integers(1, 1_000_000),
    stop=st.lists(texts, max_size=8).map(tuple),
    seed=seeds,
)
bodies = st.one_of(
    st.builds(ScreenInput, messages=conversations),
    st.builds(MakePlan, messages=conversations, candidate=st.none() | indices, templates=maybe, seed=seeds),
    st.builds(
        GenerateCandidate, messages=conversations, candidate=indices, plan=maybe, sampling=samplings, backend=maybe
    ),
    st.builds(
        ComparePair, messages=conversations, first=indices, second=indices, first_answer=texts, second_answer=texts
    ),
    st.builds(ScreenOutput, messages=conversations, candidate=indices, content=texts, reasoning=texts, plan=maybe),
)
envelopes = st.builds(
    Envelope,
    job_id=texts,
    step=st.from_regex(r"[a-z0-9_.-]{1,80}", fullmatch=True),
    attempt=st.integers(1, 2**53),
    tenant=texts,
    priority=st.sampled_from(Priority),
    body=bodies,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=60)
@given(envelopes)
def test_any_message_survives_the_way_by_our_writer_and_by_the_standard_librarys(message: Envelope) -> None:
    assert Envelope.model_validate_json(message.model_dump_json()) == message
    assert Envelope.model_validate(json.loads(json.dumps(message.model_dump(mode="json")))) == message


def test_half_a_character_is_no_text_on_the_wire() -> None:
    with pytest.raises(ValidationError):
        Envelope.model_validate_json(wire(tenant="HALF").replace("HALF", "a\\ud800b"))
    whole = Envelope.model_validate_json(wire(tenant="HALF").replace("HALF", "\\ud83d\\ude00"))
    assert whole.tenant == "\N{GRINNING FACE}"
