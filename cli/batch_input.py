"""The lines of a batch's input: read in bounded memory, understood one by one, bad ones told apart."""

import hashlib
import io
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError

from ..schemas.chat import ChatBody
from ..schemas.chat_answers import DEFAULT_MODEL
from ..schemas.errors import InvalidRequest, explain
from ..schemas.jobs import SolveRequest
from ..schemas.policy import Policy, Priority
from .requests import parse_policy

LINE_BYTES_MAX = 16_000_000
"""A longer line is bad: no valid request needs one."""
ID_CHARS_MAX = 500
DEADLINE_S = 86_400.0
"""Of batch jobs whose policy sets none: they wait for each other, so the default of a single job would be too short."""
STDIN = "-"
_CHUNK_BYTES = 1 << 16
_PLAIN_FIELDS = {"id", "problem", "messages", "policy", "checks", "metadata"}
_OPENAI_FIELDS = {"custom_id", "method", "url", "body"}
_OPENAI_URL = "/v1/chat/completions"


@dataclass(frozen=True, slots=True)
class InputLine:
    """A line that can be worked on."""

    number: int
    """From 1."""
    id: Any
    """The caller's `id` or `custom_id`: a text or a whole number."""
    openai: bool
    """Whether it is answered in the OpenAI batch shape."""
    request: SolveRequest
    """What to solve."""
    model: str = ""
    """Model name in an OpenAI line, repeated in its answer; empty = none."""


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that cannot."""

    number: int
    """From 1."""
    id: Any
    """The caller's id where there is a usable one; None otherwise."""
    openai: bool
    """Whether it is answered in the OpenAI batch shape."""
    reason: str
    """What is wrong, without the line's number."""


@dataclass(frozen=True, slots=True)
class InputFile:
    """What an input file is recognised by."""

    lines: int
    """Lines that are not blank."""
    size: int
    """Bytes."""
    sha256: str
    """Of the whole, hex."""


def open_input(path: str) -> io.RawIOBase:
    """Open the input, `-` = standard input. Raises InvalidRequest."""
    if path == STDIN:
        return io.FileIO(0, closefd=False)
    try:
        if os.path.isdir(path):
            raise InvalidRequest(f"the input {path} is a folder; give a file of JSON lines, or - for standard input")
        return io.FileIO(path)
    except OSError as exc:
        raise InvalidRequest(f"the input {path} cannot be read: {exc.strerror or exc}") from exc


def describe_input(path: Path, *, size: int | None = None) -> InputFile | None:
    """Read the first `size` bytes of a file (None = all of it); None when it has fewer. Raises InvalidRequest."""
    digest, seen, lines, blank = hashlib.sha256(), 0, 0, True
    with open_input(str(path)) as file:
        while chunk := file.read(_CHUNK_BYTES if size is None else min(_CHUNK_BYTES, size - seen)):
            digest.update(chunk)
            seen += len(chunk)
            first, *rest = chunk.split(b"\n")
            blank = blank and not first.strip()
            for piece in rest:
                lines += not blank
                blank = not piece.strip()
    if size is not None and seen < size:
        return None
    return InputFile(lines=lines + (not blank), size=seen, sha256=digest.hexdigest())


def raw_lines(file: io.RawIOBase) -> Iterator[tuple[int, bytes | None]]:
    """Yield (number, line) of the lines that are not blank; None for a line above LINE_BYTES_MAX."""
    number, parts, held = 0, list[bytes](), 0

    def line() -> bytes | None:
        return None if held > LINE_BYTES_MAX else b"".join(parts)

    while chunk := file.read(_CHUNK_BYTES):
        *ended, rest = chunk.split(b"\n")
        for piece in ended:
            number += 1
            held += len(piece)
            if held <= LINE_BYTES_MAX:
                parts.append(piece)
            text = line()
            if text is None or text.strip():
                yield number, text
            parts, held = [], 0
        held += len(rest)
        if held <= LINE_BYTES_MAX:
            parts.append(rest)
    text = line()
    if text is None or text.strip():
        yield number + 1, text


