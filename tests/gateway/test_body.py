"""What a gateway reads of a body: bounded in bytes, depth, count and time; whatever is wrong is a 4xx in OpenAI's form."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from harness.gateway import RunningGateway
from k2think.gateway import body
from k2think.gateway.body import JSON_VALUES_MAX, check_json
from k2think.gateway.protocol import HEAD_BYTES_MAX
from k2think.schemas.errors import InvalidRequest
from starlette.exceptions import HTTPException

if TYPE_CHECKING:
    from .conftest import StartGateway

BYTES_MAX = 100_000
PROBLEM: dict[str, Any] = {"problem": "What is 347 + 58?"}
CREATES = ("/v1/jobs", "/v1/chat/completions", "/v1/responses", "/v1/batches")
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def gateway(start_gateway: StartGateway) -> RunningGateway:
    return start_gateway(keyless=True, K2THINK_GATEWAY__BODY_BYTES_MAX=str(BYTES_MAX))


@pytest.fixture
def http(gateway: RunningGateway) -> Iterator[httpx.Client]:
    with gateway.client() as client:
        yield client


def problem_of(raw: bytes) -> bytes:
    """A job whose problem is this, which stands in the JSON as it is."""
    return b'{"problem": ' + raw + b"}"


def is_refused(answer: httpx.Response, status: int = 400) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    error: dict[str, Any] = answer.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert error["message"]
    return error


@pytest.mark.parametrize("path", CREATES)
def test_a_body_that_is_too_large_is_refused_by_its_announced_length(http: httpx.Client, path: str) -> None:
    error = is_refused(http.post(path, content=b" " * (BYTES_MAX + 1), headers=JSON), 413)

    assert error["code"] == "body_too_large"


def test_a_body_without_a_length_is_read_no_further_than_its_limit(gateway: RunningGateway) -> None:
    chunk = b"%x\r\n" % 10_000 + b" " * 10_000 + b"\r\n"
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=30) as wire:
        wire.sendall(b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        # As much as is allowed and a little more: the answer comes although the body never ends.
        for _ in range(BYTES_MAX // 10_000 + 1):
            wire.sendall(chunk)
        answer = b""
        while piece := wire.recv(65_536):
            answer += piece

    assert answer.startswith(b"HTTP/1.1 413")
    assert b"connection: close" in answer.lower()


def test_a_body_at_the_limit_is_read(http: httpx.Client) -> None:
    whole = json.dumps(PROBLEM).encode()

    assert http.post("/v1/jobs", content=whole + b" " * (BYTES_MAX - len(whole)), headers=JSON).status_code == 202


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"{", id="cut off"),
        pytest.param(b"null", id="null"),
        pytest.param(b"[]", id="list"),
        pytest.param(b"1", id="number"),
        pytest.param(b"\xff\xfe", id="no text"),
        pytest.param('{"problem": "1+1"}'.encode("utf-16"), id="UTF-16"),
        pytest.param(problem_of(b'"\xff"'), id="invalid UTF-8"),
        pytest.param(problem_of(b'"\xed\xa0\x80"'), id="surrogate in UTF-8"),
        pytest.param(problem_of(b'"\\ud800"'), id="lone surrogate"),
        pytest.param(problem_of(b'"\\udc00\\ud800"'), id="surrogates the wrong way round"),
        pytest.param(problem_of(b'"\\u0000"'), id="NUL"),
        pytest.param(b'{"problem": "1+1", "metadata": {"\\u0000": "x"}}', id="NUL in a name"),
        pytest.param(problem_of(b'"\x00"'), id="bare NUL"),
        pytest.param(problem_of(b"NaN"), id="NaN"),
        pytest.param(problem_of(b"-Infinity"), id="Infinity"),
        pytest.param(problem_of(b"9" * 50_000), id="long number"),
        pytest.param(b'{"problem": "1+1", "policy": {"n": ' + b"9" * 5_000 + b"}}", id="long n"),
        pytest.param(b'{"problem": "1+1", "policy": {"deadline_s": 1e999}}', id="beyond a double"),
        pytest.param(b'{"problem": "1+1", "policy": {"n": 1e308}}', id="large"),
        pytest.param(problem_of(b"[" * 40_000), id="deep and open"),
        pytest.param(problem_of(b"[" * 300 + b"]" * 300), id="deep"),
        pytest.param(b'{"a":' * 300 + b"1" + b"}" * 300, id="deep objects"),
        pytest.param(problem_of(b"[" + b"1," * 45_000 + b"1]"), id="many values"),
    ],
)
@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/chat/completions"])
def test_what_cannot_be_read_is_refused(http: httpx.Client, path: str, content: bytes) -> None:
    is_refused(http.post(path, content=content, headers=JSON))


def test_a_field_that_is_named_twice_does_no_harm(http: httpx.Client) -> None:
    twice = b'{"problem": "What is 1 + 1?", "problem": "What is 2 + 2?"}'
    answer = http.post("/v1/jobs", content=twice, headers=JSON)

    assert answer.status_code == 202
    assert answer.json()["problem"] == "What is 2 + 2?"


@pytest.mark.parametrize(
    "text", ["\N{GRINNING FACE}", "\\u0000", "a, b, {c} [d]" * 1_000, "\u202e\x1b[31m", "\N{PAPERCLIP}" * 20_000]
)
def test_any_other_text_is_taken(http: httpx.Client, text: str) -> None:
    for ascii_only in (True, False):
        content = json.dumps({"problem": text}, ensure_ascii=ascii_only).encode()
        if len(content) <= BYTES_MAX:
            assert http.post("/v1/jobs", content=content, headers=JSON).status_code == 202


@pytest.mark.parametrize("kind", ["text/plain", "application/xml", "application/json; charset=latin-1", ""])
def test_the_kind_of_the_body_is_looked_at(http: httpx.Client, kind: str) -> None:
    whole = json.dumps(PROBLEM).encode()
    answer = http.post("/v1/jobs", content=whole, headers={"Content-Type": kind})

    assert answer.status_code in (202, 400)
    assert (answer.status_code == 202) is kind.startswith("application/json")


def test_commas_in_a_text_are_not_values() -> None:
    text = ("," * JSON_VALUES_MAX + "[{" * 10).encode()

    check_json(b'{"problem": "' + text + b'\\""}')
    check_json(b"[" + b"1," * (JSON_VALUES_MAX - 2) + b"1]")
    with pytest.raises(InvalidRequest, match="values"):
        check_json(b"[" + b"1," * (JSON_VALUES_MAX + 1) + b"1]")


@pytest.mark.parametrize("hostile", [b'["\\",' * 700_000, b'"' * 3_900_000, b'"\\' * 1_900_000, b"," * 3_900_000])
def test_what_is_no_json_takes_no_time_to_find_out(hostile: bytes) -> None:
    began = time.process_time()
    with pytest.raises(InvalidRequest):
        check_json(hostile)

    # A second search from each quote would take hours.
    assert time.process_time() - began < 10


def raw(gateway: RunningGateway, request: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=30) as wire:
        wire.sendall(request)
        return wire.recv(65_536)


def test_a_head_that_is_too_large_is_refused(gateway: RunningGateway) -> None:
    begun = b"GET /v1/jobs HTTP/1.1\r\nHost: localhost\r\nX: "

    assert raw(gateway, begun + b"x" * (HEAD_BYTES_MAX + 1)).startswith(b"HTTP/1.1 400")
    assert raw(gateway, begun + b"x" * (HEAD_BYTES_MAX // 2) + b"\r\n\r\n").startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    "request_",
    [
        b"\x16\x03\x01\x02\x00",
        b"GET / HTTP/1.1\r\n\r\n",
        b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999999999999999\r\n\r\n",
        b"GET /v1/jobs HTTP/1.1\r\nHost: localhost\r\nA B: c\r\n\r\n",
        b"GET /v1/jobs HTTP/1.1\r\nHost: localhost\r\nA: b\x00c\r\n\r\n",
    ],
)
def test_what_is_no_request_is_refused(gateway: RunningGateway, request_: bytes) -> None:
    assert raw(gateway, request_ + b"\r\n\r\n").startswith((b"HTTP/1.1 400", b"HTTP/1.1 413", b"HTTP/1.1 404"))


def test_a_connection_on_which_no_head_comes_is_closed(gateway: RunningGateway) -> None:
    address = ("127.0.0.1", gateway.port)
    half = b"GET /v1/jobs HTTP/1.1\r\nHost: localhost\r\n"
    with ExitStack() as stack:
        silent, begun, again = (stack.enter_context(socket.create_connection(address, timeout=60)) for _ in range(3))
        again.sendall(half + b"\r\n")
        while b"has_more" not in again.recv(65_536):
            pass
        begun.sendall(half)
        again.sendall(half)

        for wire in (silent, begun, again):
            assert wire.recv(1) == b""


async def test_a_body_that_does_not_come_in_time_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body, "READ_TIMEOUT_S", 0.05)
    sent: list[Any] = []

    async def never() -> Any:
        await asyncio.sleep(60)

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/v1/jobs", "headers": []}
    await body.BodyLimits(_unreached, bytes_max=10)(scope, never, send)

    assert sent[0]["status"] == 408
    assert (b"connection", b"close") in sent[0]["headers"]


async def test_the_rest_of_an_upload_that_does_not_come_in_time_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body, "IDLE_TIMEOUT_S", 0.05)
    pieces = [{"type": "http.request", "body": b"x", "more_body": True}]

    async def stalls() -> Any:
        if not pieces:
            await asyncio.sleep(60)
        return pieces.pop()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert (await receive())["body"] == b"x"
        with pytest.raises(HTTPException) as refused:
            await receive()
        assert refused.value.status_code == 408

    async def send(message: Any) -> None:
        raise AssertionError(message)

    await body.BodyLimits(app, bytes_max=10)({"type": "http", "method": "POST", "path": "/v1/files"}, stalls, send)


async def _unreached(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError


def test_a_client_that_leaves_midway_leaves_nothing_behind(gateway: RunningGateway, http: httpx.Client) -> None:
    before = len(http.get("/v1/jobs", params={"limit": 100}).json()["data"])
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=30) as wire:
        wire.sendall(b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n" + b"{")

    assert len(http.get("/v1/jobs", params={"limit": 100}).json()["data"]) == before
    assert "Traceback" not in gateway.log.read_text()


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", None])
@pytest.mark.parametrize("path", CREATES)
def test_a_body_that_is_not_sent_as_json_is_answered_with_the_header_to_send(
    http: httpx.Client, path: str, kind: str | None
) -> None:
    headers = {} if kind is None else {"Content-Type": kind}

    error = is_refused(http.post(path, content=json.dumps(PROBLEM).encode(), headers=headers))

    assert "send `Content-Type: application/json`" in error["message"]
    assert (kind or "without a content type") in error["message"]
