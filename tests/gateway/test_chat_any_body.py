"""Whatever is sent to the doors that solve something: an answer or a 4xx error object, never a failure of the gateway."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from k2think.schemas.chat import ChatBody
from k2think.schemas.policy import Policy, Sampling
from k2think.schemas.responses import ResponseBody

if TYPE_CHECKING:
    from harness.live import LiveGateway

TIMEOUT_S = 60.0
CHAT: dict[str, Any] = {"model": "simulated", "messages": [{"role": "user", "content": "What is 347 + 58?"}]}
RESPONSE: dict[str, Any] = {"model": "simulated", "input": [{"role": "user", "content": "What is 347 + 58?"}]}
BY_DOOR: dict[str, tuple[dict[str, Any], list[str]]] = {
    "chat/completions": (CHAT, [*ChatBody.model_fields, "tools", "response_format", "logit_bias", "functions"]),
    "responses": (RESPONSE, [*ResponseBody.model_fields, "text", "include", "previous_response_id", "tools"]),
}
TEXTS = st.one_of(
    st.text(st.characters(), max_size=8),  # half characters included
    st.sampled_from(["", " ", "\x00", "\ud800", "user", "system", "none", "simulated", "k2think", "text", "message"]),
)
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([0, -1, 2**31, 2**63, 10**30]),
    st.floats(),
    TEXTS,
)
WORDS = st.one_of(
    st.sampled_from(
        ["role", "content", "type", "text", "policy", "checks", "sampling", "effort", "unit_tests", "code"]
    ),
    st.sampled_from([*Policy.model_fields, *Sampling.model_fields]),
    TEXTS,
)
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3), max_leaves=8
)


@pytest.fixture(scope="module")
def http(live_gateway: LiveGateway) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=live_gateway.url, timeout=TIMEOUT_S) as client:
        yield client


def check(http: httpx.Client, door: str, content: bytes, headers: dict[str, str] | None = None) -> None:
    headers = {"Content-Type": "application/json", **(headers or {})}
    answer = http.post(f"/v1/{door}", content=content, headers=headers)
    if answer.status_code == 200:
        assert answer.content
        return
    # 422 and 503 with the code of a job: it was accepted, and came to nothing.
    assert answer.status_code in (400, 404, 413, 422) or (answer.status_code == 503 and "expired" in answer.text), (
        answer.text
    )
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]


FUZZ = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)


@pytest.mark.parametrize("door", BY_DOOR)
@FUZZ
@given(data=st.data())
def test_a_body_with_anything_in_its_fields(http: httpx.Client, door: str, data: st.DataObject) -> None:
    sound, names = BY_DOOR[door]
    changes = data.draw(st.dictionaries(st.sampled_from(names) | TEXTS, VALUES, min_size=1, max_size=3))
    # A stream is always 200; a deadline keeps a strange but sound request short.
    body = {**sound, **changes, "stream": False, "background": False} if door == "responses" else {**sound, **changes}
    check(http, door, json.dumps(body).encode())


@pytest.mark.parametrize("door", [*BY_DOOR, "jobs"])
@FUZZ
@given(value=VALUES)
@example(value={"model": "simulated", "metadata": {"\ud800": "x"}, "messages": [], "input": []})
@example(value={"\ud800": 1, "model": "\ud800"})
def test_any_json(http: httpx.Client, door: str, value: Any) -> None:
    check(http, door, json.dumps(value).encode())


@pytest.mark.parametrize("door", [*BY_DOOR, "jobs"])
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe{}",
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b'{"model": ' + b"9" * 100_000 + b"}",
        b'{"model": "k2think", "model": "k2think"}',
        b'{"messages": NaN, "input": Infinity}',
        b"null",
        b"\x00",
    ],
    ids=range(10),
)
def test_bytes_that_are_no_request(http: httpx.Client, door: str, content: bytes) -> None:
    check(http, door, content)


@pytest.mark.parametrize("key", ["", "k" * 256, "k" * 255, "\x7f", "ключ"])
def test_any_idempotency_key(http: httpx.Client, key: str) -> None:
    headers = {"Idempotency-Key": key.encode()}
    answer = http.post("/v1/chat/completions", json=CHAT, headers=headers)  # type: ignore[arg-type]
    assert answer.status_code in (200, 400)