class LineParser:
    """Turns lines into requests; remembers the ids that it has seen."""

    def __init__(self, policy: Policy) -> None:
        """`policy`: of the command line; a line's own is laid over it, or replaces it where it names a preset."""
        self._base = policy.model_dump(mode="json", exclude_unset=True)
        self._seen: set[bytes] = set()

    def parse(self, number: int, raw: bytes | None) -> InputLine | BadLine:
        """Understand one line. A second line of the same id is bad."""
        if raw is None:
            return BadLine(number, None, False, f"it is longer than {LINE_BYTES_MAX // 1_000_000} MB")
        try:
            value = json.loads(raw.decode("utf-8-sig" if number == 1 else "utf-8"))
        except UnicodeDecodeError as exc:
            return BadLine(number, None, False, f"it is not UTF-8 text ({exc.reason} at byte {exc.start})")
        except (ValueError, RecursionError) as exc:
            return BadLine(number, None, False, f"it is not valid JSON: {exc}")
        if not isinstance(value, dict):
            return BadLine(number, None, False, "it is not a JSON object")
        fields = cast(dict[str, Any], value)
        openai = not _OPENAI_FIELDS.isdisjoint(fields)
        line_id: Any = None
        try:
            line_id = _line_id(fields, "custom_id" if openai else "id")
            digest = id_digest(line_id)
            if digest in self._seen:
                raise InvalidRequest(f"an earlier line has the same id {json.dumps(line_id, ensure_ascii=False)}")
            self._seen.add(digest)
            return self._line(number, line_id, fields, openai=openai)
        except InvalidRequest as exc:
            return BadLine(number, line_id, openai, str(exc))

    def _line(self, number: int, line_id: Any, fields: dict[str, Any], *, openai: bool) -> InputLine:
        unknown = sorted(set(fields) - (_OPENAI_FIELDS if openai else _PLAIN_FIELDS))
        if unknown:
            raise InvalidRequest(f"unknown fields: {', '.join(unknown)}")
        model = ""
        if openai:
            fields, model = _openai_fields(fields)
        given = {name: fields[name] for name in ("problem", "messages", "checks", "metadata") if name in fields}
        try:
            request = SolveRequest.model_validate({**given, "policy": self._policy(fields.get("policy"))})
        except ValidationError as exc:
            raise InvalidRequest(explain(exc)) from exc
        return InputLine(number, line_id, openai, request, model)

    def _policy(self, own: Any) -> Policy:
        if own is not None and not isinstance(own, str | dict):
            raise InvalidRequest("policy: it must be a name or an object")
        extra: dict[str, Any] = {"preset": own} if isinstance(own, str) else cast(dict[str, Any], own or {})
        if "preset" not in extra:
            extra = _laid_over(self._base, extra)
        return parse_policy(None, extra={"priority": int(Priority.batch), "deadline_s": DEADLINE_S, **extra})


def id_digest(line_id: Any) -> bytes:
    """Return 16 bytes that stand for an id, so that those of a long input fit into memory."""
    return hashlib.blake2b(json.dumps(line_id).encode(), digest_size=16).digest()


def _line_id(fields: dict[str, Any], name: str) -> Any:
    value = fields.get(name)
    if value is None or value == "":
        raise InvalidRequest(f"it has no {name}")
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise InvalidRequest(f"its {name} must be a text or a whole number")
    if len(str(value)) > ID_CHARS_MAX:
        raise InvalidRequest(f"its {name} has more than {ID_CHARS_MAX} characters")
    return value


def _openai_fields(fields: dict[str, Any]) -> tuple[dict[str, Any], str]:
    method, url, body = fields.get("method", "POST"), fields.get("url", _OPENAI_URL), fields.get("body")
    if method != "POST" or url != _OPENAI_URL:
        raise InvalidRequest(f"only POST {_OPENAI_URL} is served, not {method} {url}")
    if not isinstance(body, dict):
        raise InvalidRequest("its body must be an object with messages")
    given = cast(dict[str, Any], body)
    named = given.get("model")
    model = named if isinstance(named, str) else ""
    try:
        chat = ChatBody.model_validate({**_nested(given), "model": model or DEFAULT_MODEL})
    except ValidationError as exc:
        raise InvalidRequest(f"body.{explain(exc)}") from exc
    except InvalidRequest as exc:
        raise InvalidRequest(f"body.{exc}") from exc
    for name, unwanted in (("n", chat.n > 1), ("stream", chat.stream)):
        if unwanted:
            raise InvalidRequest(f"body.{name}: this value is not supported in a batch: leave it out")
    request: dict[str, Any] = {
        "messages": chat.conversation,
        "policy": chat.policy_fields(),
        "checks": chat.k2think.checks,
        "metadata": chat.metadata,
    }
    return request, model


def _nested(body: dict[str, Any]) -> dict[str, Any]:
    """Return the body with our own options where the gateway has them; a file may have them at its top."""
    own = {name: body[name] for name in ("policy", "checks") if body.get(name) is not None}
    rest = {name: value for name, value in body.items() if name not in ("policy", "checks")}
    return {**rest, "k2think": own} if own else rest


def _laid_over(base: dict[str, Any], extra: dict[str, Any]) -> dict[str, Any]:
    merged = {**base, **extra}
    if isinstance(base.get("sampling"), dict) and isinstance(extra.get("sampling"), dict):
        merged["sampling"] = {**base["sampling"], **extra["sampling"]}
    return merged
