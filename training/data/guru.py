"""Guru (LLM360/guru-RL-92k; arXiv 2506.14965) into problems with their truths.

Parquet files by domain. A row is `data_source, prompt [{role, content}], ability, apply_chat_template,
qwen2.5_7b_pass_rate, qwen3_30b_pass_rate, reward_model {style, ground_truth}, extra_info`, in older files with a
`raw_prompt` in place of `prompt`; the truth's type differs by source. In `guru-RL-92k-extra-info-compressed`, truth and
`extra_info` are JSON, gzip and base64.
"""

from __future__ import annotations

import base64
import binascii
import gzip
import json
import zlib
from collections.abc import Mapping
from io import BytesIO
from typing import Any, cast

from pydantic import JsonValue, TypeAdapter, ValidationError

from ...grading.rewards.sources import find_source
from ...schemas.errors import explain
from ...schemas.scores import Domain, Task
from .converted import Converted, Rejected, stable_id
from .reading import Read, Row

PASS_RATES = ("qwen2.5_7b_pass_rate", "qwen3_30b_pass_rate", "deepseek_r1_0528_pass_rate")
UNPACKED_BYTES_MAX = 256_000_000
"""A packed field that is larger than this unpacked is refused."""
_LEFT_OUT = frozenset({"reference", "solution", "prompt", "raw_instruction", "raw_input", "original_question"})
"""Of `extra_info`: a reference solution must not travel with the problem, and the rest is said in the prompt."""
_OTHER_NAMES = {"source": "origin", "difficulty": "difficulty_label"}
"""Fields of `extra_info` whose names mean something else in a task's `meta`."""
_RAW_STARTS = ("<|im_start|>user\n", "User: ", "user\n")
_RAW_ENDS = ("<|im_end|>", "\nAssistant:", "\n\nAssistant:")
_json: TypeAdapter[JsonValue] = TypeAdapter(JsonValue)


def convert_guru(read: Read) -> Converted:
    """Convert one row. Raises Rejected."""
    row = read.row or {}
    name = row.get("data_source")
    if not isinstance(name, str) or not name:
        raise Rejected("no_source")
    source = find_source(name) or find_source(read.file.name)
    if source is None:
        raise Rejected("unknown_source", name)
    extra = _unpacked(row.get("extra_info"))
    info = cast(Row, extra) if isinstance(extra, dict) else {}
    prompt = _prompt(row, info)
    truth = _truth(row.get("reward_model"), source.domain)
    index = next((info[key] for key in ("index", "id", "idx") if info.get(key) is not None), None)
    meta = _meta(info, row)
    try:
        task = Task(
            # An index is unique within a file of one source only, and some files have none.
            id=stable_id(f"{name}-{index}"[:150] if index is not None else name[:150], prompt),
            domain=source.domain,
            source=name,
            prompt=prompt,
            truth=truth,
            meta=meta,
        )
    except ValidationError as exc:
        raise Rejected("no_task", explain(exc)) from exc
    question = info.get("original_question")
    return Converted(question if isinstance(question, str) and question.strip() else prompt, task=task)


def _prompt(row: Row, info: Row) -> str:
    turns = row.get("prompt")
    if isinstance(turns, list):
        said = [cast(Row, turn) for turn in cast(list[Any], turns) if isinstance(turn, dict)]
        asked = [
            turn["content"] for turn in said if turn.get("role") == "user" and isinstance(turn.get("content"), str)
        ]
        if len(asked) == 1 and asked[0].strip():
            return asked[0]
        if len(asked) > 1:
            raise Rejected("several_turns")
    raw = row.get("raw_prompt")
    if isinstance(raw, str) and raw.strip():
        return _bare(raw)
    for key in ("original_question", "prompt"):
        text = info.get(key)
        if isinstance(text, str) and text.strip():
            return text
    raise Rejected("no_prompt")


def _bare(raw: str) -> str:
    """Return a raw prompt without the chat template's words around it."""
    for start in _RAW_STARTS:
        _before, found, after = raw.partition(start)
        if found:
            raw = after
            break
    for end in _RAW_ENDS:
        raw = raw.partition(end)[0]
    return raw.strip()


def _truth(reward: object, domain: Domain) -> JsonValue:
    if not isinstance(reward, dict):
        raise Rejected("no_truth")
    value = _unpacked(cast(Row, reward).get("ground_truth"))
    if domain is Domain.code and isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as exc:
            raise Rejected("bad_tests") from exc
    if value is None or value in ("", [], {}):
        raise Rejected("no_truth")
    try:
        return _json.validate_python(_without_none(value))
    except ValidationError as exc:
        raise Rejected("bad_truth", explain(exc)) from exc


def _meta(info: Row, row: Row) -> dict[str, JsonValue]:
    kept = {_OTHER_NAMES.get(key, key): info[key] for key in info if key not in _LEFT_OUT and info[key] is not None}
    try:
        meta = cast(dict[str, JsonValue], _json.validate_python(_without_none(kept)))
    except ValidationError as exc:
        raise Rejected("bad_extra_info", explain(exc)) from exc
    rates = {
        name.removesuffix("_pass_rate"): rate
        for name in PASS_RATES
        if isinstance(rate := row.get(name), float) and 0.0 <= rate <= 1.0
    }
    if rates:
        meta["pass_rates"] = cast(JsonValue, rates)
        # How often models fail it.
        meta["difficulty"] = round(1.0 - sum(rates.values()) / len(rates), 4)
    return meta


def _unpacked(value: object) -> object:
    """Return a field as it was before packing: base64 of gzip of JSON, whole or in parts 1, 2, …; others as they are."""
    if not isinstance(value, dict):
        return value
    fields = cast(Mapping[str, Any], value)
    if len(fields) == 1 and "compressed" in fields:
        packed = fields["compressed"]
    elif fields and all(str(name).startswith("part_") for name in fields):
        packed = "".join(str(fields[name] or "") for name in sorted(fields, key=_part_number))
    else:
        return value
    try:
        raw = base64.b64decode(str(packed).strip() + "==", validate=False)
        with gzip.GzipFile(fileobj=BytesIO(raw)) as opened:
            text = opened.read(UNPACKED_BYTES_MAX + 1)
        if len(text) > UNPACKED_BYTES_MAX:
            raise Rejected("too_large")
        return json.loads(text)
    except (binascii.Error, OSError, EOFError, zlib.error, ValueError, RecursionError) as exc:
        raise Rejected("bad_packing", type(exc).__name__) from exc


def _part_number(name: str) -> int:
    number = str(name).removeprefix("part_")
    return int(number) if number.isdecimal() else 0


def _without_none(value: object) -> object:
    """Drop fields of objects that are null: Parquet gives every row the fields of all rows."""
    if isinstance(value, dict):
        fields = cast(Mapping[Any, Any], value)
        return {str(key): _without_none(item) for key, item in fields.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_without_none(item) for item in cast(list[Any], value)]
    return value
