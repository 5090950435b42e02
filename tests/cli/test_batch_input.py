"""The lines of a batch's input."""

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import pytest
from k2think.cli import batch_input
from k2think.cli.batch_input import BadLine, InputLine, LineParser, describe_input, raw_lines
from k2think.cli.requests import parse_policy
from k2think.schemas.policy import Plan, Policy, Priority


def parse(*lines: Any, policy: Policy | None = None) -> list[InputLine | BadLine]:
    parser = LineParser(policy or parse_policy(None))
    texts = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]
    return [parser.parse(number, text) for number, text in enumerate(texts, start=1)]


def only(line: Any, **options: Any) -> InputLine:
    (parsed,) = parse(line, **options)
    assert isinstance(parsed, InputLine), parsed
    return parsed


def why_bad(line: Any) -> str:
    (parsed,) = parse(line)
    assert isinstance(parsed, BadLine)
    return parsed.reason


def chat(**body: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": "What is 2 + 2?"}]
    return {"custom_id": "c", "method": "POST", "url": "/v1/chat/completions", "body": {"messages": messages, **body}}


def test_lines_keep_their_numbers_when_some_are_blank_or_too_long(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # Given a limit of ten bytes, and lines that cross the borders of what is read at once
    monkeypatch.setattr(batch_input, "LINE_BYTES_MAX", 10)
    monkeypatch.setattr(batch_input, "_CHUNK_BYTES", 7)
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"one\r\n\n  \nexactly 10\nmore than ten bytes\nlast")
    # When they are read, Then each has its number, and only the long one is gone
    with io.FileIO(path) as file:
        assert list(raw_lines(file)) == [(1, b"one\r"), (4, b"exactly 10"), (5, None), (6, b"last")]


def test_a_long_line_holds_no_more_than_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_input, "LINE_BYTES_MAX", 1_000)
    endless = _Endless(5_000_000)
    assert list(raw_lines(endless)) == [(1, None)]
    assert endless.given == 5_000_000


def test_an_input_is_described_by_its_beginning(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"a\n\n  \nb\nc")
    whole = describe_input(path)
    assert whole is not None
    assert (whole.lines, whole.size, whole.sha256) == (3, 9, hashlib.sha256(b"a\n\n  \nb\nc").hexdigest())
    beginning = describe_input(path, size=2)
    assert beginning is not None
    assert beginning.sha256 == hashlib.sha256(b"a\n").hexdigest()
    assert describe_input(path, size=10) is None


def test_plain_lines_become_requests_of_batch_priority_and_patience() -> None:
    line = only({"id": 3, "problem": "What?", "metadata": {"a": "b"}, "checks": {"answer_form": "integer"}})
    assert line.id == 3
    assert line.request.problem == "What?"
    assert line.request.metadata == {"a": "b"}
    assert line.request.policy.priority is Priority.batch
    assert line.request.policy.deadline_s == batch_input.DEADLINE_S


def test_a_lines_policy_is_laid_over_the_commands_and_a_preset_replaces_it() -> None:
    base = parse_policy('{"deadline_s": 50}', n=5, seed=9)
    own = only({"id": 1, "problem": "p", "policy": {"plan": "off", "sampling": {"top_p": 0.5}}}, policy=base)
    assert (own.request.policy.n, own.request.policy.plan, own.request.policy.deadline_s) == (5, Plan.off, 50)
    assert (own.request.policy.sampling.seed, own.request.policy.sampling.top_p) == (9, 0.5)
    preset = only({"id": 1, "problem": "p", "policy": "paper"}, policy=base)
    assert (preset.request.policy.n, preset.request.policy.templates) == (3, "paper")


def test_openai_lines_bring_their_parameters() -> None:
    line = only(
        chat(
            model="gpt",
            messages=[
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": [{"type": "text", "text": "What "}, {"type": "text", "text": "is it?"}]},
            ],
            temperature=0.5,
            max_completion_tokens=77,
            stop="END",
            seed=4,
            n=1,
            user="someone",
            policy={"n": 2},
        )
    )
    assert (line.openai, line.id, line.model) == (True, "c", "gpt")
    assert [message.content for message in line.request.messages] == ["Be brief.", "What is it?"]
    sampling = line.request.policy.sampling
    assert (sampling.temperature, sampling.max_tokens, sampling.seed) == (0.5, 77, 4)
    assert sampling.stop == ("</answer>", "END")
    assert line.request.policy.n == 2


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"not json", "not valid JSON"),
        (b'{"id": 1, "problem": "cut', "not valid JSON"),
        (b"\xff\xfe", "not UTF-8"),
        (b"[" * 100_000, "not valid JSON"),
        ([1], "not a JSON object"),
        ({"problem": "p"}, "has no id"),
        ({"id": "", "problem": "p"}, "has no id"),
        ({"id": True, "problem": "p"}, "text or a whole number"),
        ({"id": {}, "problem": "p"}, "text or a whole number"),
        ({"id": "x" * 501, "problem": "p"}, "more than 500"),
        ({"id": 1}, "give either `problem` or `messages`"),
        ({"id": 1, "problem": " "}, "problem is empty"),
        ({"id": 1, "problem": "x" * 1_000_001}, "1000000"),
        ({"id": 1, "problem": "p", "polcy": {}}, "unknown fields: polcy"),
        ({"id": 1, "problem": "p", "policy": {"n": 0}}, "n: "),
        ({"id": 1, "problem": "p", "policy": "best"}, "unknown policy"),
        ({"id": 1, "problem": "p", "policy": 4}, "policy"),
        ({"custom_id": "c", "url": "/v1/embeddings", "body": {}}, "/v1/embeddings"),
        ({"custom_id": "c", "url": "/v1/chat/completions"}, "body"),
        (chat(messages=[]), "body.messages"),
        (chat(messages=[{"role": "tool", "content": "x"}]), "role"),
        (chat(messages=[{"role": "user", "content": [{"type": "image_url"}]}]), "type text"),
        (chat(n=2), "body.n"),
        (chat(stream=True), "body.stream"),
        (chat(response_format={"type": "json_object"}), "body.response_format"),
        (chat(frobnicate=1), "body.frobnicate"),
        (chat(temperature=9), "temperature"),
        (chat(stop=5), "body.stop"),
    ],
)
def test_bad_lines_say_what_is_wrong(line: Any, reason: str) -> None:
    assert reason in why_bad(line)


def test_a_second_line_of_the_same_id_is_bad_and_ids_of_other_types_are_others() -> None:
    first, second, third = parse(
        {"id": 1, "problem": "p"}, {"id": "1", "problem": "p"}, {"custom_id": "1", "body": {"messages": []}}
    )
    assert isinstance(first, InputLine)
    assert isinstance(second, InputLine)
    assert isinstance(third, BadLine)
    assert "same id" in third.reason


def test_a_byte_order_mark_begins_no_line() -> None:
    assert only(b'\xef\xbb\xbf{"id": 1, "problem": "p"}').id == 1


class _Endless(io.RawIOBase):
    """So many bytes without a line feed."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.given = 0

    def read(self, size: int = -1) -> bytes:
        count = min(size, self.size - self.given)
        self.given += count
        return b"x" * count
