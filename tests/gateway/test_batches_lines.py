"""What is checked of a batch's input, what its lines become, and how they are told in its output."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from harness.batch_lines import BODY, ENDPOINT, line, raw
from k2think.gateway.batches.input import InputCheck
from k2think.gateway.batches.lines import read_line, request_of
from k2think.gateway.batches.output import result_line
from k2think.schemas.batches import LineStatus
from k2think.schemas.policy import Priority
from k2think.schemas.settings import GatewaySettings, Settings
from k2think.store.batch_lines import Outcome

SETTINGS = Settings(_env_file=None)  # pyright: ignore[reportCallIssue]


def checked(folder: Path, content: bytes, **limits: Any) -> InputCheck:
    path = folder / "input"
    path.write_bytes(content)
    settings = SETTINGS.model_copy(update={"gateway": GatewaySettings(**limits)})
    check = InputCheck.open(path, settings, endpoint=ENDPOINT, expires_at=time.time() + 60, now=time.time)
    while not check.ended:
        check.read_piece()
    check.close()
    return check


def faults(folder: Path, content: bytes, **limits: Any) -> list[tuple[int | None, str, str | None]]:
    return [(fault.line, fault.code, fault.param) for fault in checked(folder, content, **limits).problems]


@pytest.mark.parametrize(
    ("bad", "code", "param"),
    [
        (b"{", "invalid_json_line", None),
        (b"\xff", "invalid_json_line", None),
        (b"[" * 300 + b"]" * 300, "invalid_json_line", None),
        (b'{"custom_id": NaN}', "invalid_json_line", None),
        (b"[1, 2]", "invalid_line", None),
        (b"{}", "invalid_custom_id", "custom_id"),
        (line(""), "invalid_custom_id", "custom_id"),
        (line(7), "invalid_custom_id", "custom_id"),
        (line("x" * 513), "invalid_custom_id", "custom_id"),
        (line("a\nb"), "invalid_custom_id", "custom_id"),
        (line(method="GET"), "invalid_method", "method"),
        (line(url="/v1/embeddings"), "invalid_url", "url"),
        (line(url=ENDPOINT + "/"), "invalid_url", "url"),
        (line(body="x"), "invalid_body", "body"),
        (line(extra=1), "invalid_line", "extra"),
        (line(body={}), "invalid_body", "body.messages"),
        (line(body={**BODY, "stream": True}), "invalid_body", "body.stream"),
        (line(body={**BODY, "n": 2}), "invalid_body", "body.n"),
        (line(body={**BODY, "temperature": 3}), "invalid_body", "body.temperature"),
        (line(body={**BODY, "logprobs": True}), "invalid_body", "body.logprobs"),
        (line(body={**BODY, "model": "gpt-0"}), "model_not_found", "body.model"),
        (line(body={**BODY, "k2think": {"policy": {"n": 0}}}), "invalid_body", "body.k2think.policy.n"),
        (line(body={**BODY, "k2think": {"policy": {"priority": "interactive"}}}), "invalid_body", None),
    ],
)
def test_a_fault_is_told_with_its_line_and_field(tmp_path: Path, bad: Any, code: str, param: str | None) -> None:
    bad = bad if isinstance(bad, bytes) else json.dumps(bad).encode()
    ((number, found, field),) = faults(tmp_path, raw(line("first")) + b"\n" + bad + b"\n" + raw(line("last")))
    assert (number, found) == (3, code)
    assert field == param or param is None


def test_a_good_input_has_its_lines_where_they_are(tmp_path: Path) -> None:
    content = b"\xef\xbb\xbf" + raw(line("a")) + b"  \r\n" + raw(line("b"))[:-1] + b"\r\n" + raw(line("ü"))[:-1]
    path = tmp_path / "input"
    path.write_bytes(content)
    check = InputCheck.open(path, SETTINGS, endpoint=ENDPOINT, expires_at=time.time() + 60, now=time.time)

    found = check.read_piece()

    check.close()
    assert check.ended
    assert check.problems == []
    assert (check.total, check.model) == (3, "k2think")
    assert [(item.line, item.custom_id) for item in found] == [(1, "a"), (3, "b"), (4, "ü")]
    for item in found:
        read = content[item.offset : item.offset + item.length]
        assert read_line(read, endpoint=ENDPOINT)[0] == item.custom_id


def test_the_input_as_a_whole_has_limits(tmp_path: Path) -> None:
    assert faults(tmp_path, b"") == faults(tmp_path, b"\n \r\n") == [(None, "empty_file", None)]
    three = raw(line("a"), line("b"), line("c"))
    assert faults(tmp_path, three, batch_lines_max=3) == []
    assert faults(tmp_path, three, batch_lines_max=2) == [(3, "too_many_lines", None)]
    size = len(raw(line("b"))) - 1
    assert faults(tmp_path, raw(line("b")), line_bytes_max=size) == []
    assert faults(tmp_path, raw(line("b"))[:-1] + b"\r\n", line_bytes_max=size) == []
    long = raw(line("a"), line("b" * 5000), line("bb"), line("c"))
    assert faults(tmp_path, long, line_bytes_max=size) == [(2, "line_too_long", None), (3, "line_too_long", None)]


def test_the_first_hundred_faults_are_told(tmp_path: Path) -> None:
    found = faults(tmp_path, b"x\n" * 250)
    assert [number for number, _code, _param in found] == list(range(1, 101))
    assert faults(tmp_path, raw(*(line("a") for _ in range(3)))) == [
        (2, "duplicate_custom_id", "custom_id"),
        (3, "duplicate_custom_id", "custom_id"),
    ]


def test_content_is_not_repeated_in_faults(tmp_path: Path) -> None:
    secret = "s3cret-" * 5
    for bad in (
        secret.encode(),
        raw(line(url=secret)),
        raw(line(method=secret)),
        raw(line(body={**BODY, "temperature": secret})),
    ):
        check = checked(tmp_path, bad)
        assert check.problems
        assert secret not in check.problems[0].message


def test_a_line_lives_as_long_as_its_batch_unless_it_says_less() -> None:
    def deadline(rest_s: float, **policy: Any) -> float:
        body = {**BODY, "k2think": {"policy": policy}}
        _custom_id, understood = read_line(json.dumps(line(body=body)).encode(), endpoint=ENDPOINT)
        request = request_of(understood, SETTINGS, expires_at=1_000 + rest_s, now=1_000)
        assert request.policy.priority is Priority.batch
        assert request.policy.selection is not None, "what the settings decide is filled in"
        return request.policy.deadline_s

    assert deadline(86_400) == 86_460
    assert deadline(604_800) == 604_800
    assert deadline(-5) == 60
    assert deadline(86_400, deadline_s=30) == 30
    assert deadline(100, deadline_s=3_600) == 160
    assert deadline(100, priority="batch") == 160


def test_a_line_of_the_output_stays_the_same_however_often_it_is_written() -> None:
    outcome = Outcome(1, "a", LineStatus.failed, '{"code": "x", "message": "y"}', None, None, None)
    first, _used = result_line("batch_1", outcome)
    assert (first, _used) == result_line("batch_1", outcome)
    assert json.loads(first) == {
        "id": json.loads(first)["id"],
        "custom_id": "a",
        "response": None,
        "error": {"code": "x", "message": "y"},
    }
    assert json.loads(result_line("batch_2", outcome)[0])["id"] != json.loads(first)["id"]
    gone, _used = result_line("batch_1", outcome._replace(error=None))
    assert json.loads(gone)["error"]["code"] == "job_deleted"
